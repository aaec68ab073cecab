"""The file that a benchmark leaves: what was measured, on what machine, from which commit, when."""

import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_result(path: Path, figures: Mapping[str, Any], **circumstances: Any) -> None:
    """Writes and prints the figures, then `circumstances` (threads, versions) and those of the machine."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    result = {
        **figures,
        **circumstances,
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs",
        "load_average": round(os.getloadavg()[0], 1),
        "commit": commit.stdout.strip() or "none",
        "date": time.strftime("%Y-%m-%d"),
    }
    text = json.dumps(result, indent=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")
    print(text)
