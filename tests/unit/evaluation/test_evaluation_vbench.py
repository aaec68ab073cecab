"""VBench's environment, the program in it, and what becomes of its answers."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from stand_in_vbench import make_environment, make_installer, write_script
from vggrpo.config import ConfigError
from vggrpo.evaluation.catalogue import describe
from vggrpo.evaluation.vbench import (
    DIMENSIONS,
    VBenchMetric,
    VBenchState,
    metric_name,
    open_vbench,
    setup_vbench,
    vbench_state,
)
from vggrpo.evaluation.vbench.environment import find_python
from vggrpo.evaluation.vbench.process import VBenchError, ask
from vggrpo.evaluation.videos import Clip, Measured

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_environment(tmp_path_factory.mktemp("vbench") / "environment")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VGGRPO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "vbench"


def make_clips(folder: Path, *names: str) -> list[Clip]:
    """Files of 100, 200, ... bytes: the stand-in's values follow from the sizes."""
    for number, name in enumerate(names, start=1):
        (folder / name).write_bytes(bytes(100 * number))
    return [Clip(name, folder / name) for name in names]


def broken_installer(path: Path) -> Path:
    """An interpreter of the right version that can make no environment."""
    return write_script(path, 'case "$1" in -I) echo 3 11;; *) echo "No space left" >&2; exit 1;; esac')


def measure(python: Path, dimension: str, clips: list[Clip]) -> dict[str, Measured]:
    found = VBenchMetric(dimension, python, "2026", CPU).compute(clips)
    return {clip.name: measured for clip, measured in found}


def test_values_come_clip_by_clip(python: Path, tmp_path: Path) -> None:
    clips = make_clips(tmp_path, "a.mp4", "b c.mp4", "d.mp4")
    found = measure(python, "temporal_flickering", clips)
    assert {name: measured.values for name, measured in found.items()} == {
        "a.mp4": {"vbench_temporal_flickering": 0.1},
        "b c.mp4": {"vbench_temporal_flickering": 0.2},
        "d.mp4": {"vbench_temporal_flickering": 0.3},
    }
    # VBench rates a clip's pictures from 0 to 100 and reports the mean over 100.
    assert measure(python, "imaging_quality", clips)["d.mp4"].values == {"vbench_imaging_quality": 3.0}
    degrees = measure(python, "dynamic_degree", clips)
    assert [degrees[clip.name].values["vbench_dynamic_degree"] for clip in clips] == [0.0, 1.0, 1.0]


def test_a_clip_that_vbench_cannot_read_takes_no_other_with_it(python: Path, tmp_path: Path) -> None:
    clips = make_clips(tmp_path, "a.mp4", "bad.mp4", "c.mp4", "d.webm", "none.mp4")
    found = measure(python, "temporal_flickering", clips)
    assert found["a.mp4"].values == {"vbench_temporal_flickering": 0.1}
    assert found["c.mp4"].values == {"vbench_temporal_flickering": 0.3}
    for name in ("bad.mp4", "d.webm", "none.mp4"):
        assert np.isnan(found[name].values["vbench_temporal_flickering"])
    assert found["bad.mp4"].notes == ("VBench failed (RuntimeError: cannot read bad.mp4)",)
    assert found["none.mp4"].notes == ("VBench failed (it gives no finite value)",)
    assert "reads .mp4 files" in found["d.webm"].notes[0]


def test_a_crash_leaves_reasons_instead_of_values(python: Path, tmp_path: Path) -> None:
    names = [f"{number:02}.mp4" for number in range(32)] + ["crash.mp4", "z.mp4"]
    found = measure(python, "temporal_flickering", make_clips(tmp_path, *names))
    assert len(found) == 34
    assert found["31.mp4"].values == {"vbench_temporal_flickering": 3.2}
    for name in ("crash.mp4", "z.mp4"):
        assert np.isnan(found[name].values["vbench_temporal_flickering"])
        assert found[name].notes == ("VBench failed (Killed by the system)",)


def test_a_dimension_that_fails_on_everything_is_given_up(python: Path, tmp_path: Path) -> None:
    videos = [clip.path for clip in make_clips(tmp_path, *(f"{number}.mp4" for number in range(40)))]
    with pytest.raises(VBenchError, match="ZeroDivisionError: division by zero"):
        list(ask(python, "motion_smoothness", "cpu", videos))


def test_weights_that_cannot_be_fetched(python: Path) -> None:
    with pytest.raises(VBenchError, match=r"CalledProcessError.*dino\.pth"):
        list(ask(python, "subject_consistency", "cpu", None))
    with pytest.raises(VBenchError, match="cannot be started"):
        list(ask(python.with_name("nothing"), "subject_consistency", "cpu", None))


def test_a_dimension_is_tried_on_a_clip_that_is_drawn(python: Path) -> None:
    (answer,) = ask(python, "dynamic_degree", "cpu", None)
    assert answer["video"].endswith("probe.mp4")
    assert answer["value"] == 1.0, "the drawn clip is a file of some size"
    assert not Path(answer["video"]).exists()


def test_setup_makes_the_environment_and_tries_every_dimension(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = vbench_state()
    assert before.problem is not None
    assert "vggrpo evaluate --setup vbench" in str(before.reason("dynamic_degree"))
    state = setup_vbench(make_installer(tmp_path))
    said = capsys.readouterr().out
    assert "temporal_flickering: works" in said
    assert state == vbench_state()
    assert state.problem is None
    assert set(state.unavailable) == {"subject_consistency", "motion_smoothness"}
    assert "vbench==0.1.5" not in (log := (cache / "setup.log").read_text())
    assert "requirements.txt" in log
    metrics, not_run = open_vbench(["temporal_flickering", "subject_consistency"], CPU)
    assert [metric.metrics for metric in metrics] == [("vbench_temporal_flickering",)]
    assert not_run[0].metrics == ("vbench_subject_consistency",)
    assert "dino.pth" in not_run[0].reason
    (clip,) = make_clips(tmp_path, "a.mp4")
    assert [measured.values for _, measured in metrics[0].compute([clip])] == [
        {"vbench_temporal_flickering": 0.1}
    ]


def test_setup_again_keeps_the_environment(cache: Path, tmp_path: Path) -> None:
    installer = make_installer(tmp_path)
    first = setup_vbench(installer, report=lambda _: None)
    (cache / "kept").touch()
    said: list[str] = []
    again = setup_vbench(installer, report=said.append)
    assert f"remove {cache} first" in said[0]
    assert (cache / "kept").exists()
    assert again.created == first.created
    state = json.loads((cache / "environment.json").read_text())
    (cache / "environment.json").write_text(json.dumps(state | {"requirements": "other"}))
    assert "another version" in str(vbench_state().problem)
    for text in ("{", "{}", "[]"):
        (cache / "environment.json").write_text(text)
        assert "is damaged" in str(vbench_state().problem)
    (cache / "environment.json").write_text(json.dumps(state))
    (cache / "bin" / "python").unlink()
    assert "lost its Python" in str(vbench_state().problem)
    with pytest.raises(VBenchError):
        setup_vbench(broken_installer(tmp_path / "broken"), report=lambda _: None)
    assert not (cache / "kept").exists(), "an environment that cannot be used is made afresh"


def test_an_installation_that_fails_names_its_log(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(VBenchError, match=r"No space left.*setup\.log"):
        setup_vbench(broken_installer(tmp_path / "python"), report=lambda _: None)
    assert vbench_state().problem is not None


def test_interpreters_of_other_versions_are_refused(tmp_path: Path) -> None:
    assert find_python(Path(sys.executable)) == Path(sys.executable)
    newer = write_script(tmp_path / "python", "echo 3 13")
    with pytest.raises(ConfigError, match=r"no Python 3\.10 or 3\.11"):
        find_python(newer)
    with pytest.raises(ConfigError, match=r"no Python 3\.10 or 3\.11"):
        find_python(tmp_path / "nothing")


def test_without_an_environment_every_row_says_why() -> None:
    state = VBenchState(Path("nowhere"), "there is none")
    metrics, not_run = open_vbench(DIMENSIONS, CPU, state)
    assert metrics == []
    assert {name for entry in not_run for name in entry.metrics} == set(map(metric_name, DIMENSIONS))
    assert {entry.reason for entry in not_run} == {"there is none; `vggrpo evaluate --setup vbench` makes it"}


def test_another_environment_is_another_metric() -> None:
    first, second = (VBenchMetric("dynamic_degree", Path("python"), created, CPU) for created in ("1", "2"))
    assert first.fingerprint != second.fingerprint


def test_every_dimension_is_described() -> None:
    assert all(describe(metric_name(dimension)).label.startswith("VBench: ") for dimension in DIMENSIONS)
