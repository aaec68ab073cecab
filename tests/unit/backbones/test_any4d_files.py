"""Folders, upstream checkpoints, and what is said when they are wrong."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from vggrpo.backbones import load_geometry_backbone
from vggrpo.backbones.any4d import Any4D
from vggrpo.config.errors import ConfigError, CorruptFileError


@pytest.fixture
def folder(any4d: Any4D, tmp_path: Path) -> Path:
    any4d.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def state(upstream) -> dict[str, torch.Tensor]:
    return load_file(upstream.checkpoint)


def rewrite_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def assert_same_weights(model: Any4D, other: Any4D) -> None:
    own, theirs = model.state_dict(), other.state_dict()
    assert own.keys() == theirs.keys()
    assert all(torch.equal(own[key], theirs[key]) for key in own)


def test_a_saved_model_loads_as_it_was(upstream, any4d: Any4D, folder: Path):
    loaded = Any4D.from_pretrained(folder)
    assert loaded.config == any4d.config
    assert_same_weights(loaded, any4d)
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    assert torch.equal(loaded(upstream.frames).depth_z, any4d(upstream.frames).depth_z)


@pytest.mark.parametrize("point", ["E0", "E2", "F"])
def test_a_cut_model_loads_cut(upstream, any4d: Any4D, tmp_path: Path, point: str):
    tokens = any4d.tokens_at(upstream.frames, [point])[point]
    any4d.drop_before(point)
    any4d.save_pretrained(tmp_path)
    loaded = Any4D.from_pretrained(tmp_path)
    assert loaded.dropped_before == point
    assert_same_weights(loaded, any4d)
    expected = any4d.finish_from(point, *tokens, upstream.grid)
    assert torch.equal(loaded.finish_from(point, *tokens, upstream.grid).depth_z, expected.depth_z)


def test_a_folder_loads_by_its_path(upstream, any4d: Any4D, folder: Path):
    loaded = load_geometry_backbone(folder)
    assert isinstance(loaded, Any4D)
    assert_same_weights(loaded, any4d)
    assert load_geometry_backbone(str(folder)).patch_size == any4d.patch_size


def test_a_geometry_model_loads_without_importing_diffusers(folder: Path):
    code = (
        "import sys; from vggrpo.backbones import load_geometry_backbone; "
        f"load_geometry_backbone({str(folder)!r}); "
        "sys.exit(any(name in sys.modules for name in ('diffusers', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_name_is_refused():
    with pytest.raises(ConfigError, match="any4dd is neither a geometry model, nor a folder"):
        load_geometry_backbone("any4dd")


def test_a_folder_of_another_network_is_refused(folder: Path):
    rewrite_config(folder, model_type="dust3r")
    with pytest.raises(ConfigError, match="is of type 'dust3r', for which there is no network here"):
        load_geometry_backbone(folder)


def test_an_empty_folder_is_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"config\.json: .* holds no geometry model"):
        load_geometry_backbone(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"config\.json: .* holds no geometry model"):
        Any4D.from_pretrained(tmp_path)


def test_missing_weights_are_named(folder: Path):
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        Any4D.from_pretrained(folder)


def test_truncated_weights_are_named(folder: Path):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CorruptFileError, match=r"model\.safetensors is damaged"):
        Any4D.from_pretrained(folder)


def test_config_that_is_no_json(folder: Path):
    (folder / "config.json").write_text('{"model_type": "any4d"')
    with pytest.raises(CorruptFileError, match=r"config\.json does not describe an Any4D model"):
        Any4D.from_pretrained(folder)
    with pytest.raises(CorruptFileError, match=r"config\.json is not valid JSON"):
        load_geometry_backbone(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patchsize": 7}, "'patchsize' is not a setting of an Any4D network; did you mean 'patch_size'"),
        ({"encoder_heads": 5}, "encoder_dim is 32, but must be a multiple"),
        ({"model_type": "vggt"}, '"model_type": "any4d"'),
        ({"dropped_before": "E9"}, "dropped_before is 'E9'"),
        ({"encoder_depth": 4}, r"model\.safetensors does not fit the config\.json beside it"),
        ({"dpt_features": 32}, r"model\.safetensors does not fit the config\.json beside it"),
    ],
)
def test_config_that_fits_nothing(folder: Path, changes, message):
    rewrite_config(folder, **changes)
    with pytest.raises(CorruptFileError, match=message):
        Any4D.from_pretrained(folder)


def test_upstreams_pth_file_is_read(upstream, any4d: Any4D, state, tmp_path: Path):
    torch.save({"model": state, "args": argparse.Namespace(lr=1e-4), "epoch": 3}, tmp_path / "any4d.pth")
    assert_same_weights(Any4D.from_upstream(tmp_path / "any4d.pth", upstream.config), any4d)
    torch.save(state, tmp_path / "bare.pth")
    assert_same_weights(Any4D.from_upstream(tmp_path / "bare.pth", upstream.config), any4d)


def test_code_in_a_pth_file_is_not_run(upstream, tmp_path: Path):
    torch.save({"model": Path("anything")}, tmp_path / "any4d.pth")
    with pytest.raises(CorruptFileError, match=r"any4d\.pth cannot be read as a PyTorch checkpoint of plain"):
        Any4D.from_upstream(tmp_path / "any4d.pth", upstream.config)


@pytest.mark.parametrize("content", [{"model": [1, 2]}, [1, 2], {"model": {"a": 1}}])
def test_a_pth_file_without_tensors_is_refused(upstream, tmp_path: Path, content):
    torch.save(content, tmp_path / "any4d.pth")
    with pytest.raises(CorruptFileError, match="holds no state dict of tensors"):
        Any4D.from_upstream(tmp_path / "any4d.pth", upstream.config)


def test_a_missing_or_damaged_checkpoint_is_refused(upstream, tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        Any4D.from_upstream(tmp_path / "any4d.pth", upstream.config)
    (tmp_path / "any4d.pth").write_bytes(b"no checkpoint at all")
    with pytest.raises(CorruptFileError, match="cannot be read"):
        Any4D.from_upstream(tmp_path / "any4d.pth", upstream.config)


def load_changed(upstream, state: dict[str, torch.Tensor], tmp_path: Path) -> Any4D:
    save_file({key: value.clone() for key, value in state.items()}, tmp_path / "changed.safetensors")
    return Any4D.from_upstream(tmp_path / "changed.safetensors", upstream.config)


def test_a_checkpoint_without_its_aliases_and_unused_encoders_loads(upstream, any4d: Any4D, state, tmp_path):
    unwanted = (
        "dense_head.",
        "scene_flow_dense_head.",
        "ray_dirs_encoder.",
        "cam_",
        "depth_",
        "scene_flow_encoder.",
    )
    kept = {key: value for key, value in state.items() if not key.startswith(unwanted) and "_rn." not in key}
    assert len(kept) < len(state)
    assert_same_weights(load_changed(upstream, kept, tmp_path), any4d)


def test_a_checkpoint_with_only_aliases_loads(upstream, any4d: Any4D, state, tmp_path):
    kept = {key: value for key, value in state.items() if "dpt_" not in key}
    assert_same_weights(load_changed(upstream, kept, tmp_path), any4d)


def test_missing_misshapen_and_unknown_tensors_are_all_named(upstream, state, tmp_path):
    del state["pose_head.fc_rot.weight"]
    state["info_sharing.norm.bias"] = torch.zeros(7)
    state["surprise.weight"] = torch.zeros(2)
    with pytest.raises(CorruptFileError) as error:
        load_changed(upstream, state, tmp_path)
    text = str(error.value)
    assert "changed.safetensors is not an Any4D of these dimensions" in text
    assert "pose_head.fc_rot.weight is missing" in text
    assert "info_sharing.norm.bias is [7] where [24] is expected" in text
    assert "surprise.weight is unknown" in text


def test_aliases_that_disagree_are_refused(upstream, state, tmp_path):
    state["dense_head.0.scratch.layer2_rn.weight"] = state["dense_head.0.scratch.layer2_rn.weight"] + 1
    with pytest.raises(
        CorruptFileError, match=r"different tensors for 'dpt_feature_head\.input_process\.1\.1"
    ):
        load_changed(upstream, state, tmp_path)


def test_the_official_dimensions_are_the_default(upstream):
    with pytest.raises(
        CorruptFileError, match=r"encoder\.model\.cls_token is \[1, 1, 32\] where \[1, 1, 1024\]"
    ):
        Any4D.from_upstream(upstream.checkpoint)
