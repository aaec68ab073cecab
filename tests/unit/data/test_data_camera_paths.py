import json

import pytest
import torch

from vggrpo.config import ConfigError, CorruptFileError
from vggrpo.data import read_camera_path
from vggrpo.geometry import dolly, orbit
from vggrpo.io import save_tensors


def test_named_paths_and_their_amount():
    torch.testing.assert_close(read_camera_path("orbit", 30.0, 5), orbit(5, 30.0))
    with pytest.raises(ConfigError, match="the camera path dolly needs an amount"):
        read_camera_path("dolly", None, 5)


@pytest.mark.parametrize("name", ["list.json", "named.json", "path.safetensors", "batch.safetensors"])
def test_files_are_resampled_to_the_views(tmp_path, name):
    path, file = dolly(9, 2.0), tmp_path / name
    if name == "list.json":
        file.write_text(json.dumps(path.tolist()))
    elif name == "named.json":
        file.write_text(json.dumps({"camera_to_world": path.tolist()}))
    else:
        save_tensors(file, {"camera_to_world": path[None] if name.startswith("batch") else path})
    torch.testing.assert_close(read_camera_path(str(file), None, 5), dolly(5, 2.0))


def test_what_is_no_path_is_named(tmp_path):
    file = tmp_path / "path.json"

    def read(content):
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        return read_camera_path(str(file), None, 5)

    with pytest.raises(ConfigError, match="there is no camera path"):
        read_camera_path(str(tmp_path / "none.json"), None, 5)
    with pytest.raises(CorruptFileError, match="not valid JSON"):
        read("{")
    for content in ({"poses": []}, [[1.0, 2.0], [3.0]], "3"):
        with pytest.raises(ConfigError, match=r"path\.json holds"):
            read(content)
    with pytest.raises(ConfigError, match=r"two cameras or more"):
        read(torch.eye(4)[None].tolist())
    stretched, mirrored, transposed = (dolly(3, 1.0) for _ in range(3))
    stretched[:, 0, 0] = 1.1
    mirrored[:, 0, 0] = -1.0
    for matrices in (stretched, mirrored, transposed.mT):
        with pytest.raises(ConfigError, match="no rigid transforms"):
            read(matrices.tolist())
    save_tensors(tmp_path / "other.safetensors", {"pose": torch.eye(4)})
    with pytest.raises(ConfigError, match="holds no camera_to_world, but pose"):
        read_camera_path(str(tmp_path / "other.safetensors"), None, 5)
