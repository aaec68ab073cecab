import logging
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
import yaml

from vggrpo.config import CorruptFileError, DiskFullError, RunError, Settings, load_recipe
from vggrpo.io import RunFolder, verify_manifest


class Nested(Settings):
    rate: float = 1e-5
    shape: tuple[int, ...] = (1, 2)


class ExampleSettings(Settings):
    output: Path = Path("runs/x")
    resume: bool = False
    steps: int = 10
    nested: Nested = Nested()
    note: str | None = None
    allow_changes: tuple[str, ...] = ()


def write_step(step: int) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "weights.bin").write_bytes(bytes([step]) * 100)

    return write


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", ExampleSettings())


def test_new_run_holds_its_settings_as_a_recipe(run: RunFolder) -> None:
    assert load_recipe(run.path / "config.yaml", ExampleSettings) == ExampleSettings()
    assert run.samples.is_dir()


def test_a_run_is_not_overwritten(run: RunFolder) -> None:
    before = (run.path / "config.yaml").read_bytes()
    with pytest.raises(RunError, match=r"run already holds a run; add --resume to continue it"):
        RunFolder.create(run.path, ExampleSettings(steps=11))
    assert (run.path / "config.yaml").read_bytes() == before


def test_other_content_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(RunError, match="not an empty folder"):
        RunFolder.create(tmp_path, ExampleSettings())
    with pytest.raises(RunError, match="not an empty folder"):
        RunFolder.create(tmp_path / "thesis.txt", ExampleSettings())
    (tmp_path / "empty").mkdir()
    RunFolder.create(tmp_path / "empty", ExampleSettings())


def test_same_settings_resume(run: RunFolder) -> None:
    again = RunFolder.start(run.path, ExampleSettings(resume=True, output=Path("elsewhere")), resume=True)
    assert again.path == run.path


def test_other_settings_are_listed_and_refused(run: RunFolder) -> None:
    other = ExampleSettings(steps=20, nested=Nested(rate=2e-5, shape=(1, 3)), note="x")
    with pytest.raises(RunError, match="made with other settings") as caught:
        RunFolder.open(run.path, other)
    *lines, remedy = str(caught.value).splitlines()[1:]
    assert remedy.endswith("or add --allow-changes steps nested.rate nested.shape note")
    assert lines == [
        "  steps: 10 in the run, 20 now",
        "  nested.rate: 1e-05 in the run, 2e-05 now",
        "  nested.shape: [1, 2] in the run, [1, 3] now",
        "  note: None in the run, x now",
    ]


def test_changes_that_are_allowed_by_name_become_the_runs(
    run: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    changes = {"steps": 20, "nested": Nested(rate=2e-5, shape=(1, 3)), "resume": True}
    with pytest.raises(RunError, match=r"(?s)nested\.shape: .*--allow-changes nested\.shape$") as caught:
        RunFolder.open(run.path, ExampleSettings(**changes, allow_changes=("steps", "nested.rate")))
    assert "steps: " not in str(caught.value)
    with caplog.at_level(logging.WARNING):
        RunFolder.open(run.path, ExampleSettings(**changes, allow_changes=("steps", "nested")))
    assert "goes on with another setting, as allowed: steps: 10 in the run, 20 now" in caplog.text
    stored = load_recipe(run.path / "config.yaml", ExampleSettings)
    assert stored == ExampleSettings(steps=20, nested=Nested(rate=2e-5, shape=(1, 3)))
    RunFolder.open(run.path, stored)


def test_what_measurements_depend_on_cannot_be_allowed_to_change(run: RunFolder) -> None:
    class Measured(ExampleSettings):
        held_on_resume: ClassVar[frozenset[str]] = frozenset({"nested"})

    changes = {"steps": 20, "nested": Nested(rate=2e-5), "resume": True}
    with pytest.raises(RunError, match=r"; nested\.rate cannot change within a run") as caught:
        RunFolder.open(run.path, Measured(**changes, allow_changes=("steps", "nested")))
    assert "steps: " not in str(caught.value)
    Measured.held_on_resume = frozenset()
    RunFolder.open(run.path, Measured(**changes, allow_changes=("steps", "nested")))


def test_a_name_that_is_no_setting_is_refused(run: RunFolder) -> None:
    for name in ("stepz", "nested.rat", "nest"):
        with pytest.raises(RunError, match=f"allow_changes names {name}, which is no setting"):
            RunFolder.open(run.path, ExampleSettings(allow_changes=(name,)))


def test_settings_of_another_version_are_listed(run: RunFolder) -> None:
    class Newer(ExampleSettings):
        added: int = 3
        free_on_resume: ClassVar[frozenset[str]] = frozenset({"output", "resume", "note", "allow_changes"})

    with pytest.raises(RunError, match="added: absent in the run, 3 now"):
        RunFolder.open(run.path, Newer(note="may differ"))


def test_nothing_to_resume(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no run to resume"):
        RunFolder.start(tmp_path / "none", ExampleSettings(), resume=True)


def test_damaged_config(run: RunFolder) -> None:
    (run.path / "config.yaml").write_text("a: [")
    with pytest.raises(CorruptFileError, match=r"config\.yaml is damaged"):
        RunFolder.open(run.path, ExampleSettings())


def test_metrics_survive_a_resume(run: RunFolder) -> None:
    for step in (1, 2, 3):
        run.log(step, {"loss": 1 / step})
    again = RunFolder.open(run.path, ExampleSettings())
    again.truncate_metrics(2)
    again.log(3, {"loss": 9.0})
    assert [record["loss"] for record in again.read_metrics()] == [1.0, 0.5, 9.0]


def test_checkpoints_are_complete_and_carry_the_settings(run: RunFolder) -> None:
    assert run.latest_checkpoint() is None
    saved = run.save_checkpoint(7, write_step(7))
    assert saved.path == run.path / "checkpoints" / "step_000007"
    assert run.latest_checkpoint() == saved
    verify_manifest(saved.path)
    assert yaml.safe_load((saved.path / "config.yaml").read_text())["steps"] == 10


def test_the_newest_are_kept(run: RunFolder) -> None:
    for step in (5, 10, 999999, 1000000):
        run.save_checkpoint(step, write_step(1), keep_last=2)
    assert sorted(p.name for p in run.checkpoints.iterdir()) == ["step_1000000", "step_999999"]
    latest = run.latest_checkpoint()
    assert latest is not None
    assert latest.step == 1000000
    with pytest.raises(ValueError, match="keep_last is 0"):
        run.save_checkpoint(11, write_step(1), keep_last=0)


def test_damaged_newest_falls_back_with_a_message(run: RunFolder, caplog: pytest.LogCaptureFixture) -> None:
    for step in (1, 2, 3):
        run.save_checkpoint(step, write_step(step))
    (run.checkpoints / "step_000003" / "weights.bin").write_bytes(b"")
    (run.checkpoints / "step_000002" / "manifest.json").unlink()
    with caplog.at_level(logging.WARNING):
        latest = run.latest_checkpoint()
    assert latest is not None
    assert latest.step == 1
    assert "weights.bin has 0 bytes instead of 100; continuing from step 1 instead" in caplog.text
    assert "step_000002 has no manifest.json" in caplog.text


def test_pruning_spares_what_was_just_written_below_a_damaged_newer_one(run: RunFolder) -> None:
    for step in (1, 9):
        run.save_checkpoint(step, write_step(step))
    (run.checkpoints / "step_000009" / "weights.bin").unlink()
    run.save_checkpoint(2, write_step(2), keep_last=1)
    latest = run.latest_checkpoint()
    assert latest is not None
    assert latest.step == 2


def test_damaged_checkpoints_do_not_count_among_the_newest_that_are_kept(run: RunFolder) -> None:
    for step in (1, 2, 3):
        run.save_checkpoint(step, write_step(step))
    (run.checkpoints / "step_000003" / "weights.bin").unlink()
    run.save_checkpoint(4, write_step(4), keep_last=2)
    assert sorted(p.name for p in run.checkpoints.iterdir()) == ["step_000002", "step_000004"]
    (run.checkpoints / "step_000004" / "weights.bin").unlink()
    latest = run.latest_checkpoint()
    assert latest is not None
    assert latest.step == 2


def test_a_checkpoint_that_cannot_be_read_is_passed_over(
    run: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (1, 2):
        run.save_checkpoint(step, write_step(step))

    def read(folder: Path) -> None:
        if (folder / "weights.bin").read_bytes()[0] == 2:
            raise CorruptFileError(f"{folder} is of another model")

    latest = run.latest_checkpoint(read)
    assert latest is not None
    assert latest.step == 1
    assert "step_000002 is of another model; continuing from step 1" in caplog.text


def test_only_damaged_checkpoints_are_an_error(run: RunFolder) -> None:
    saved = run.save_checkpoint(1, write_step(1))
    (saved.path / "weights.bin").unlink()
    with pytest.raises(CorruptFileError, match=r"no checkpoint of .*run is intact.*weights\.bin is missing"):
        run.latest_checkpoint()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("no")])
def test_interrupted_checkpoint_leaves_the_older_ones(run: RunFolder, error: BaseException) -> None:
    run.save_checkpoint(1, write_step(1))

    def interrupted(folder: Path) -> None:
        write_step(2)(folder)
        raise error

    for step in (1, 2):
        with pytest.raises(type(error)):
            run.save_checkpoint(step, interrupted, keep_last=1)
    assert [p.name for p in run.checkpoints.iterdir()] == ["step_000001"]
    verify_manifest(run.checkpoints / "step_000001")


def test_full_disk_at_a_checkpoint(run: RunFolder) -> None:
    run.save_checkpoint(1, write_step(1))

    def full(folder: Path) -> None:
        (folder / "weights.bin").symlink_to("/dev/full")
        (folder / "weights.bin").write_bytes(b"x")

    with pytest.raises(DiskFullError, match=r"no space is left to write .*step_000002"):
        run.save_checkpoint(2, full, keep_last=1)
    latest = run.latest_checkpoint()
    assert latest is not None
    assert latest.step == 1


def test_leftovers_of_a_killed_process_are_removed_on_resume(run: RunFolder) -> None:
    run.save_checkpoint(1, write_step(1))
    leftover = run.checkpoints / ".step_000002.partial-0123"
    leftover.mkdir()
    (leftover / "weights.bin").touch()
    (leftover / ".config.partial-89ab.yaml").touch()
    (run.samples / ".a.partial-cdef.mp4").touch()
    (run.path / ".metrics.partial-4567.jsonl").touch()
    RunFolder.open(run.path, ExampleSettings())
    assert [p.name for p in run.checkpoints.iterdir()] == ["step_000001"]
    assert sorted(p.name for p in run.path.iterdir()) == [
        ".lock",
        "checkpoints",
        "config.yaml",
        "samples",
    ]
    assert list(run.samples.iterdir()) == []
