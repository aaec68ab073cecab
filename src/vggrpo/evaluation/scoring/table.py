"""The scores of clips on the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from vggrpo.config.score import Space
from vggrpo.evaluation.scoring.record import SOURCE_OF_SPACE
from vggrpo.evaluation.videos.results import Record

DECIMALS = 3


def score_table(records: Sequence[Record], summary: Mapping[str, Any], space: Space) -> Table:
    """A line a clip with the rewards and their parts, the mean of all below; failed clips say why."""
    source = SOURCE_OF_SPACE[space]
    columns = {
        f"{source}/camera_motion": "camera motion",
        "camera_motion/e_trans": "e_trans",
        "camera_motion/e_rot": "e_rot",
        f"{source}/reprojection": "reprojection",
        "reprojection/reprojection_error": "error",
        "reprojection/valid_view_share": "valid views",
        "reprojection/static_share": "static",
    }
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("clip")
    for heading in columns.values():
        table.add_column(heading, justify="right")
    table.add_column("worst views: e_i")
    for record in records:
        if record["status"] == "failed":
            table.add_row(escape(record["clip"]), *["-"] * len(columns), "failed")
        else:
            cells = [_cell(record["metrics"][name]) for name in columns]
            table.add_row(escape(record["clip"]), *cells, _worst(record))
    if len(records) > 1:
        means = [_cell(summary["metrics"][name]["all"]["mean"]) for name in columns]
        table.add_section()
        table.add_row("mean", *means, "")
    return table


def _worst(record: Record) -> str:
    """The three views of largest error with it, as "frame 8: 0.031"."""
    views = record["views"]
    errors = [
        (error, frame)
        for frame, error in zip(views["frames"], views.get("error", ()), strict=False)
        if error is not None
    ]
    return ", ".join(f"frame {frame}: {error:.3f}" for error, frame in sorted(errors, reverse=True)[:3])


def _cell(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.{DECIMALS}f}"
