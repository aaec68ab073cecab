"""Fixtures that several packages' tests share."""

from pathlib import Path

import pytest

from tiny_pipeline import save_tiny_pipeline


@pytest.fixture(scope="session")
def tiny_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `save_tiny_pipeline`; read-only: copy it to change it."""
    return save_tiny_pipeline(tmp_path_factory.mktemp("tiny") / "pipeline")
