"""Saved scenes come back bit for bit, and damaged or foreign files are refused by a sentence."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from exact_scenes import exact_scene

from vggrpo.config import ConfigError, CorruptFileError
from vggrpo.io import save_tensors
from vggrpo.viewer import Scene4D, load_scene, save_scene


@pytest.fixture(scope="module")
def scene() -> Scene4D:
    return exact_scene()


def assert_same(one: Scene4D, other: Scene4D) -> None:
    """Bit for bit; NaN equals NaN."""
    assert one.geometry.as_dict().keys() == other.geometry.as_dict().keys()
    for name, tensor in one.geometry.as_dict().items():
        again = other.geometry.as_dict()[name]
        assert tensor.dtype == again.dtype
        assert torch.equal(tensor.nan_to_num(1e9), again.nan_to_num(1e9)), name
    assert torch.equal(one.colours, other.colours)
    for name in ("fps", "frame_indices", "label", "prompt", "source"):
        assert getattr(one, name) == getattr(other, name), name
    assert repr(one.rewards) == repr(other.rewards)


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_a_scene_comes_back_as_it_was(scene: Scene4D, tmp_path: Path, suffix: str) -> None:
    save_scene(tmp_path / f"scene{suffix}", scene)
    assert_same(scene, load_scene(tmp_path / f"scene{suffix}"))


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_bare_scenes_of_other_precision_and_broken_numbers(
    scene: Scene4D, tmp_path: Path, suffix: str
) -> None:
    geometry = scene.geometry.to(dtype=torch.float64)
    depth_z = geometry.depth_z.clone()
    depth_z[0, 1, 2, 3] = torch.nan
    bare = replace(geometry, depth_z=depth_z, confidence=None, scene_flow_from_ref=None, static_mask=None)
    bare = replace(scene, geometry=bare, prompt=None, rewards={}, source={})
    save_scene(tmp_path / f"scene{suffix}", bare)
    assert_same(bare, load_scene(tmp_path / f"scene{suffix}"))


def test_numpy_alone_reads_the_npz(scene: Scene4D, tmp_path: Path) -> None:
    save_scene(tmp_path / "scene.npz", scene)
    with np.load(tmp_path / "scene.npz", allow_pickle=False) as file:
        np.testing.assert_array_equal(file["depth_z"], scene.geometry.depth_z[0].numpy())
        assert file["scene_flow_from_ref"].shape == (*scene.colours.shape[:3], 3)
        assert json.loads(str(file["metadata"]))["frame_indices"] == [0, 4, 8]


def test_bfloat16_needs_safetensors(scene: Scene4D, tmp_path: Path) -> None:
    half = replace(scene, geometry=scene.geometry.to(dtype=torch.bfloat16))
    save_scene(tmp_path / "scene.safetensors", half)
    assert_same(half, load_scene(tmp_path / "scene.safetensors"))
    with pytest.raises(ValueError, match=r"bfloat16, which numpy does not have; save it as \.safetensors"):
        save_scene(tmp_path / "scene.npz", half)
    assert not (tmp_path / "scene.npz").exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_a_file_of_another_version_is_refused(
    scene: Scene4D, tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vggrpo.viewer.scene_file.FORMAT_VERSION", 99)
    save_scene(tmp_path / f"scene{suffix}", scene)
    monkeypatch.undo()
    with pytest.raises(CorruptFileError, match="format version 99, but this version of vggrpo reads 1"):
        load_scene(tmp_path / f"scene{suffix}")


def test_files_that_are_no_scene(scene: Scene4D, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"missing\.npz"):
        load_scene(tmp_path / "missing.npz")
    with pytest.raises(ConfigError, match=r"should end in \.safetensors or \.npz"):
        load_scene(tmp_path / "scene.ply")
    save_tensors(tmp_path / "latents.safetensors", {"latents": torch.zeros(4, 2, 2, 2)}, {"fps": 8})
    with pytest.raises(CorruptFileError, match="holds no 4D scene; `vggrpo reconstruct` writes one"):
        load_scene(tmp_path / "latents.safetensors")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(CorruptFileError, match="holds no 4D scene"):
        load_scene(tmp_path / "other.npz")


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_a_truncated_file_is_damaged(scene: Scene4D, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"scene{suffix}"
    save_scene(path, scene)
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(CorruptFileError, match=path.name):
        load_scene(path)


def test_a_scene_without_one_of_its_parts_is_damaged(scene: Scene4D, tmp_path: Path) -> None:
    save_scene(tmp_path / "scene.npz", scene)
    with np.load(tmp_path / "scene.npz") as file:
        kept = {name: file[name] for name in file.files if name != "depth_z"}
    np.savez(tmp_path / "scene.npz", **kept)
    with pytest.raises(CorruptFileError, match=r"is damaged: .*depth_z"):
        load_scene(tmp_path / "scene.npz")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fps": 0.0}, "fps is 0.0"),
        ({"frame_indices": (0, 4)}, "3 ascending frame numbers"),
        ({"frame_indices": (0, 4, 4)}, "3 ascending frame numbers"),
        ({"colours": torch.zeros(3, 36, 48, 3)}, "colours are torch.float32"),
        ({"colours": torch.zeros(3, 48, 36, 3, dtype=torch.uint8)}, r"uint8 \[3, 36, 48, 3\] was expected"),
    ],
)
def test_a_scene_that_does_not_fit_together_is_refused(
    scene: Scene4D, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        replace(scene, **changes)


def test_a_batch_is_no_scene(scene: Scene4D) -> None:
    both = scene.geometry.concatenate([scene.geometry, scene.geometry])
    with pytest.raises(ValueError, match=r"2 videos, but a scene is of one; use geometry\.take"):
        replace(scene, geometry=both)


def test_times_are_those_of_the_video(scene: Scene4D) -> None:
    assert scene.times == [0.0, 0.5, 1.0]
