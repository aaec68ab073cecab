"""A comparison as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from vggrpo.evaluation.run_comparison.published import PublishedFigure
from vggrpo.evaluation.run_comparison.table import Cell, RunComparison


def comparison_json(
    comparison: RunComparison, command: str, published: Sequence[PublishedFigure] = ()
) -> dict[str, Any]:
    """Everything that the tables show, for other programs; what is not a number is null."""
    return {
        "command": command,
        "baseline": comparison.labels[comparison.baseline],
        "paired": comparison.pairing.is_paired,
        "runs": [
            {
                "label": label,
                "path": str(run.source.absolute()),
                "num_clips": len(run.clips),
                "num_failed": len(run.failed),
                "num_compared": len(places),
            }
            for label, run, places in zip(
                comparison.labels, comparison.runs, comparison.pairing.places, strict=True
            )
        ],
        "metrics": [
            {
                "metric": row.metric.name,
                "better": row.metric.better,
                "subset": row.subset,
                "runs": {
                    label: None if cell is None else _cell(cell)
                    for label, cell in zip(comparison.labels, row.cells, strict=True)
                },
            }
            for row in comparison.rows
        ],
        "notes": list(comparison.notes),
        "published": [asdict(figure) for figure in published],
    }


def _cell(cell: Cell) -> dict[str, Any]:
    return {
        "mean": cell.mean.as_json(),
        "difference": None if cell.change is None else cell.change.change.as_json(),
        "verdict": cell.verdict,
        "rank": cell.rank,
    }
