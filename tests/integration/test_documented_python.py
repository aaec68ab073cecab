"""The Python of the documentation, run as it stands: the blocks of a page one after the other."""

import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
GIVEN = {"README.md": {"latents": torch.randn(1, 16, 5, 12, 16)}}
"""Names that a page's text introduces."""


@pytest.mark.parametrize("page", ["README.md", "docs/guidance.md", "docs/python_api.md"])
def test_the_blocks_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / page).read_text("utf-8")
    blocks = list(BLOCK.finditer(text))
    assert blocks
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = dict(GIVEN.get(page, {}))
    for block in blocks:
        # The lines keep their numbers, so that a traceback points into the page.
        lines = text.count("\n", 0, block.start(1))
        exec(compile("\n" * lines + block.group(1), str(ROOT / page), "exec"), names)
