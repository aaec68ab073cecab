"""What makes figures of several evaluations differ beside the videos."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from vggrpo.evaluation.evaluated import EvaluatedClips
from vggrpo.evaluation.report.numbers import counted
from vggrpo.evaluation.report.words import join_words


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
    of_runs = [(label, run.summary.get("metric_settings") or {}) for label, run in named]
    for name in sorted({name for _, settings in of_runs for name in settings}):
        ways = _ways([(label, settings[name]) for label, settings in of_runs if name in settings])
        for (ours, our_labels), (theirs, their_labels) in combinations(ways, 2):
            keys = sorted(key for key in {*ours, *theirs} if ours.get(key) != theirs.get(key))
            yield (
                f"{name} was measured with different settings in {_each(our_labels)} and "
                f"{_each(their_labels)} ({', '.join(keys)}): its figures do not compare."
            )


def _ways(
    measured: Sequence[tuple[str, Mapping[str, Any]]],
) -> list[tuple[Mapping[str, Any], list[str]]]:
    """The different settings, each with the labels of the runs that have it."""
    ways: list[tuple[Mapping[str, Any], list[str]]] = []
    for label, settings in measured:
        labels = next((labels for known, labels in ways if known == settings), None)
        if labels is None:
            ways.append((settings, [label]))
        else:
            labels.append(label)
    return ways


def _each(labels: Sequence[str]) -> str:
    return labels[0] if len(labels) == 1 else f"each of {join_words(labels)}"


def _sizes(named: Sequence[tuple[str, EvaluatedClips]]) -> Iterator[str]:
    sizes = {
        label: sorted({f"{clip.width}\u00d7{clip.height}" for clip in run.clips if clip.width})
        for label, run in named
    }
    known = {label: ", ".join(found) for label, found in sizes.items() if found}
    if len(set(known.values())) > 1:
        listed = "; ".join(f"{label} {found}" for label, found in known.items())
        yield f"The videos have different sizes ({listed}): figures in pixels do not compare."
