"""What every settings class has in common."""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt


class Settings(BaseModel):
    """Immutable settings: unknown names and non-finite numbers are errors, docstrings are help texts.

    Sub-groups are nested `Settings`; their flags and override paths are dotted (`loop.steps`).
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        validate_default=True,
        use_attribute_docstrings=True,
        protected_namespaces=(),
    )

    free_on_resume: ClassVar[frozenset[str]] = frozenset({"output", "resume"})
    """Fields that may differ when a run is resumed, because they do not change what is computed."""


class RunSettings(Settings):
    """What every command that makes a run folder shares."""

    output: Path = Field(description="run folder to create")
    resume: bool = Field(False, description="continue the run in `output`")
    seed: NonNegativeInt = Field(0, description="seed of every random stream of the run")
    threads: NonNegativeInt = Field(0, description="CPU threads; 0 leaves PyTorch's choice")
    device: str = Field(
        "auto", description="where the models run; auto is CUDA if there is any, else the CPU"
    )
    precision: Literal["float32", "bfloat16"] = Field("float32", description="autocast type of the models")
    weights: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="type of a video model's frozen weights in memory",
    )
