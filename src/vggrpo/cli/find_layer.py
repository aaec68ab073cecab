"""`vggrpo find-layer`: where to enter a geometry model from video latents."""

from vggrpo.cli.recipes import parse_with_recipe
from vggrpo.config import FindLayerSettings


def main(argv: list[str]) -> int:
    """Runs the command and prints the table."""
    settings = parse_with_recipe(FindLayerSettings, "find-layer", argv)
    from vggrpo.lgm import layer_table
    from vggrpo.training.lgm import search_layer

    search, folder = search_layer(settings)
    print(layer_table(search))
    print(f"table and plot are in {folder}")
    return 0
