"""Which names of metrics `docs/metrics.md` defines."""

import re
from collections.abc import Iterable
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "metrics.md"


def documented() -> set[str]:
    """All that stands in backquotes on the page; <word> in it stands for any word."""
    return {name for line in PAGE.read_text("utf-8").splitlines() for name in re.findall(r"`([^`]+)`", line)}


def undefined(names: Iterable[str]) -> list[str]:
    """Those of the names that the page does not define."""
    patterns = [re.compile(re.sub("<[a-z]+>", "[a-z_]+", re.escape(name))) for name in documented()]
    return [name for name in sorted(names) if not any(pattern.fullmatch(name) for pattern in patterns)]
