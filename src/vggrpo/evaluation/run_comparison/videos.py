"""The same prompts and seeds by every run, beside each other."""

import random

from vggrpo.config.errors import CorruptFileError
from vggrpo.evaluation.evaluated import EvaluatedClip
from vggrpo.evaluation.report.markup import Markup, element
from vggrpo.evaluation.report.player import player, video_tag
from vggrpo.evaluation.report.shown import (
    MOST_FRAMES,
    beside_each_other,
    common_fps,
    shown_frames,
    with_size,
)
from vggrpo.evaluation.run_comparison.table import RunComparison

DRAWN = 4


def videos_section(comparison: RunComparison, seed: int = 0) -> Markup | None:
    """Clips drawn at random from those of which every run still has the video; None if there are none, or
    the runs are no pairs.
    """
    shown = _drawn(comparison, seed)
    if not shown:
        return None
    clips = [clip for row in shown for clip in row]
    fps = common_fps(clips)
    length = min(MOST_FRAMES, max(shown_frames(clip, fps) for clip in clips))
    words = (
        "Drawn at random from the prompts and seeds of which every run still has the video, not chosen by "
        "any figure. All videos run on one clock."
    )
    cards = [_card(comparison, row, fps, length) for row in shown]
    return player(element("p", words, class_="lead"), *cards, fps=fps, length=length)


def _drawn(comparison: RunComparison, seed: int) -> list[list[EvaluatedClip]]:
    """A few rows of clips, one of each run."""
    if not comparison.pairing.is_paired:
        return []
    rows = [
        [run.clips[place] for run, place in zip(comparison.runs, places, strict=True)]
        for places in zip(*comparison.pairing.places, strict=True)
    ]
    random.Random(seed).shuffle(rows)
    found: list[list[EvaluatedClip]] = []
    for row in rows:
        if len(found) == DRAWN:
            break
        if any(clip.failure or clip.path is None or not clip.path.is_file() for clip in row):
            continue
        try:
            found.append([with_size(clip) for clip in row])
        except (CorruptFileError, OSError):
            continue
    return found


def _card(comparison: RunComparison, clips: list[EvaluatedClip], fps: float, length: int) -> Markup:
    try:
        uri = beside_each_other(clips, fps, length)
    except (CorruptFileError, OSError) as error:
        video = element("div", f"No video: {error}", class_="no-video")
    else:
        badges = [
            element("span", label, class_="badge", style=f"left: calc({100 * place / len(clips):.2f}% + 8px)")
            for place, label in enumerate(comparison.labels)
        ]
        video = element(
            "div", video_tag(uri, clips[0].prompt or clips[0].name), *badges, class_="pair single"
        )
    caption = element(
        "figcaption",
        element("span", clips[0].kind, class_="kind") if clips[0].kind else None,
        element("span", clips[0].prompt or clips[0].name, class_="prompt"),
    )
    return element("figure", video, caption, class_="card row")
