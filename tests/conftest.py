"""Tests run offline, on one thread, and from the same random state whatever ran before them."""

import os

# Before torch is imported anywhere, and inherited by the commands that tests start.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = os.environ.get("VGGRPO_TEST_THREADS", "1")

import random
import sys

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _same_random_state() -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 (third-party code draws from the global state)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips the tests that need a GPU where there is none."""
    needing = [item for item in items if item.get_closest_marker("gpu")]
    if not needing:
        return
    import torch

    if not torch.cuda.is_available():
        for item in needing:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
