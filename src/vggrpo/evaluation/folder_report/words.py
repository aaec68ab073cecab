"""The page's sentences. A claim about a change follows from its interval."""

from collections.abc import Sequence

from vggrpo.evaluation.comparison import Comparison
from vggrpo.evaluation.evaluated import KINDS
from vggrpo.evaluation.folder_report.contents import FolderContents
from vggrpo.evaluation.report.numbers import bounds, counted, signed
from vggrpo.evaluation.report.words import join_words

MOTION = ("flow_magnitude", "flow_drift", "change_from_first", "camera_path", "camera_extent")
"""Metrics of how much moves: standing still makes most others better."""


def abstract(contents: FolderContents) -> str:
    """What was evaluated, in one paragraph."""
    own = contents.own
    measured = [clip for clip in own.clips if clip.failure is None]
    prompts = {clip.prompt_id for clip in own.clips if clip.prompt_id is not None}
    words = f"{counted(len(own.clips), 'video')}"
    if prompts:
        words += f" of {counted(len(prompts), 'prompt')}"
    kinds = [f"{len(own.rows(kind)):,} of {kind} scenes" for kind in KINDS if own.rows(kind)]
    if kinds:
        words += f" ({join_words(kinds)})"
    sizes = sorted({(clip.frames, clip.width, clip.height, clip.fps) for clip in measured})
    if len(sizes) == 1:
        frames, width, height, fps = sizes[0]
        words += f", {frames} frames of {width}\u00d7{height} at {fps:.3g} fps"
    elif sizes:
        words += f", of {len(sizes)} different sizes or lengths"
    words += f". {_measured_words(len(measured), len(own.clips))}"
    if contents.reference is not None:
        pairs = len(contents.counterparts())
        words += (
            f" They are compared with {contents.reference_label}: {counted(pairs, 'pair')} of the same "
            "prompt and seed."
        )
    return words


def headline(contents: FolderContents) -> str:
    """How the folder compares with its reference; without one, what the tiles are."""
    if contents.reference is None:
        if not contents.telling(1):
            return "There are no intervals: they take two prompts or more that could be measured."
        return "Means over all clips, with 95 % intervals"
    reference = contents.reference_label
    rows = [row for row in contents.changes() if row.metric.better != "watch"]
    if not rows:
        return f"No metric with a better direction could be compared with {reference}."
    metrics = counted(len(rows), "metric")
    verdicts = [row.verdict for row in rows]
    better, worse = verdicts.count("better"), verdicts.count("worse")
    if better + worse == 0:
        return f"No clear change from {reference} by any of {metrics}."
    if max(better, worse) == len(rows) > 1:
        return f"{'Better' if better else 'Worse'} than {reference} by all {metrics}."
    parts = [(better, "better"), (worse, "worse"), (len(rows) - better - worse, "without a clear change")]
    listed = join_words([f"{count} {words}" for count, words in parts if count])
    return f"Against {reference}, of {metrics}: {listed}."


def warnings(contents: FolderContents) -> list[str]:
    """What a sceptical reader would object, where the results give reason to."""
    found = [str(note)[0].upper() + str(note)[1:] + "." for note in contents.summary.get("notes") or ()]
    failed = len(contents.own.failed)
    if failed:
        found.insert(
            0,
            f"{failed:,} of {counted(len(contents.own.clips), 'clip')} could not be measured and enter no "
            "figure; the reasons are below.",
        )
    changes = contents.changes()
    still = [row for row in changes if row.metric.name in MOTION and row.verdict == "lower"]
    if still and any(row.verdict == "better" for row in changes):
        found.append(
            f"Less moves than in the reference ({_listed(still)}): part of what is better may come from "
            "moving less."
        )
    return found


def _measured_words(measured: int, total: int) -> str:
    if measured == total:
        return "All could be measured." if total > 1 else "It could be measured."
    return f"{measured:,} could be measured, {total - measured:,} failed."


def _listed(rows: Sequence[Comparison]) -> str:
    return "; ".join(
        f"{row.metric.label}: {signed(row.change.mean, row.metric.decimals)} "
        f"{bounds(row.change, row.metric.decimals)}"
        for row in rows
    )
