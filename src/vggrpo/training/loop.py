"""The loop around every supervised training: optimizer, schedule, checkpoints, resume, metrics, progress.

What is trained is a `Job`. A job's loss at step n depends on n and the weights alone (data and noise are
seeded by the step), so a run that was interrupted and resumed is the run that was not.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from vggrpo.config import LoopSettings
from vggrpo.io import RunFolder, progress, save_tensors
from vggrpo.training.average import WeightAverage
from vggrpo.training.interrupt import Stopped, deferred_stop
from vggrpo.training.optim import (
    gradient_norm,
    load_optimizer_tensors,
    optimizer_tensors,
    read_state,
    set_learning_rate,
    warmup_cosine,
)

AVERAGE_FILE = "average.safetensors"


class Job(Protocol):
    """A supervised training: its modules, its parameters and its loss."""

    name: str

    def modules(self) -> Mapping[str, nn.Module]:
        """The modules whose state is saved, by name."""

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """Optimizers that share out the parameters, over groups made by `optim.parameter_group`."""

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """The scalar loss at `step` and figures to log."""

    def losses(self, step: int) -> Iterator[tuple[Tensor, dict[str, float]]]:
        """The loss and the figures in parts that add up, for jobs whose batch does not fit at once.

        The backward pass of a part is done before the next is asked for.
        """
        yield self.loss(step)

    def evaluate(self, step: int) -> Mapping[str, float | None]:
        """Figures on held-out data, None where one could not be measured; called every `evaluate_every`
        steps and at the end.
        """


def run_job(job: Job, run: RunFolder, settings: LoopSettings) -> None:
    """Trains `job` to `settings.last_step`, continuing from the run's newest valid checkpoint if any.

    Raises:
        Stopped: after a stop request, with a checkpoint of the step that was under way.
        FloatingPointError: if the loss or the gradient is not finite; nothing is updated with it.
    """
    optimizers = job.optimizers()
    parameters = [p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
    average = WeightAverage(weights_of(job), settings.ema_decay) if settings.ema_decay else None

    start = 0
    checkpoint = run.latest_checkpoint(lambda folder: _read(folder, job, optimizers, average))
    if checkpoint is not None:
        start = checkpoint.step
        _restore(checkpoint.path, job, optimizers, average)
    run.truncate_metrics(start)

    with progress(job.name, total=settings.last_step, done=start) as bar, deferred_stop() as stop:
        for step in range(start, settings.last_step):
            began = time.perf_counter()
            for optimizer in optimizers:
                set_learning_rate(optimizer, warmup_cosine(step, settings.steps, settings.warmup_steps))
                optimizer.zero_grad(set_to_none=True)
            loss, figures = _backpropagate(job, step)
            norm = gradient_norm(parameters)
            require_finite(step, {"loss": loss, "gradient norm": norm})
            torch.nn.utils.clip_grads_with_norm_(parameters, settings.grad_clip, norm)
            for optimizer in optimizers:
                optimizer.step()
            if average is not None:
                average.update(step)

            done = step + 1
            last = done == settings.last_step
            metrics = {"loss": loss.item(), "grad_norm": norm.item(), **figures}
            metrics["time/step"] = time.perf_counter() - began
            if last or done % settings.log_every == 0:
                run.log(done, metrics)
            bar.advance(**metrics)
            if last or done % settings.evaluate_every == 0:
                run.log(done, _evaluate(job, average, done))
            stopping = stop.requested  # read once: what comes from here on ends the next step
            if last or stopping or done % settings.checkpoint_every == 0:
                _save(run, done, job, optimizers, average, settings.keep_checkpoints)
            if stopping:
                raise Stopped
    if average is not None:
        average.swap()


def _backpropagate(job: Job, step: int) -> tuple[Tensor, dict[str, float]]:
    """Leaves the loss's gradients in the parameters."""
    parts: list[Tensor] = []
    figures: dict[str, float] = {}
    for loss, shares in job.losses(step):
        loss.backward()
        parts.append(loss.detach())
        figures = {name: figures.get(name, 0.0) + share for name, share in shares.items()}
    return torch.stack(parts).sum(), figures


def require_finite(step: int, tensors: Mapping[str, Tensor]) -> None:
    """Stops a training before an update that would spread a NaN or an infinity.

    Raises:
        FloatingPointError: naming the tensor and the step.
    """
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise FloatingPointError(
                f"{name} is not finite at step {step}; the weights were not updated. "
                "Lower the learning rate or resume from an earlier checkpoint"
            )


def weights_of(job: Job) -> dict[str, nn.Parameter]:
    """All parameters of a job's modules, by module and name."""
    return {
        f"{key}.{name}": parameter
        for key, module in job.modules().items()
        for name, parameter in module.named_parameters()
    }


def _evaluate(job: Job, average: WeightAverage | None, step: int) -> Mapping[str, float | None]:
    with average.applied() if average is not None else nullcontext(), torch.no_grad():
        return job.evaluate(step)


def _save(
    run: RunFolder,
    step: int,
    job: Job,
    optimizers: Sequence[torch.optim.Optimizer],
    average: WeightAverage | None,
    keep: int,
) -> None:
    def write(folder: Path) -> None:
        for name, module in job.modules().items():
            save_tensors(folder / f"{name}.safetensors", module.state_dict())
        for index, optimizer in enumerate(optimizers):
            save_tensors(folder / f"optimizer_{index}.safetensors", optimizer_tensors(optimizer))
        if average is not None:
            save_tensors(folder / AVERAGE_FILE, average.tensors)

    run.save_checkpoint(step, write, keep_last=keep)


def _restore(
    folder: Path, job: Job, optimizers: Sequence[torch.optim.Optimizer], average: WeightAverage | None
) -> None:
    found = _read(folder, job, optimizers, average)
    for name, module in job.modules().items():
        module.load_state_dict(found[folder / f"{name}.safetensors"])
    for index, optimizer in enumerate(optimizers):
        load_optimizer_tensors(optimizer, found[folder / f"optimizer_{index}.safetensors"])
    if average is not None:
        average.load(found.get(folder / AVERAGE_FILE) or weights_of(job))


def _read(
    folder: Path, job: Job, optimizers: Sequence[torch.optim.Optimizer], average: WeightAverage | None
) -> dict[Path, dict[str, Tensor]]:
    """All of a checkpoint, by file, before anything is restored from it."""
    weights: dict[Path, Mapping[str, Tensor]] = {
        folder / f"{name}.safetensors": module.state_dict() for name, module in job.modules().items()
    }
    # A checkpoint without an average is of a run that had none until now: a missing file is found before.
    if average is not None and (folder / AVERAGE_FILE).exists():
        weights[folder / AVERAGE_FILE] = average.tensors
    files = {folder / f"optimizer_{index}.safetensors": o for index, o in enumerate(optimizers)}
    return read_state(weights, files)
