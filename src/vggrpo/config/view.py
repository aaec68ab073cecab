"""Settings of `vggrpo view`."""

from pathlib import Path
from typing import Annotated, Self

import tyro
from pydantic import Field, model_validator

from vggrpo.config.base import Settings

DEFAULT_PORT = 8080


class ViewSettings(Settings):
    """Shows a 4D scene, or two beside each other, in a browser.

    Serves them on this machine only, or writes one HTML file that plays without a server (--export).
    """

    scenes: Annotated[tuple[Path, ...], tyro.conf.Positional] = Field(
        min_length=1,
        max_length=2,
        description="scene files of `vggrpo reconstruct`; of two, before and after",
    )
    export: Path | None = Field(None, description="write this .html file instead of serving")
    overwrite: bool = Field(False, description="replace the file of `export` if it exists")
    labels: tuple[str, ...] = Field(
        (),
        description="names of the scenes; unset are those in the files, or what differs in the files' paths "
        "if two have one name",
    )
    port: int | None = Field(
        None, ge=1, le=65535, description=f"port on 127.0.0.1 to serve on; unset is {DEFAULT_PORT}"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.labels and len(self.labels) != len(self.scenes):
            raise ValueError(
                f"labels names {len(self.labels)} scenes, but there are {len(self.scenes)}; name each"
            )
        if self.export is not None and self.export.suffix != ".html":
            raise ValueError(f"export is {self.export}, but the page's name should end in .html")
        if self.export is not None and self.port is not None:
            raise ValueError(f"port is {self.port}, but an exported page is not served; leave port out")
        if self.export is None and self.overwrite:
            raise ValueError("overwrite is on, but without export no file is written; leave it out")
        return self
