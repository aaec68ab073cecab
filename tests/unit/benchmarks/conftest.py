"""The benchmarks' modules, which are scripts and no package."""

import sys
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS / "micro"))
sys.path.append(str(BENCHMARKS))
