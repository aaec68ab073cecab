"""One self-contained HTML page about a run: videos, figures with intervals, curves, costs, settings."""

from vggrpo.evaluation.report.clipping import Clipping, ClippingSpan
from vggrpo.evaluation.report.data import (
    Curve,
    Figure,
    LayerSearchData,
    ReportData,
    RunFacts,
    Stage,
    VideoPair,
    fidelity_figures,
    video_pair,
)
from vggrpo.evaluation.report.page import render_report, write_report
from vggrpo.evaluation.report.sections import SECTIONS

__all__ = [
    "SECTIONS",
    "Clipping",
    "ClippingSpan",
    "Curve",
    "Figure",
    "LayerSearchData",
    "ReportData",
    "RunFacts",
    "Stage",
    "VideoPair",
    "fidelity_figures",
    "render_report",
    "video_pair",
    "write_report",
]
