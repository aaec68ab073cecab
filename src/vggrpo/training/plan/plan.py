"""What a plan consists of."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import ValidationError

from vggrpo.config import ConfigError, EfficiencySettings, Settings

GIB = 2**30
PAPER_GPU_HOURS = 1536
CUDA_BYTES = int(1.5 * GIB)
"""What CUDA and its libraries take of a GPU before the first tensor; measured values vary between 0.5 and 1.5
GiB."""

SettingsT = TypeVar("SettingsT", bound=Settings)


@dataclass(frozen=True)
class Assumptions:
    """Of the hardware."""

    tflops: float
    """TFLOP/s that a GPU reaches."""
    gpu_memory: float
    """GiB."""
    gpus: int = 1

    def seconds(self, flops: float) -> float:
        """Time that a GPU takes."""
        return flops / (self.tflops * 1e12)

    def fits(self, memory: int) -> bool:
        """Whether a GPU holds so many bytes."""
        return memory + CUDA_BYTES <= self.gpu_memory * GIB


@dataclass(frozen=True)
class Phase:
    """A part of a run, on one GPU."""

    name: str
    flops: float
    """In an iteration, or in the whole run where it has no iterations."""
    memory: int
    """Bytes on the GPU at the worst moment: weights, gradients, optimizer and activations."""


@dataclass(frozen=True)
class ModelSize:
    """Numbers of parameters."""

    name: str
    parameters: int
    trainable: int = 0


@dataclass(frozen=True)
class Plan:
    """What a run costs."""

    title: str
    models: Sequence[ModelSize]
    phases: Sequence[Phase]
    per: str
    """What the phases' operations are counted in: "iteration" or "run"."""
    figures: Mapping[str, str]
    """Other lines, by their labels."""
    problems: Sequence[str]
    """What does not fit, each a sentence with its remedy."""
    assumptions: Assumptions


@dataclass(frozen=True)
class Remedy(Generic[SettingsT]):
    """Settings that need less memory, and the flags that ask for them."""

    flags: str
    settings: SettingsT


def stacked(
    settings: SettingsT,
    changes: Sequence[tuple[str, Mapping[str, object]]],
    require: Callable[[SettingsT], None] | None = None,
) -> list[Remedy[SettingsT]]:
    """Remedies of changes (flags, values), each on top of those before; later values of the same settings,
    such as a smaller batch, take the place of earlier ones.

    A change that the settings' own checks or `require`, which raises ConfigError, refuse is left out.
    """
    found: list[Remedy[SettingsT]] = []
    taken: dict[frozenset[str], tuple[str, Mapping[str, object]]] = {}
    for flags, values in changes:
        tried = taken | {frozenset(values): (flags, values)}
        update = {name: value for _, part in tried.values() for name, value in part.items()}
        try:
            changed = type(settings).model_validate(settings.model_dump() | update)
            if require is not None:
                require(changed)
        except (ValidationError, ConfigError):
            continue
        taken = tried
        found.append(Remedy(" ".join(flags for flags, _ in taken.values()), changed))
    return found


def problems(
    phases: Sequence[Phase],
    remedies: Sequence[Remedy[SettingsT]],
    measured: Callable[[SettingsT], Sequence[Phase]],
    assumptions: Assumptions,
) -> list[str]:
    """A sentence for each phase that does not fit, with the first remedy with which it does.

    Args:
        phases: of the settings as they are.
        remedies: from the cheapest to the last resort.
        measured: the phases of other settings.
        assumptions: the GPU.
    """
    too_large = {phase.name: phase.memory for phase in phases if not assumptions.fits(phase.memory)}
    if not too_large:
        return []
    found: dict[str, str] = {}
    least = dict(too_large)
    for remedy in remedies:
        for phase in measured(remedy.settings):
            if phase.name in too_large and phase.name not in found:
                least[phase.name] = min(least[phase.name], phase.memory)
                if assumptions.fits(phase.memory):
                    found[phase.name] = f"{remedy.flags} makes it {phase.memory / GIB:.1f} GiB"
        if len(found) == len(too_large):
            break
    tried = f"with {remedies[-1].flags} it still needs" if remedies else "no setting makes it less than"
    return [
        f"{name} needs {memory / GIB:.1f} GiB and CUDA's own, but a GPU has {assumptions.gpu_memory:g}: "
        + found.get(
            name,
            f"{tried} {least[name] / GIB:.1f} GiB, so lower --height, --width or --num-frames, or use a "
            "larger GPU",
        )
        for name, memory in too_large.items()
    ]


def efficiency_changes(
    efficiency: EfficiencySettings, names: Sequence[str]
) -> list[tuple[str, dict[str, object]]]:
    """Flags and values that switch those of the named efficiency settings that cost memory to what costs
    less, one after the other, each with those before."""
    changes: list[tuple[str, dict[str, object]]] = []
    flags: list[str] = []
    for name in names:
        frugal = name != "cfg_batched"
        if getattr(efficiency, name) != frugal:
            efficiency = efficiency.model_copy(update={name: frugal})
            flags.append(f"--efficiency.{'' if frugal else 'no-'}{name.replace('_', '-')}")
            changes.append((" ".join(flags), {"efficiency": efficiency}))
    return changes
