"""VBench's dimensions, measured by VBench itself in an environment of its own."""

from vggrpo.evaluation.vbench.environment import COMMAND, DIMENSIONS, VBenchState, setup_vbench, vbench_state
from vggrpo.evaluation.vbench.metric import VBenchMetric, metric_name, open_vbench

__all__ = [
    "COMMAND",
    "DIMENSIONS",
    "VBenchMetric",
    "VBenchState",
    "metric_name",
    "open_vbench",
    "setup_vbench",
    "vbench_state",
]
