"""`vggrpo demo`: the whole method on the micro family."""

import shlex

from vggrpo.config import DemoSettings


def main(argv: list[str]) -> int:
    """Runs the demo and says where its report is."""
    import tyro

    settings = tyro.cli(DemoSettings, prog="vggrpo demo", args=argv)
    from vggrpo.training.demo import run_demo

    report = run_demo(settings, shlex.join(["vggrpo", "demo", *argv]))
    print(f"the report is {report.resolve()}")
    return 0
