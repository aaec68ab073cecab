"""`vggrpo generate`."""

from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Runs the command."""
    from vggrpo.cli.recipes import parse_with_recipe
    from vggrpo.config import GenerateSettings

    settings = parse_with_recipe(GenerateSettings, "generate", argv)
    from vggrpo.training.generate import generate

    done = generate(settings)
    print(f"{done.made} videos made, {done.kept} were there already: {settings.output}")
    return 0
