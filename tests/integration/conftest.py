"""One small run of every stage on the micro family, by command; later stages use earlier ones."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from commands import Outcome, vggrpo

CLIPS = ("--fit-clips", "4", "--held-out-clips", "2", "--downstream-clips", "0", "--batch-size", "2")
LGM = (
    *("--stitch-point", "E1", "--real-clips", "2", "--generated-clips", "3", "--num-prompts", "3"),
    *("--infer-steps", "2", "--epochs", "2", "--warmup-steps", "1", "--lora-rank", "2"),
    *("--gate-clips", "3", "--noise-clips", "2"),
    *("--evaluate-every", "3", "--checkpoint-every", "2"),
)
TRAIN = (
    *(
        "--num-prompts",
        "3",
        "--num-evaluation-prompts",
        "1",
        "--group-size",
        "4",
        "--prompts-per-rollout",
        "1",
    ),
    *("--iterations", "3", "--updates-per-rollout", "2", "--train-steps", "3", "--infer-steps", "2"),
    *("--sde-window-start", "0", "--sde-window-stop", "None", "--sde-window-moves", "never"),
    *("--noise-scale", "0.3"),
    *("--sde-window-length", "all", "--no-shared-noise", "--ode-solver", "euler", "--ode-stride", "1"),
    *("--rollout-batch", "2", "--update-batch", "2", "--eval-every", "2", "--checkpoint-every", "1"),
    *("--lora-rank", "4", "--lora-alpha", "8", "--lr", "1e-3", "--threads", "1", "--lgm-floor", "0"),
)


@dataclass(frozen=True)
class Pipeline:
    """The folders of the stages' runs, what each command answered, and the flags that made them."""

    folder: Path
    find_layer: Outcome
    train_lgm: Outcome
    train: Outcome

    @property
    def clips(self) -> tuple[object, ...]:
        return (*CLIPS, "--clip-cache", self.folder / "clips")

    @property
    def lgm_flags(self) -> tuple[object, ...]:
        return (*self.clips, *LGM)

    @property
    def train_flags(self) -> tuple[object, ...]:
        return ("--lgm-path", self.folder / "lgm" / "model", *TRAIN)


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """The stages, done."""
    folder = tmp_path_factory.mktemp("pipeline")
    clips = (*CLIPS, "--clip-cache", folder / "clips")
    return Pipeline(
        folder,
        vggrpo("find-layer", "--output", folder / "layers", *clips, "--candidates", "E0", "E1"),
        vggrpo("train-lgm", "--output", folder / "lgm", *clips, *LGM),
        vggrpo("train", "--output", folder / "train", "--lgm-path", folder / "lgm" / "model", *TRAIN),
    )
