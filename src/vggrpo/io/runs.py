"""Run folders: the settings, metrics, samples and checkpoints of one run, kept whole whatever happens.

runs/<name>/
    .lock                      held by the process whose run it is
    config.yaml                the resolved settings; also valid as a recipe
    metrics.jsonl              one record a line: {"step": 10, "policy/kl": 0.01, ...}
    histograms.jsonl           likewise, of what one number does not say
    samples/
    checkpoints/step_000010/   written elsewhere, hashed in a manifest, then renamed
"""

import errno
import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml

from vggrpo.config.base import Settings
from vggrpo.config.errors import CorruptFileError, RunError
from vggrpo.io.atomic import TEMPORARY_MARK, atomic_folder, make_folder, remove_leftovers, write_text
from vggrpo.io.histograms import Histogram, append_histograms, read_histograms
from vggrpo.io.lock import LOCK_NAME, FolderLock, lock_folder
from vggrpo.io.manifest import verify_manifest, write_manifest
from vggrpo.io.metrics import append_record, read_records, truncate_records
from vggrpo.io.trackers import Trackers

CONFIG_NAME = "config.yaml"
METRICS_NAME = "metrics.jsonl"
HISTOGRAMS_NAME = "histograms.jsonl"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint: the state after `step` steps."""

    step: int
    path: Path


class RunFolder:
    """The folder of one run. `create`, `open` and `start` keep other processes out of it as long as the
    object lives; the constructor alone only names it.
    """

    def __init__(self, path: Path, settings: Settings) -> None:
        self.path, self.settings = path, settings
        self.trackers = Trackers()
        """Are told what is logged."""
        self._lock: FolderLock | None = None

    @classmethod
    def start(cls, path: Path | str, settings: Settings, resume: bool) -> Self:
        """`open` if `resume`, else `create`."""
        return cls.open(path, settings) if resume else cls.create(path, settings)

    @classmethod
    def create(cls, path: Path | str, settings: Settings) -> Self:
        """A new run folder with its `config.yaml`.

        Raises:
            RunError: if the folder holds a run, or anything else, already, or another process uses it, or it
                cannot be written.
        """
        path = Path(path)
        _require_new(path)
        run = cls(path, settings)
        run._lock = _taken(path)
        _require_new(path)  # the lock may have come after another job's whole run
        remove_leftovers(path)
        write_text(path / CONFIG_NAME, _recorded(settings))
        return run

    @classmethod
    def open(cls, path: Path | str, settings: Settings) -> Self:
        """The existing run folder, if it was made with the same settings.

        Settings that `settings.allow_changes` names may differ; they are then the run's, and the log says
        what has changed.

        Raises:
            RunError: if there is no run, another process uses it, it cannot be written, or its settings
                differ; the text lists each difference.
            CorruptFileError: if its `config.yaml` cannot be read.
        """
        path = Path(path)
        config = path / CONFIG_NAME
        if not config.is_file():
            raise RunError(
                f"{path} holds no run to resume (it has no {CONFIG_NAME}); start it without --resume"
            )
        run = cls(path, settings)
        run._lock = _taken(path)
        try:
            stored = yaml.safe_load(config.read_text("utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise CorruptFileError(f"{config} is damaged ({error})") from error
        changes = _allowed_changes(path, stored, settings)
        remove_leftovers(path)
        for change in changes:
            logger.warning("%s goes on with another setting, as allowed: %s", path, change)
        if changes:
            write_text(config, _recorded(settings))
        return run

    @property
    def samples(self) -> Path:
        """The folder of sample videos, made when first asked for."""
        folder = self.path / "samples"
        folder.mkdir(exist_ok=True)
        return folder

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints; it need not exist."""
        return self.path / "checkpoints"

    def log(self, step: int, metrics: Mapping[str, float | int | None]) -> None:
        """Appends a record to `metrics.jsonl`; numbers that are not finite are written as null."""
        append_record(self.path / METRICS_NAME, step, metrics)
        self.trackers.metrics(step, metrics)

    def log_histograms(self, step: int, histograms: Mapping[str, Histogram]) -> None:
        """Appends a record to `histograms.jsonl`."""
        append_histograms(self.path / HISTOGRAMS_NAME, step, histograms)
        self.trackers.histograms(step, histograms)

    def read_metrics(self) -> list[dict[str, Any]]:
        """All records of `metrics.jsonl`, each with its "step"."""
        return read_records(self.path / METRICS_NAME)

    def read_histograms(self) -> list[tuple[int, dict[str, Histogram]]]:
        """All records of `histograms.jsonl`, by step and name."""
        return read_histograms(self.path / HISTOGRAMS_NAME)

    def truncate_metrics(self, step: int) -> None:
        """Drops the records after `step`, which the resumed run will write anew."""
        truncate_records(self.path / METRICS_NAME, step)
        truncate_records(self.path / HISTOGRAMS_NAME, step)

    def save_checkpoint(
        self, step: int, writer: Callable[[Path], None], keep_last: int | None = None
    ) -> Checkpoint:
        """Writes `checkpoints/step_XXXXXX` completely or not at all.

        Args:
            step: steps done.
            writer: fills the empty folder it is given.
            keep_last: how many intact checkpoints up to this one to keep; None keeps all, damaged ones too.

        Raises:
            DiskFullError: if the space runs out; older checkpoints are untouched.
        """
        if keep_last is not None and keep_last < 1:
            raise ValueError(f"keep_last is {keep_last}; expected at least 1")
        path = self.checkpoints / f"step_{step:06d}"
        with atomic_folder(path, replace=True) as folder:
            writer(folder)
            write_text(folder / CONFIG_NAME, _recorded(self.settings))
            write_manifest(folder)
        if keep_last is not None:
            kept = 1
            for checkpoint in reversed([c for c in self._checkpoints() if c.step < step]):
                if kept < keep_last and _damage(checkpoint) is None:
                    kept += 1
                else:
                    _delete_folder(checkpoint.path)
        return Checkpoint(step, path)

    def latest_checkpoint(self, read: Callable[[Path], object] | None = None) -> Checkpoint | None:
        """The newest intact checkpoint, or None if none was ever written.

        A checkpoint is intact if its manifest holds and `read` can make sense of it. Damaged ones are skipped
        with a warning that names the damage.

        Args:
            read: reads a checkpoint's folder without changing anything else.

        Raises:
            CorruptFileError: if there are checkpoints and all are damaged.
        """
        problems: list[str] = []
        for checkpoint in reversed(self._checkpoints()):
            problem = _damage(checkpoint, read)
            if problem is None:
                for earlier in problems:
                    logger.warning("%s; continuing from step %d instead", earlier, checkpoint.step)
                return checkpoint
            problems.append(problem)
        if problems:
            raise CorruptFileError(
                f"no checkpoint of {self.path} is intact: {'; '.join(problems)}. "
                f"Restore one from a copy, or delete {self.checkpoints} to start over"
            )
        return None

    def _checkpoints(self) -> list[Checkpoint]:
        found = [
            Checkpoint(int(path.name.removeprefix("step_")), path)
            for path in self.checkpoints.glob("step_*")
            if path.name.removeprefix("step_").isdecimal()
        ]
        return sorted(found, key=lambda checkpoint: checkpoint.step)


def settings_to_yaml(settings: Settings) -> str:
    """The complete settings as YAML in the order of their definition."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def settings_differences(stored: Any, settings: Settings) -> list[str]:
    """What differs between a stored `config.yaml` and `settings`, a line each, "lr: 0.1 in the run, 0.2 now".

    Fields in `settings.free_on_resume` may differ.
    """
    return list(_differences(stored, settings).values())


def _differences(stored: Any, settings: Settings) -> dict[str, str]:
    old, new = _flatten(stored), _flatten(settings.model_dump(mode="json"))
    return {
        name: f"{name}: {old.get(name, 'absent')} in the run, {new.get(name, 'absent')} now"
        for name in dict.fromkeys((*new, *old))
        if name.split(".")[0] not in settings.free_on_resume
        and (name not in old or name not in new or old[name] != new[name])
    }


def _taken(path: Path) -> FolderLock:
    """The lock of a folder, which is made if there is none."""
    try:
        make_folder(path)
        return lock_folder(path)
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        raise RunError(
            f"{path} cannot be written ({error.strerror}); make it writable, or choose another --output"
        ) from error


def _allowed_changes(path: Path, stored: Any, settings: Settings) -> list[str]:
    """The differences, each of them allowed by name.

    Raises:
        RunError: if one is not.
    """
    can_allow = "allow_changes" in type(settings).model_fields
    allowed = [name.replace("-", "_") for name in getattr(settings, "allow_changes", ())]
    names = [f"{name}." for name in (_flatten(stored) | _flatten(settings.model_dump(mode="json")))]
    for name in allowed:
        if not any(known.startswith(f"{name}.") for known in names):
            raise RunError(f"allow_changes names {name}, which is no setting of this command")
    differences = _differences(stored, settings)
    held = [name for name in differences if name.split(".")[0] in settings.held_on_resume]
    refused = [
        name
        for name in differences
        if name in held or not any(f"{name}.".startswith(f"{a}.") for a in allowed)
    ]
    if refused:
        lines = "".join(f"\n  {differences[name]}" for name in refused)
        if held:
            remedy = f"; {', '.join(held)} cannot change within a run, whose measurements would not compare"
        else:
            remedy = f", or add --allow-changes {' '.join(refused)}" if can_allow else ""
        raise RunError(
            f"{path} was made with other settings, so it cannot be resumed:{lines}\n"
            f"Use the run's settings, or start a new run with another --output{remedy}"
        )
    return list(differences.values())


def _recorded(settings: Settings) -> str:
    """The settings of a run as a recipe, without what only one call was to do."""
    only_once = {"resume", "allow_changes"} & set(type(settings).model_fields)
    defaults = {name: type(settings).model_fields[name].default for name in only_once}
    return settings_to_yaml(settings.model_copy(update=defaults))


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    flat: dict[str, Any] = {}
    for name, item in value.items():
        flat |= _flatten(item, f"{prefix}.{name}" if prefix else str(name))
    return flat


def _require_new(path: Path) -> None:
    """Makes sure that nothing is in the way of a new run."""
    if (path / CONFIG_NAME).exists():
        raise RunError(f"{path} already holds a run; add --resume to continue it, or choose another --output")
    # A process that was killed while it made the run may have left these.
    own = (LOCK_NAME, f".{Path(CONFIG_NAME).stem}{TEMPORARY_MARK}")
    if path.exists() and (not path.is_dir() or any(not f.name.startswith(own) for f in path.iterdir())):
        raise RunError(f"{path} exists and is not an empty folder; choose another --output")


def _damage(checkpoint: Checkpoint, read: Callable[[Path], object] | None = None) -> str | None:
    """What is wrong with a checkpoint; None if nothing is."""
    try:
        verify_manifest(checkpoint.path)
        if read is not None:
            read(checkpoint.path)
    except (CorruptFileError, FileNotFoundError) as error:
        return str(error)
    return None


def _delete_folder(path: Path) -> None:
    """Deletes so that an interruption leaves no half of it under its name."""
    doomed = path.with_name(f".{path.name}{TEMPORARY_MARK}delete")
    path.rename(doomed)
    shutil.rmtree(doomed)
