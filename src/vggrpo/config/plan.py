"""The flags of `--dry-run`, which belong to the command line and not to a run."""

from typing import Self, TypeVar

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from vggrpo.config.base import Settings
from vggrpo.config.lgm import LGMSettings
from vggrpo.config.train import TrainSettings

RunT = TypeVar("RunT", bound=Settings)

DEFAULT_TFLOPS = 300.0
"""What an H100 reaches in bfloat16 with well-filled kernels: about a third of its peak."""
DEFAULT_GPU_MEMORY = 80.0


class PlanFlags(Settings):
    """What a run would cost, instead of the run."""

    dry_run: bool = Field(False, description="print what the run will cost and need, and do nothing")
    tflops: PositiveFloat | None = Field(
        None, description=f"with --dry-run: TFLOP/s that a GPU reaches; {DEFAULT_TFLOPS:g} if unset"
    )
    gpu_memory: PositiveFloat | None = Field(
        None, description=f"with --dry-run: GiB of a GPU's memory; {DEFAULT_GPU_MEMORY:g} if unset"
    )

    @model_validator(mode="after")
    def _belong_to_a_dry_run(self) -> Self:
        given = [
            name
            for name in PLAN_FIELDS
            if name != "dry_run" and getattr(self, name, None) is not None and not self.dry_run
        ]
        if given:
            raise ValueError(
                f"{' and '.join(given)} only say what a plan assumes; add --dry-run, or leave out"
            )
        return self


class TrainFlags(TrainSettings, PlanFlags):
    __doc__ = TrainSettings.__doc__

    gpus: PositiveInt | None = Field(
        None, description="with --dry-run: GPUs that share the run under torchrun; 1 if unset"
    )


class LGMFlags(LGMSettings, PlanFlags):
    __doc__ = LGMSettings.__doc__


PLAN_FIELDS = ("dry_run", "tflops", "gpu_memory", "gpus")


def run_settings(flags: Settings, settings_class: type[RunT]) -> RunT:
    """The settings of the run itself, without the flags of the plan."""
    return settings_class.model_validate(flags.model_dump(exclude=set(PLAN_FIELDS)))
