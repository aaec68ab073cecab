"""`vggrpo world evaluate`: the base models of a family against the world's exact geometry."""

from vggrpo.cli.recipes import parse_with_recipe
from vggrpo.config import WorldEvaluateSettings


def main(argv: list[str]) -> int:
    """Runs the command and prints the figures."""
    settings = parse_with_recipe(WorldEvaluateSettings, "evaluate", argv, command="world evaluate")
    from vggrpo.training.pretrain.evaluate import evaluate_world

    table, cards = evaluate_world(settings)
    print(table)
    print(
        f"figures and contact sheet are in {settings.output}, model cards in {' and '.join(map(str, cards))}"
    )
    return 0
