import re
from pathlib import Path

import pytest

from vggrpo.config import ConfigError, canonical_name, model_names, resolve_model
from vggrpo.config.models import ModelTable, model_table
from vggrpo.config.validation import validate


@pytest.mark.parametrize("kind", ["video", "geometry"])
def test_every_packaged_name_has_one_source(kind: str) -> None:
    for name in model_names(kind):  # type: ignore[arg-type]
        if name == "micro":
            continue
        source = resolve_model(name, kind)  # type: ignore[arg-type]
        assert (source.folder is None) != (source.hub is None)
        assert source.kind == kind
        assert source.network in ("wan", "any4d", "vggt")


def test_the_promised_names_exist() -> None:
    assert {"micro", "wan2.1-1.3b", "wan2.1-1b", "wan2.1-14b", "wan2.2-5b"} <= set(model_names("video"))
    assert {"micro", "any4d", "vggt"} <= set(model_names("geometry"))
    assert model_names("lgm") == ["micro"]


def test_no_name_is_used_twice() -> None:
    for kind in ("video", "geometry"):
        names = model_names(kind)
        assert len(names) == len(set(names))


def test_alias_and_case_lead_to_the_canonical_name() -> None:
    assert resolve_model("Wan2.1-1B", "video") == resolve_model("wan2.1-1.3b", "video")
    assert canonical_name("wan2.1-1b", "video") == "wan2.1-1.3b"
    assert canonical_name("any4d", "video") is None


def test_folder_and_repository(tmp_path: Path) -> None:
    assert resolve_model(tmp_path, "video").folder == tmp_path
    assert resolve_model(str(tmp_path), "geometry").folder == tmp_path
    source = resolve_model("owner/my_model-1.0", "video")
    assert (source.hub, source.folder, source.network) == ("owner/my_model-1.0", None, None)
    assert (source.revision, source.repository) == (None, "owner/my_model-1.0")


@pytest.mark.parametrize("revision", ["main", "v1.0", "refs/pr/3", "0123456789abcdef"])
def test_a_revision_of_a_repository(revision: str) -> None:
    source = resolve_model(f"owner/name@{revision}", "geometry")
    assert (source.hub, source.revision) == ("owner/name", revision)
    assert source.repository == f"owner/name@{revision}"


def test_a_known_repository_by_its_id_has_its_file_and_network() -> None:
    source = resolve_model("airlabshare/any4d-checkpoint@v2", "geometry")
    assert (source.file, source.network) == ("any4d_4v_combined.pth", "any4d")
    assert source.revision == "v2"


def test_a_weight_file_is_a_geometry_model_only(tmp_path: Path) -> None:
    file = tmp_path / "model.pt"
    file.touch()
    source = resolve_model(file, "geometry")
    assert (source.folder, source.file, source.hub, source.network) == (tmp_path, "model.pt", None, None)
    with pytest.raises(ConfigError, match="neither a video model, nor a folder, nor a repository"):
        resolve_model(file, "video")


@pytest.mark.parametrize(
    ("name", "kind", "hint"),
    [
        ("wan2.2-5", "video", "did you mean wan2.2-5b?"),
        ("anyd4", "geometry", "did you mean any4d?"),
        ("zzzzzz", "geometry", "valid names are micro, any4d, vggt"),
        ("./no/such/folder", "video", "neither a video model, nor a folder, nor a repository"),
    ],
)
def test_unknown_names_get_the_nearest(name: str, kind: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(hint)):
        resolve_model(name, kind)  # type: ignore[arg-type]


def test_table_entries_need_exactly_one_source() -> None:
    values = model_table().model_dump()
    values["video"]["micro"]["hub"] = "owner/name"
    with pytest.raises(ConfigError, match=r"video\.micro: a model has either package or hub"):
        validate(ModelTable, values, "a test")
