"""What makes figures of several evaluations differ beside the videos."""

from collections.abc import Iterator, Sequence

from vggrpo.evaluation.evaluated import EvaluatedClips
from vggrpo.evaluation.report.numbers import counted


def comparability_notes(runs: Sequence[EvaluatedClips], labels: Sequence[str]) -> tuple[str, ...]:
    """A sentence for everything that a reader must know: failures, settings or sizes that differ."""
    named = list(zip(labels, runs, strict=True))
    return (*_failures(named), *_settings(named), *_sizes(named))


def _failures(named: Sequence[tuple[str, EvaluatedClips]]) -> Iterator[str]:
    for label, run in named:
        if run.failed:
            yield (
                f"{len(run.failed):,} of the {counted(len(run.clips), 'clip')} of {label} could not be "
                "measured and enter no figure."
            )


def _settings(named: Sequence[tuple[str, EvaluatedClips]]) -> Iterator[str]:
    """Metrics that were computed in different ways: the same name then means different quantities."""
    first_label, first = named[0]
    first_settings = first.summary.get("metric_settings") or {}
    for label, run in named[1:]:
        settings = run.summary.get("metric_settings") or {}
        for name in sorted(first_settings.keys() & settings.keys()):
            ours, theirs = first_settings[name], settings[name]
            if ours == theirs:
                continue
            keys = sorted(key for key in {*ours, *theirs} if ours.get(key) != theirs.get(key))
            yield (
                f"{name} was measured with different settings in {first_label} and {label} "
                f"({', '.join(keys)}): its figures do not compare."
            )


def _sizes(named: Sequence[tuple[str, EvaluatedClips]]) -> Iterator[str]:
    sizes = {
        label: sorted({f"{clip.width}\u00d7{clip.height}" for clip in run.clips if clip.width})
        for label, run in named
    }
    known = {label: ", ".join(found) for label, found in sizes.items() if found}
    if len(set(known.values())) > 1:
        listed = "; ".join(f"{label} {found}" for label, found in known.items())
        yield f"The videos have different sizes ({listed}): figures in pixels do not compare."
