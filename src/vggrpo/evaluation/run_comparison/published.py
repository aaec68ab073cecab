"""What the paper published, for a reader to hold measured figures against."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources

import yaml


@dataclass(frozen=True)
class PublishedFigure:
    """One published number."""

    setting: str
    """The base model, by its name here: "wan2.2-5b", "wan2.1-1.3b"."""
    method: str
    measure: str
    """What it measures, in words."""
    metric: str | None
    """The metric here that it may stand beside; None if there is none that measures the same."""
    value: float
    decimals: int
    source: str
    doubt: str = ""
    """Why the number may not be what its label says."""


def published_figures(setting: str) -> tuple[PublishedFigure, ...]:
    """All that is known to be published for a base model, in the order of the paper.

    Raises:
        ValueError: if nothing is.
    """
    figures = tuple(figure for figure in _all() if figure.setting == setting)
    if not figures:
        known = ", ".join(dict.fromkeys(figure.setting for figure in _all()))
        raise ValueError(f"setting is {setting!r}; there are published figures of {known}")
    return figures


def published_beside(figures: Iterable[PublishedFigure], metric: str) -> dict[str, PublishedFigure]:
    """Those that may stand beside a metric, by method."""
    return {figure.method: figure for figure in figures if figure.metric == metric}


@lru_cache(maxsize=1)
def _all() -> tuple[PublishedFigure, ...]:
    file = resources.files("vggrpo.evaluation.run_comparison").joinpath("published.yaml")
    content = yaml.safe_load(file.read_text("utf-8"))
    rows = []
    for table in content["tables"]:
        measures = {measure["name"]: measure for measure in table["measures"]}
        for row in table["rows"]:
            for name, value in row["values"].items():
                measure = measures[name]
                rows.append(
                    PublishedFigure(
                        table["setting"],
                        row["method"],
                        name,
                        measure.get("metric"),
                        float(value),
                        measure["decimals"],
                        row["source"],
                        measure.get("doubt", ""),
                    )
                )
    return tuple(rows)
