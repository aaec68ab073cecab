"""Several evaluations beside each other: `vggrpo compare`."""

from vggrpo.evaluation.run_comparison.as_json import comparison_json
from vggrpo.evaluation.run_comparison.markdown import comparison_markdown
from vggrpo.evaluation.run_comparison.page import comparison_page
from vggrpo.evaluation.run_comparison.published import PublishedFigure, published_figures
from vggrpo.evaluation.run_comparison.table import Cell, MetricRow, RunComparison, compare_runs

__all__ = [
    "Cell",
    "MetricRow",
    "PublishedFigure",
    "RunComparison",
    "compare_runs",
    "comparison_json",
    "comparison_markdown",
    "comparison_page",
    "published_figures",
]
