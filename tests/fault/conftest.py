"""Commands in this process, and a latent geometry model that nobody trained."""

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tiny_pipeline import save_tiny_pipeline
from tiny_trainer import tiny_trainer
from vggrpo.backbones import load_geometry_backbone, load_video_backbone
from vggrpo.cli.main import main
from vggrpo.lgm import Connector, LatentGeometryModel
from vggrpo.rewards import SceneReward
from vggrpo.training.trainer import VGGRPOTrainer


@dataclass(frozen=True)
class Outcome:
    """What a command answered."""

    status: int
    out: str
    err: str

    def is_a_sentence(self, status: int, *parts: str) -> None:
        """Asserts the exit status, the parts of the message, and that no trace is shown."""
        assert self.status == status, self.err
        assert "error: " in self.err
        assert "Traceback" not in self.err
        for part in parts:
            assert part in self.err


Vggrpo = Callable[..., Outcome]


@pytest.fixture
def vggrpo() -> Vggrpo:
    def run(*words: object) -> Outcome:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main([str(word) for word in words])
        return Outcome(status, out.getvalue(), err.getvalue())

    return run


@pytest.fixture(scope="session")
def lgm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a latent geometry model of the micro family with an empty connector."""
    spec, geometry = load_video_backbone("micro").latent_spec, load_geometry_backbone("micro")
    point = geometry.stitch_point("E1")
    connector = Connector(spec.channels, point.width, (6, 8), point.num_special_tokens)
    folder = tmp_path_factory.mktemp("lgm") / "model"
    LatentGeometryModel(geometry, connector, "E1", spec, "micro", "micro").save_pretrained(folder)
    return folder


@pytest.fixture
def train(lgm: Path, tmp_path: Path) -> tuple[object, ...]:
    """A small `vggrpo train` into `tmp_path / "run"`."""
    return (
        *("train", "--output", tmp_path / "run", "--lgm-path", lgm, "--num-prompts", 2),
        *("--lgm-floor", 0),
        *("--num-evaluation-prompts", 1, "--group-size", 2, "--prompts-per-rollout", 1, "--iterations", 2),
        *("--updates-per-rollout", 1, "--train-steps", 2, "--infer-steps", 1, "--sde-window-length", "all"),
        *("--sde-window-start", 0, "--sde-window-stop", "None", "--sde-window-moves", "never"),
        *("--off-window-sigma", 1, "--noise-scale", 0.3),
        *("--no-shared-noise", "--ode-solver", "euler", "--ode-stride", 1),
        *("--checkpoint-every", 1, "--eval-every", 2, "--threads", 1, "--precision", "float32"),
    )


@pytest.fixture(scope="session")
def tiny_pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `save_tiny_pipeline`; read-only."""
    return save_tiny_pipeline(tmp_path_factory.mktemp("tiny") / "pipeline")


@pytest.fixture
def make_trainer(tiny_pipeline: Path, tmp_path: Path) -> Callable[..., VGGRPOTrainer]:
    """`tiny_trainer` of `tiny_pipeline`, its run in a folder of the test's own."""

    def make(
        reward: SceneReward | None = None, name: str = "run", *, resume: bool = False, **changes: object
    ) -> VGGRPOTrainer:
        return tiny_trainer(tiny_pipeline, tmp_path / name, reward, resume, **changes)

    return make
