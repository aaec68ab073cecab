from pathlib import Path

from vggrpo.config import TrainSettings, load_recipe
from vggrpo.io.runs import RunFolder
from vggrpo.lgm import LatentGeometryModel


def settings(output: Path, lgm_path: str) -> TrainSettings:
    return load_recipe("micro/train", TrainSettings, {"lgm_path": lgm_path, "output": output})


def test_a_name_becomes_the_packaged_folder_and_is_written_as_the_name(tmp_path: Path) -> None:
    named = settings(tmp_path / "run", "micro")
    assert (named.lgm_path / "connector.safetensors").is_file()
    RunFolder.start(named.output, named, resume=False)
    assert "lgm_path: micro\n" in (named.output / "config.yaml").read_text()
    again = named.model_copy(update={"resume": True})
    RunFolder.start(named.output, again, resume=True)


def test_other_paths_are_left_alone(tmp_path: Path) -> None:
    plain = settings(tmp_path / "run", "runs/lgm/model")
    assert plain.lgm_path == Path("runs/lgm/model")
    assert plain.model_dump(mode="json")["lgm_path"] == "runs/lgm/model"


def test_the_packaged_model_opens_by_its_name() -> None:
    assert LatentGeometryModel.from_pretrained("micro").video_model == "micro"
