"""Tiny models, and trainers of them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_lgm import save_geometry_model

from tiny_trainer import tiny_trainer
from vggrpo.rewards import SceneReward
from vggrpo.training.trainer import VGGRPOTrainer

MakeTrainer = Callable[..., VGGRPOTrainer]


@pytest.fixture(scope="session")
def lgm_models(tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the models that `tiny_lgm.lgm_settings` stitches: "pipeline" and "geometry"."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "pipeline").symlink_to(tiny_pipeline)
    save_geometry_model(folder / "geometry")
    return folder


@pytest.fixture
def make_trainer(tiny_pipeline: Path, tmp_path: Path) -> MakeTrainer:
    """`tiny_trainer` of `tiny_pipeline`, its run in a folder of the test's own."""

    def make(
        reward: SceneReward | None = None, name: str = "run", *, resume: bool = False, **changes: object
    ) -> VGGRPOTrainer:
        return tiny_trainer(tiny_pipeline, tmp_path / name, reward, resume, **changes)

    return make
