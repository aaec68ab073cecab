"""`vggrpo train-lgm`: stitches and distils a latent geometry model."""

from vggrpo.cli.recipes import parse_with_recipe
from vggrpo.config import LGMSettings


def main(argv: list[str]) -> int:
    """Runs the command; the model's folder is named at the end."""
    settings = parse_with_recipe(LGMSettings, "train-lgm", argv)
    from vggrpo.training.lgm import train_lgm

    print(f"the latent geometry model is in {train_lgm(settings)}")
    return 0
