"""Camera paths by name or from files."""

from pathlib import Path

import torch
from torch import Tensor

from vggrpo.config.errors import ConfigError
from vggrpo.geometry import CAMERA_PATHS, resample_path
from vggrpo.io import load_tensors, read_json

KEY = "camera_to_world"
RIGID_TOLERANCE = 1e-3


def read_camera_path(path: str, amount: float | None, num_views: int) -> Tensor:
    """A path of `num_views` cameras, camera_to_world [T, 4, 4].

    Args:
        path: a name of `vggrpo.geometry.CAMERA_PATHS`; a .json file with "camera_to_world", a list of 4 x 4
            matrices (or that list alone); or a .safetensors file with the tensor "camera_to_world" [N, 4, 4],
            as `vggrpo world render` and `vggrpo reconstruct` write it. Files are resampled to the views.
        amount: how far along a named path, in its unit.
        num_views: T.

    Raises:
        ConfigError: if there is no such file, or it holds no path.
        CorruptFileError: if it is damaged.
    """
    if path in CAMERA_PATHS:
        if amount is None:
            raise ConfigError(f"the camera path {path} needs an amount: degrees or median depths")
        return CAMERA_PATHS[path](num_views, amount)
    if not Path(path).is_file():
        raise ConfigError(f"there is no camera path {path}: give {', '.join(CAMERA_PATHS)} or a file")
    return resample_path(_checked(_read(Path(path)), path), num_views)


def _read(path: Path) -> Tensor:
    if path.suffix == ".safetensors":
        tensors = load_tensors(path)
        if KEY not in tensors:
            raise ConfigError(f"{path} holds no {KEY}, but {', '.join(tensors)}")
        return tensors[KEY].float()
    content = read_json(path)
    matrices = content.get(KEY) if isinstance(content, dict) else content
    try:
        return torch.tensor(matrices, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{path} holds no list of 4 x 4 matrices under {KEY!r}: {error}") from error


def _checked(matrices: Tensor, path: str) -> Tensor:
    """The cameras themselves.

    Raises:
        ConfigError: unless they are at least two rigid transforms.
    """
    if matrices.ndim == 4 and len(matrices) == 1:
        matrices = matrices[0]
    if matrices.ndim != 3 or matrices.shape[1:] != (4, 4) or len(matrices) < 2:
        raise ConfigError(
            f"{path} holds {KEY} of shape {list(matrices.shape)}, expected [N, 4, 4], two cameras or more"
        )
    rotation = matrices[:, :3, :3]
    rigid = torch.zeros_like(matrices) + torch.eye(4)
    rigid[:, :3, :3], rigid[:, :3, 3] = rotation @ rotation.mT, 0.0
    expected = torch.eye(4).expand_as(rigid)
    last_row = (matrices[:, 3] - torch.tensor([0.0, 0.0, 0.0, 1.0])).abs().amax()
    turned = torch.linalg.det(rotation).amin()
    if not (
        bool(matrices.isfinite().all())
        and float((rigid - expected).abs().amax()) < RIGID_TOLERANCE
        and float(last_row) < RIGID_TOLERANCE
        and float(turned) > 0
    ):
        raise ConfigError(
            f"{path}: {KEY} holds matrices that are no rigid transforms; expected a rotation, a translation "
            "and the last row [0, 0, 0, 1]"
        )
    return matrices
