from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from vggrpo.config import CorruptFileError
from vggrpo.io import load_metadata, load_tensors, save_tensors


def test_round_trip_of_values_types_and_metadata(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "a.safetensors"
    tensors = {
        "float": torch.randn(2, 3),
        "half": torch.randn(5).to(torch.bfloat16),
        "mask": torch.tensor([[True, False]]),
        "index": torch.arange(4),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "empty": torch.zeros(0, 3),
    }
    metadata = {"step": 3, "names": ["a", "ä"], "nested": {"x": 0.1, "none": None}}
    save_tensors(path, tensors, metadata)
    loaded = load_tensors(path)
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)
    assert load_metadata(path) == metadata
    assert load_file(path).keys() == tensors.keys()


def test_views_shared_memory_and_gradients_are_saved(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    parameter = torch.nn.Parameter(torch.ones(2))
    tensors = {"transposed": base.T, "row": base[1], "base": base, "parameter": parameter}
    save_tensors(tmp_path / "a.safetensors", tensors)
    loaded = load_tensors(tmp_path / "a.safetensors")
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())
    assert load_metadata(tmp_path / "a.safetensors") == {}


def test_same_tensors_make_the_same_bytes(tmp_path: Path) -> None:
    tensors = {"b": torch.ones(3), "a": torch.zeros(2)}
    save_tensors(tmp_path / "1", tensors, {"x": 1})
    save_tensors(tmp_path / "2", tensors, {"x": 1})
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_metadata_of_other_programs_are_strings(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "a", metadata={"format": "pt"})
    assert load_metadata(tmp_path / "a") == {"format": "pt"}


def test_only_tensors_and_json(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="b is a list; expected a tensor"):
        save_tensors(tmp_path / "a", {"b": [1.0]})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="not JSON serializable"):
        save_tensors(tmp_path / "a", {}, {"x": object()})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("keep", [0, 5, 40, -1])
def test_damaged_file(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "a.safetensors"
    save_tensors(path, {"x": torch.randn(64)})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CorruptFileError, match=r"a\.safetensors is damaged or not a safetensors file"):
        load_tensors(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no tensor file"):
        load_tensors(tmp_path / "a")
