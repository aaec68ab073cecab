"""`vggrpo world train-vae`: the family's video autoencoder."""

from vggrpo.cli.recipes import parse_with_recipe
from vggrpo.config import VAESettings


def main(argv: list[str]) -> int:
    """Runs the command; the model's folder is named at the end."""
    settings = parse_with_recipe(VAESettings, "train-vae", argv, command="world train-vae")
    from vggrpo.training.pretrain.vae import train_vae

    print(f"the video autoencoder is in {train_vae(settings)}")
    return 0
