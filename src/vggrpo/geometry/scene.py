"""SceneGeometry: what a geometry model sees in a clip, and all that the rewards know about it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from vggrpo.geometry._checks import require_shape

FrameIndex = Sequence[int] | Tensor | slice
BatchIndex = int | Sequence[int] | Tensor | slice


@dataclass(frozen=True, eq=False)
class SceneGeometry:
    """Cameras, depth and points of B clips of T views each, on one raster of H x W pixels.

    OpenCV axes (+x right, +y down, +z forward); integer pixel coordinates are pixel centres; lengths in scene
    units. Values may be non-finite: a failed prediction is data, and rewards report it as invalid.

    Raises:
        ValueError: if a shape, a dtype, a device or the last row of `camera_to_world` is wrong.
    """

    camera_to_world: Tensor
    """[B, T, 4, 4], rigid, last row 0 0 0 1."""
    intrinsics: Tensor
    """[B, T, 3, 3], pixels of the H x W raster."""
    depth_z: Tensor
    """[B, T, H, W], along the optical axis; 0 where a pixel sees no surface."""
    world_points: Tensor
    """[B, T, H, W, 3], the surface point of each pixel; without meaning where depth_z is 0, but finite."""
    confidence: Tensor | None = None
    """[B, T, H, W], higher is surer."""
    scene_flow_from_ref: Tensor | None = None
    """[B, T, H, W, 3], entry i on the pixels of view 0: X(p, t_i) - X(p, t_0) in world coordinates."""
    static_mask: Tensor | None = None
    """[B, T, H, W] bool, True = static, on each view's own pixels."""

    def __post_init__(self) -> None:
        if self.depth_z.ndim != 4:
            raise ValueError(
                f"depth_z has shape {list(self.depth_z.shape)}, but [B, T, H, W] was expected; "
                "add a batch dimension with depth_z[None] if it is missing"
            )
        b, t, h, w = self.depth_z.shape
        expected: dict[str, tuple[tuple[int, ...], str]] = {
            "camera_to_world": ((b, t, 4, 4), "[B, T, 4, 4]"),
            "intrinsics": ((b, t, 3, 3), "[B, T, 3, 3]"),
            "depth_z": ((b, t, h, w), "[B, T, H, W]"),
            "world_points": ((b, t, h, w, 3), "[B, T, H, W, 3]"),
            "confidence": ((b, t, h, w), "[B, T, H, W]"),
            "scene_flow_from_ref": ((b, t, h, w, 3), "[B, T, H, W, 3]"),
            "static_mask": ((b, t, h, w), "[B, T, H, W]"),
        }
        for name, tensor in self.as_dict().items():
            shape, meaning = expected[name]
            require_shape(name, tensor, shape, meaning)
            dtype = torch.bool if name == "static_mask" else self.depth_z.dtype
            if tensor.dtype != dtype:
                raise ValueError(f"{name} has dtype {tensor.dtype}, but {dtype} was expected")
            if tensor.device != self.depth_z.device:
                raise ValueError(f"{name} is on {tensor.device}, but depth_z is on {self.depth_z.device}")
        if not self.depth_z.is_floating_point():
            raise ValueError(f"depth_z has dtype {self.depth_z.dtype}, but a floating point tensor is needed")
        self._check_last_row()

    def _check_last_row(self) -> None:
        row = self.camera_to_world[..., 3, :].detach()
        wanted = row.new_tensor([0.0, 0.0, 0.0, 1.0])
        wrong = ((row - wanted).abs() > 1e-5) & row.isfinite()
        if bool(wrong.any()):
            b, t = wrong.any(dim=-1).nonzero()[0].tolist()
            raise ValueError(
                f"camera_to_world[{b}, {t}] has last row {row[b, t].tolist()}, but [0, 0, 0, 1] was "
                "expected: a camera-to-world matrix that multiplies column vectors"
            )

    @property
    def batch_size(self) -> int:
        """B."""
        return self.depth_z.shape[0]

    @property
    def num_views(self) -> int:
        """T."""
        return self.depth_z.shape[1]

    @property
    def height(self) -> int:
        """H, in pixels."""
        return self.depth_z.shape[2]

    @property
    def width(self) -> int:
        """W, in pixels."""
        return self.depth_z.shape[3]

    @property
    def device(self) -> torch.device:
        """The one device of all tensors."""
        return self.depth_z.device

    @property
    def dtype(self) -> torch.dtype:
        """The one dtype of all tensors but `static_mask`."""
        return self.depth_z.dtype

    def as_dict(self) -> dict[str, Tensor]:
        """The tensors that are present, by field name (for safetensors)."""
        present = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: tensor for name, tensor in present.items() if tensor is not None}

    @classmethod
    def from_dict(cls, tensors: Mapping[str, Tensor]) -> "SceneGeometry":
        """The inverse of `as_dict`.

        Raises:
            ValueError: if a name is unknown or a required one is missing.
        """
        names = [field.name for field in fields(cls)]
        unknown = sorted(set(tensors) - set(names))
        missing = [name for name in names[:4] if name not in tensors]
        if unknown or missing:
            raise ValueError(
                f"tensors has unknown names {unknown} and lacks {missing}; expected {names[:4]} "
                f"and optionally {names[4:]}"
            )
        return cls(**tensors)

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> "SceneGeometry":
        """A copy on another device or in another floating dtype; `static_mask` stays bool."""
        return SceneGeometry(
            **{
                name: tensor.to(device=device, dtype=tensor.dtype if name == "static_mask" else dtype)
                for name, tensor in self.as_dict().items()
            }
        )

    def detach(self) -> "SceneGeometry":
        """The same values without gradient history."""
        return SceneGeometry(**{name: tensor.detach() for name, tensor in self.as_dict().items()})

    def select(self, frames: FrameIndex) -> "SceneGeometry":
        """A subset of the views, in the given order.

        Raises:
            ValueError: if scene flow is present and view 0, to which it is anchored, does not stay first.
        """
        order = torch.arange(self.num_views)
        chosen = order[frames] if isinstance(frames, slice) else order[torch.as_tensor(frames, device="cpu")]
        if chosen.ndim != 1 or not len(chosen):
            raise ValueError(f"frames is {frames}, but a non-empty list of view numbers was expected")
        if self.scene_flow_from_ref is not None and int(chosen[0]) != 0:
            raise ValueError(
                f"frames starts with view {int(chosen[0])}, but scene flow is anchored to view 0; keep "
                "view 0 first, or drop the flow with dataclasses.replace(scene, scene_flow_from_ref=None)"
            )
        index = chosen.to(self.device)
        return SceneGeometry(
            **{name: tensor.index_select(1, index) for name, tensor in self.as_dict().items()}
        )

    def take(self, index: BatchIndex) -> "SceneGeometry":
        """A subset of the batch; a single number keeps a batch dimension of 1."""
        if isinstance(index, int):
            index = [index]
        elif isinstance(index, Tensor) and index.ndim == 0:
            index = index[None]
        return SceneGeometry(**{name: tensor[index] for name, tensor in self.as_dict().items()})

    def with_static_mask(self, static_mask: Tensor | None) -> "SceneGeometry":
        """The same scene with another static mask [B, T, H, W] bool, or with none."""
        return replace(self, static_mask=static_mask)

    @staticmethod
    def concatenate(scenes: Sequence["SceneGeometry"]) -> "SceneGeometry":
        """One scene whose batch is the scenes' batches one after the other.

        Raises:
            ValueError: if the list is empty or the scenes do not have the same fields.
        """
        if not scenes:
            raise ValueError("scenes is empty, but at least one SceneGeometry was expected")
        parts = [scene.as_dict() for scene in scenes]
        for number, part in enumerate(parts):
            if part.keys() != parts[0].keys():
                differing = sorted(part.keys() ^ parts[0].keys())
                raise ValueError(
                    f"scenes[{number}] and scenes[0] differ in {differing}: a field must be present in all "
                    "scenes or in none"
                )
        return SceneGeometry(**{name: torch.cat([part[name] for part in parts]) for name in parts[0]})
