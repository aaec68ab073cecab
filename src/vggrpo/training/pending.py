"""The trajectories of an iteration on disk: where they are, what they are made from, and when they go."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from vggrpo.backbones import VideoBackbone
from vggrpo.config import TrainSettings
from vggrpo.io import RunFolder, tensors_sha256
from vggrpo.io.atomic import TEMPORARY_MARK
from vggrpo.training.ranks import Ranks
from vggrpo.training.runtime import hardware

NOT_IN_ROLLOUTS = {
    *("output", "resume", "allow_changes", "checkpoint_every", "keep_checkpoints", "alarms"),
    *("trackers", "tracker_project", "gradient_checkpointing"),
}
"""Settings that a resumed run may change without drawing its pending rollouts again."""


def pending_folder(run: RunFolder, ranks: Ranks) -> Path:
    """Where a rank keeps the trajectories of an iteration that is not done, for a resumed run."""
    return run.path / f"pending_rank_{ranks.rank}_of_{ranks.size}"


def scratch_folder(run: RunFolder, ranks: Ranks) -> Path:
    """Where they are if they are not kept; what a killed process leaves there goes at its resume."""
    return run.path / f".trajectories{TEMPORARY_MARK}{ranks.rank}"


def remove_foreign(run: RunFolder, ranks: Ranks) -> None:
    """Deletes the trajectories of a run on another number of ranks, which drew other batches."""
    for folder in run.path.glob("pending_rank_*"):
        if not folder.name.endswith(f"_of_{ranks.size}"):
            shutil.rmtree(folder)


@contextmanager
def tidied(pending: Path, scratch: Path) -> Iterator[None]:
    """An iteration. What is pending stays, also when it is done, until `forget`; but it goes when a value is
    not finite, which a resumed run must not meet again.
    """
    try:
        yield
    except FloatingPointError:
        forget(pending)
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def forget(pending: Path) -> None:
    """Deletes the trajectories of an iteration that is done and, where a checkpoint was due, saved."""
    shutil.rmtree(pending, ignore_errors=True)


def rollout_key(
    settings: TrainSettings, policy: VideoBackbone, prompts: Sequence[Tensor | None], seeds: Sequence[int]
) -> str:
    """Says what a group is made from: the policy's weights, the embeddings of its prompt and of the negative
    one, its noises, the settings, and what rounds its numbers.
    """
    embeds = {f"prompt {number}": embeds for number, embeds in enumerate(prompts) if embeds is not None}
    tensors = tensors_sha256(embeds | dict(policy.trainable_parameters()))
    fixed = settings.model_dump_json(exclude=NOT_IN_ROLLOUTS)
    return f"{tensors} {list(seeds)} {fixed} {hardware(policy.device)}"
