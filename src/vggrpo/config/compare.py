"""Settings of `vggrpo compare`."""

from pathlib import Path
from typing import Annotated, Literal, Self

import tyro
from pydantic import Field, NonNegativeInt, model_validator

from vggrpo.config.base import Settings

MARKDOWN_NAME = "comparison.md"
JSON_NAME = "comparison.json"
PAGE_NAME = "comparison.html"


class CompareSettings(Settings):
    """Puts evaluations beside each other, with what differs significantly."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = Field(
        min_length=2,
        description="output folders of `vggrpo evaluate`, runs of `vggrpo train` (their newest evaluation), "
        "or files in evaluations/ of such runs",
    )
    output: Path | None = Field(
        None, description="folder for the tables (.md, .json, .html); unset only prints them"
    )
    overwrite: bool = Field(False, description="replace the tables in `output` if there are any")
    labels: tuple[str, ...] = Field((), description="names of the runs, in their order; unset are their own")
    baseline: str | None = Field(
        None, description="name of the run that the others are compared with; the first if unset"
    )
    pairing: Literal["auto", "paired", "unpaired"] = Field(
        "auto",
        description="paired compares the clips of the same prompt and seed that every run has, unpaired all "
        "clips as independent samples, auto pairs where it can",
    )
    published: Literal["wan2.2-5b", "wan2.1-1.3b"] | None = Field(
        None,
        description="also show the paper's figures for this base model; for runs in the paper's setting",
    )
    seed: NonNegativeInt = Field(0, description="seed of the bootstrap intervals")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.labels and len(self.labels) != len(self.runs):
            raise ValueError(
                f"labels names {len(self.labels)} runs, but there are {len(self.runs)}; name each"
            )
        twice = sorted({label for label in self.labels if self.labels.count(label) > 1})
        if twice:
            raise ValueError(f"labels names two runs {twice[0]!r}; give different names")
        if self.output is None and self.overwrite:
            raise ValueError("overwrite is on, but without output no file is written; leave it out")
        return self
