"""`vggrpo train-lgm`: stitches and distils a latent geometry model."""

from vggrpo.cli.plans import show_plan
from vggrpo.cli.recipes import parse_with_recipe
from vggrpo.config import LGMSettings
from vggrpo.config.plan import LGMFlags, run_settings


def main(argv: list[str]) -> int:
    """Runs the command, or prints its plan; the model's folder is named at the end."""
    flags = parse_with_recipe(LGMFlags, "train-lgm", argv)
    settings = run_settings(flags, LGMSettings)
    if flags.dry_run:
        return show_plan(flags, settings)
    from vggrpo.training.lgm import train_lgm

    print(f"the latent geometry model is in {train_lgm(settings)}")
    return 0
