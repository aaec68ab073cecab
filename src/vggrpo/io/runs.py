"""Run folders: the settings, metrics, samples and checkpoints of one run, kept whole whatever happens.

runs/<name>/
    config.yaml                the resolved settings; also valid as a recipe
    metrics.jsonl              one record a line: {"step": 10, "policy/kl": 0.01, ...}
    samples/
    checkpoints/step_000010/   written elsewhere, hashed in a manifest, then renamed
"""

import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml

from vggrpo.config.base import Settings
from vggrpo.config.errors import CorruptFileError, RunError
from vggrpo.io.atomic import TEMPORARY_MARK, atomic_folder, write_text
from vggrpo.io.manifest import verify_manifest, write_manifest
from vggrpo.io.metrics import append_record, read_records, truncate_records

CONFIG_NAME = "config.yaml"
METRICS_NAME = "metrics.jsonl"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint: the state after `step` steps."""

    step: int
    path: Path


class RunFolder:
    """The folder of one run. Made by `create`, `open` or `start`."""

    def __init__(self, path: Path, settings: Settings) -> None:
        self.path, self.settings = path, settings

    @classmethod
    def start(cls, path: Path | str, settings: Settings, resume: bool) -> Self:
        """`open` if `resume`, else `create`."""
        return cls.open(path, settings) if resume else cls.create(path, settings)

    @classmethod
    def create(cls, path: Path | str, settings: Settings) -> Self:
        """A new run folder with its `config.yaml`.

        Raises:
            RunError: if the folder holds a run, or anything else, already.
        """
        path = Path(path)
        if (path / CONFIG_NAME).exists():
            raise RunError(
                f"{path} already holds a run; add --resume to continue it, or choose another --output"
            )
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise RunError(f"{path} exists and is not an empty folder; choose another --output")
        write_text(path / CONFIG_NAME, settings_to_yaml(settings))
        return cls(path, settings)

    @classmethod
    def open(cls, path: Path | str, settings: Settings) -> Self:
        """The existing run folder, if it was made with the same settings.

        Raises:
            RunError: if there is no run, or its settings differ; the text lists each difference.
            CorruptFileError: if its `config.yaml` cannot be read.
        """
        path = Path(path)
        config = path / CONFIG_NAME
        if not config.is_file():
            raise RunError(
                f"{path} holds no run to resume (it has no {CONFIG_NAME}); start it without --resume"
            )
        try:
            stored = yaml.safe_load(config.read_text("utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise CorruptFileError(f"{config} is damaged ({error})") from error
        differences = settings_differences(stored, settings)
        if differences:
            lines = "".join(f"\n  {line}" for line in differences)
            raise RunError(
                f"{path} was made with other settings, so it cannot be resumed:{lines}\n"
                "Use the run's settings, or start a new run with another --output"
            )
        _remove_leftovers(path)
        return cls(path, settings)

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

    def read_metrics(self) -> list[dict[str, Any]]:
        """All records of `metrics.jsonl`, each with its "step"."""
        return read_records(self.path / METRICS_NAME)

    def truncate_metrics(self, step: int) -> None:
        """Drops the records after `step`, which the resumed run will write anew."""
        truncate_records(self.path / METRICS_NAME, step)

    def save_checkpoint(
        self, step: int, writer: Callable[[Path], None], keep_last: int | None = None
    ) -> Checkpoint:
        """Writes `checkpoints/step_XXXXXX` completely or not at all.

        Args:
            step: steps done.
            writer: fills the empty folder it is given.
            keep_last: how many checkpoints up to this one to keep; None keeps all.

        Raises:
            DiskFullError: if the space runs out; older checkpoints are untouched.
        """
        if keep_last is not None and keep_last < 1:
            raise ValueError(f"keep_last is {keep_last}; expected at least 1")
        path = self.checkpoints / f"step_{step:06d}"
        with atomic_folder(path, replace=True) as folder:
            writer(folder)
            write_text(folder / CONFIG_NAME, settings_to_yaml(self.settings))
            write_manifest(folder)
        if keep_last is not None:
            older = [checkpoint for checkpoint in self._checkpoints() if checkpoint.step <= step]
            for checkpoint in older[:-keep_last]:
                _delete_folder(checkpoint.path)
        return Checkpoint(step, path)

    def latest_checkpoint(self) -> Checkpoint | None:
        """The newest checkpoint whose manifest holds, or None if none was ever written.

        Damaged ones are skipped with a warning that names the damage.

        Raises:
            CorruptFileError: if there are checkpoints and all are damaged.
        """
        problems = []
        for checkpoint in reversed(self._checkpoints()):
            try:
                verify_manifest(checkpoint.path)
            except (CorruptFileError, FileNotFoundError) as error:
                problems.append(str(error))
                continue
            for problem in problems:
                logger.warning("%s; continuing from step %d instead", problem, checkpoint.step)
            return checkpoint
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
    old, new = _flatten(stored), _flatten(settings.model_dump(mode="json"))
    return [
        f"{name}: {old.get(name, 'absent')} in the run, {new.get(name, 'absent')} now"
        for name in dict.fromkeys((*new, *old))
        if name.split(".")[0] not in settings.free_on_resume
        and (name not in old or name not in new or old[name] != new[name])
    ]


def _flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    flat: dict[str, Any] = {}
    for name, item in value.items():
        flat |= _flatten(item, f"{prefix}.{name}" if prefix else str(name))
    return flat


def _remove_leftovers(path: Path) -> None:
    """Deletes what a killed process had begun to write below `path`."""
    for leftover in list(path.rglob(f".*{TEMPORARY_MARK}*")):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink(missing_ok=True)  # it went with its folder


def _delete_folder(path: Path) -> None:
    """Deletes so that an interruption leaves no half of it under its name."""
    doomed = path.with_name(f".{path.name}{TEMPORARY_MARK}delete")
    path.rename(doomed)
    shutil.rmtree(doomed)
