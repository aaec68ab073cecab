"""Trackers: what reaches them, and that a run does not care whether they work."""

import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from vggrpo.config import ConfigError
from vggrpo.config.base import Settings
from vggrpo.io import Histogram, RunFolder, write_video
from vggrpo.io.trackers import Tracked, Tracker, Trackers, require_trackers

SPREAD = Histogram((-1.0, 0.0, 2.0), (3.0, 1.0))


class Recording(Tracker):
    """Keeps what it is told; raises `fault` while it has one."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.fault = fault
        self.told: list[object] = []

    def metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        self._tell((step, dict(metrics)))

    def histograms(self, step: int, histograms: Mapping[str, Histogram]) -> None:
        self._tell((step, dict(histograms)))

    def video(self, step: int, name: str, path: Path) -> None:
        self._tell((step, name))

    def close(self) -> None:
        self._tell("closed")

    def _tell(self, what: object) -> None:
        if self.fault is not None:
            raise self.fault
        self.told.append(what)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", Settings())


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    frames = np.random.default_rng(0).integers(0, 255, (17, 48, 64, 3), dtype=np.uint8)
    write_video(tmp_path / "clip.mp4", frames, 16.0)
    return tmp_path / "clip.mp4"


def test_what_a_run_logs_reaches_its_trackers_without_what_is_not_finite(run: RunFolder, clip: Path) -> None:
    tracker = Recording()
    run.trackers = Trackers({"one": lambda: tracker})
    run.log(3, {"policy/kl": 0.5, "reward/x/mean": float("nan"), "other": None})
    run.log_histograms(3, {"policy/ratio_histogram": SPREAD})
    run.trackers.video(3, "samples/p", clip)
    run.trackers.close()
    assert tracker.told == [
        (3, {"policy/kl": 0.5}),
        (3, {"policy/ratio_histogram": SPREAD}),
        (3, "samples/p"),
        "closed",
    ]
    assert run.trackers.missed == {}


def test_a_tracker_that_is_down_for_a_while_costs_one_warning_and_is_counted(
    run: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    sick, well = Recording(), Recording()
    run.trackers = Trackers({"sick": lambda: sick, "well": lambda: well})
    for step in range(6):
        sick.fault = ConnectionError("no route to host") if 2 <= step < 5 else None
        run.log(step, {"x": step})
    run.trackers.close()
    assert run.trackers.missed == {"sick": 3}
    assert [entry[0] for entry in sick.told[:-1]] == [0, 1, 5]
    assert [entry[0] for entry in well.told[:-1]] == list(range(6))
    assert [record["step"] for record in run.read_metrics()] == list(range(6))
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 2
    assert "sick fails (ConnectionError: no route to host)" in warnings[0]
    assert "sick has missed 3 records" in warnings[1]


def test_a_tracker_that_cannot_be_opened_misses_everything(caplog: pytest.LogCaptureFixture) -> None:
    def opener() -> Tracker:
        raise TimeoutError("60 s")

    trackers = Trackers({"far": opener})
    trackers.metrics(1, {"x": 1.0})
    trackers.metrics(2, {"x": 1.0})
    assert trackers.missed == {"far": 2}
    assert len(caplog.records) == 1


def test_histograms_are_read_back_and_go_with_the_records_of_a_resumed_run(run: RunFolder) -> None:
    for step in (1, 2, 3):
        run.log_histograms(step, {"policy/ratio_histogram": SPREAD})
    run.truncate_metrics(2)
    assert run.read_histograms() == [
        (1, {"policy/ratio_histogram": SPREAD}),
        (2, {"policy/ratio_histogram": SPREAD}),
    ]
    with pytest.raises(ValueError, match="2 counts has 2 edges"):
        Histogram((0.0, 1.0), (1.0, 2.0))


def test_a_missing_package_is_named_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wandb").mkdir()  # as wandb leaves in the working directory: no package
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    for name in ("wandb", "tensorboard"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(
        ConfigError, match=r'wandb, which is not installed; run pip install "vggrpo\[wandb\]"'
    ):
        require_trackers(["wandb"])
    with pytest.raises(ConfigError, match="run pip install tensorboard"):
        require_trackers(["tensorboard"])


def test_tensorboard_reads_its_files_and_a_resumed_run_replaces_what_was_lost(
    tmp_path: Path, clip: Path
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first = Trackers.open(["tensorboard"], Tracked(tmp_path))
    for step in range(1, 5):
        first.metrics(step, {"policy/kl": 0.1 * step})
    first.histograms(1, {"policy/ratio_histogram": SPREAD})
    first.video(1, "samples/p", clip)
    first.close()
    another_second()
    again = Trackers.open(["tensorboard"], Tracked(tmp_path, done=2))
    again.metrics(3, {"policy/kl": 7.0})
    again.close()
    assert again.missed == first.missed == {}

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    kl = [(event.step, round(event.value, 3)) for event in events.Scalars("policy/kl")]
    assert kl == [(1, 0.1), (2, 0.2), (3, 7.0)]
    (histogram,) = events.Histograms("policy/ratio_histogram")
    assert histogram.histogram_value.bucket_limit == [0.0, 2.0]
    assert histogram.histogram_value.bucket == [3.0, 1.0]
    (image,) = events.Images("samples/p")
    assert image.encoded_image_string.startswith(b"GIF8")
    assert (image.width, image.height) == (64, 48)


def another_second() -> None:
    """TensorBoard puts the files of a folder in order by the second in which they were begun."""
    time.sleep(1.1)


def test_tensorboard_forgets_a_first_attempt_that_left_no_step_behind(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for values in ((1.0, 2.0, 3.0), (4.0, 5.0)):
        attempt = Trackers.open(["tensorboard"], Tracked(tmp_path))
        for step, value in enumerate(values, start=1):
            attempt.metrics(step, {"policy/kl": value})
        attempt.close()
        another_second()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("policy/kl")] == [(1, 4.0), (2, 5.0)]


def test_wandb_offline(tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    trackers = Trackers.open(["wandb"], Tracked(tmp_path, identity="abcd1234", settings={"lr": 0.1}))
    trackers.metrics(1, {"policy/kl": 0.25})
    trackers.histograms(1, {"policy/ratio_histogram": SPREAD})
    trackers.video(1, "samples/p", clip)
    trackers.metrics(1, {"evaluation/flow_jerk": 0.5})
    trackers.close()
    assert trackers.missed == {}
    (file,) = (tmp_path / "wandb").glob("offline-run-*-abcd1234/run-abcd1234.wandb")
    content = file.read_bytes()
    for name in (b"policy/kl", b"policy/ratio_histogram", b"evaluation/flow_jerk"):
        assert name in content


def test_trackio_local(tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio")
    run = Tracked(tmp_path / "run", identity="abcd1234", settings={"lr": 0.1})
    trackers = Trackers.open(["trackio"], run)
    trackers.metrics(1, {"policy/kl": 0.25})
    trackers.histograms(1, {"policy/ratio_histogram": SPREAD})
    trackers.video(1, "samples/p", clip)
    trackers.close()
    assert trackers.missed == {}
    (database,) = (tmp_path / "trackio").glob("vggrpo*.db")
    assert database.stat().st_size > 0
