"""`vggrpo compare`."""

import shlex
from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Runs the command; prints the markdown."""
    import tyro

    from vggrpo.config import CompareSettings, ConfigError
    from vggrpo.config.compare import JSON_NAME, MARKDOWN_NAME, PAGE_NAME

    settings = tyro.cli(CompareSettings, prog="vggrpo compare", args=list(argv))
    names = (MARKDOWN_NAME, JSON_NAME, PAGE_NAME)
    if settings.output is not None and not settings.overwrite:
        for name in names:
            if (settings.output / name).exists():
                raise ConfigError(f"{settings.output / name} exists; choose another --output, or --overwrite")

    from datetime import UTC, datetime

    from vggrpo.evaluation.evaluated import distinct_labels, read_evaluation
    from vggrpo.evaluation.run_comparison import (
        compare_runs,
        comparison_json,
        comparison_markdown,
        comparison_page,
        published_figures,
    )
    from vggrpo.io import write_json, write_text

    runs = [read_evaluation(path) for path in settings.runs]
    labels = settings.labels or distinct_labels(runs)
    baseline = settings.baseline or labels[0]
    if baseline not in labels:
        raise ConfigError(f"baseline is {baseline!r}; the runs are called {', '.join(labels)}")
    comparison = compare_runs(runs, labels, labels.index(baseline), settings.pairing, settings.seed)
    published = published_figures(settings.published) if settings.published else ()
    text = comparison_markdown(comparison, published)
    print(text)
    if settings.output is not None:
        command = shlex.join(["vggrpo", "compare", *argv])
        created = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        write_text(settings.output / MARKDOWN_NAME, text)
        write_json(settings.output / JSON_NAME, comparison_json(comparison, command, published))
        write_text(settings.output / PAGE_NAME, comparison_page(comparison, command, created, published))
        print(f"the tables are in {settings.output} ({', '.join(names)})")
    return 0
