"""`vggrpo world train-geometry`: the family's geometry model."""

from vggrpo.cli.recipes import parse_with_recipe
from vggrpo.config import GeometrySettings


def main(argv: list[str]) -> int:
    """Runs the command; the model's folder is named at the end."""
    settings = parse_with_recipe(GeometrySettings, "train-geometry", argv, command="world train-geometry")
    from vggrpo.training.pretrain.geometry import train_geometry

    print(f"the geometry model is in {train_geometry(settings)}")
    return 0
