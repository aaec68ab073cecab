"""Settings of `vggrpo demo`."""

from pathlib import Path

from pydantic import Field, NonNegativeInt

from vggrpo.config.base import Settings


class DemoSettings(Settings):
    """Runs the whole method: layer search, latent geometry model, VGGRPO, held-out evaluation, report."""

    output: Path = Field(Path("runs/demo"), description="folder of the demo's runs and its report.html")
    resume: bool = Field(False, description="continue an interrupted demo; finished stages are not repeated")
    find_layer: str = Field("micro/find-layer", description="recipe of the layer search")
    train_lgm: str = Field("micro/train-lgm-demo", description="recipe of the latent geometry model")
    train: str = Field("micro/train", description="recipe of the post-training")
    seed: NonNegativeInt = Field(0, description="seed of every stage")
    threads: NonNegativeInt = Field(0, description="CPU threads; 0 leaves PyTorch's choice")
