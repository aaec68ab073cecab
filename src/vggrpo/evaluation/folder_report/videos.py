"""The page's videos: chosen clips, beside their counterparts where there are any, under one player."""

from collections.abc import Sequence

from vggrpo.config.errors import CorruptFileError
from vggrpo.evaluation.catalogue import Metric
from vggrpo.evaluation.evaluated import EvaluatedClip
from vggrpo.evaluation.folder_report.cases import Case, Cases, choose_cases
from vggrpo.evaluation.folder_report.contents import FolderContents
from vggrpo.evaluation.report.figures import metric_label
from vggrpo.evaluation.report.markup import Markup, element
from vggrpo.evaluation.report.numbers import number
from vggrpo.evaluation.report.player import player, video_tag
from vggrpo.evaluation.report.shown import MOST_FRAMES, beside_each_other, common_fps, shown_frames
from vggrpo.evaluation.report.words import join_words

MOST_BYTES = 40_000_000
"""Of all videos of a page as text; those that do not fit are named in place of shown."""
FIGURES_SHOWN = 5
"""Metrics beneath a clip."""


def videos_section(contents: FolderContents) -> Markup | None:
    """Clips drawn at random, then the best and the worst, all on one clock; None if there is none to show."""
    cases = choose_cases(contents)
    if not cases.all:
        return None
    clips = [clip for case in cases.all for clip in _clips(contents, case)]
    fps = common_fps(clips)
    length = min(MOST_FRAMES, max(shown_frames(clip, fps) for clip in clips))
    gallery = _Gallery(contents, contents.telling(FIGURES_SHOWN), fps, length)
    parts = []
    for name, title, words, members in _groups(contents, cases):
        if members:
            parts += [element("h3", title, id=name), element("p", words, class_="lead")]
            parts.append(element("div", *(gallery.card(case) for case in members), class_="wall"))
    lead = _lead(contents, clips, fps, length)
    return player(element("p", lead, class_="lead"), *parts, fps=fps, length=length)


def _groups(contents: FolderContents, cases: Cases) -> list[tuple[str, str, str, Sequence[Case]]]:
    """(id, title, words, cases) of each group."""
    ranked = join_words([metric.label for metric in cases.ranked_by])
    if contents.reference is None:
        titles = ("Best cases", "Worst cases")
        words = [f"The clips with the {side} value of: {ranked}." for side in ("best", "worst")]
    else:
        titles = ("Best against the reference", "Worst against the reference")
        words = [
            f"The clips that {side} their counterparts by: {ranked}."
            for side in ("gained most on", "gained least on, or lost most to,")
        ]
    once = " Those that are shown above are not repeated."
    return [
        ("drawn", "Drawn at random", "To judge the folder by: not chosen by any figure.", cases.drawn),
        ("best", titles[0], words[0] + once, cases.best),
        ("worst", titles[1], words[1] + once, cases.worst),
    ]


def _lead(contents: FolderContents, clips: Sequence[EvaluatedClip], fps: float, length: int) -> str:
    words = "All videos run on one clock."
    if contents.reference is not None:
        sides = f"Left is {contents.reference_label}, right is {contents.own.label}"
        words += f" {sides}, from the same prompt and seed."
    cut = [clip for clip in clips if shown_frames(clip, fps) > length]
    if cut:
        words += f" Of clips longer than {length / fps:.3g} s only the beginning is shown."
    if len({clip.fps for clip in clips}) > 1 or fps not in {clip.fps for clip in clips}:
        words += f" They are shown at {fps:.3g} frames per second and run at their own speed."
    return words


class _Gallery:
    """Makes the cards, and stops embedding videos once the page is heavy enough."""

    def __init__(self, contents: FolderContents, figures: Sequence[Metric], fps: float, length: int) -> None:
        self.contents, self.figures, self.fps, self.length = contents, figures, fps, length
        self.bytes_left = MOST_BYTES

    def card(self, case: Case) -> Markup:
        """A clip, or a pair, with what it was chosen for, its prompt and its figures."""
        clip, *_ = clips = _clips(self.contents, case)
        caption = element(
            "figcaption",
            element("span", clip.kind, class_="kind") if clip.kind else None,
            *(element("span", reason, class_="why") for reason in case.reasons),
            element("span", clip.prompt or clip.name, class_="prompt"),
            element("span", clip.name, class_="file") if clip.prompt else None,
        )
        beneath = element("div", element("table", *self._rows(case), class_="small"), class_="beneath")
        return element("figure", self._video(clips), caption, beneath, class_="card")

    def _video(self, clips: Sequence[EvaluatedClip]) -> Markup:
        # The reference stands at the left, as in the tables.
        clips = clips[::-1]
        try:
            uri = beside_each_other(clips, self.fps, self.length)
        except (CorruptFileError, OSError) as error:
            return element("div", f"No video: {error}", class_="no-video")
        if len(uri) > self.bytes_left:
            words = f"Not embedded, to keep this file below {MOST_BYTES / 1e6:.0f} MB: {clips[-1].path}"
            return element("div", words, class_="no-video")
        self.bytes_left -= len(uri)
        video = video_tag(uri, clips[-1].prompt or clips[-1].name)
        if len(clips) == 1:
            return element("div", video, class_="pair single")
        labels = (self.contents.reference_label, self.contents.own.label)
        badges = [
            element("span", label, class_=f"badge {side}")
            for label, side in zip(labels, ("before", "after"), strict=True)
        ]
        return element("div", video, *badges, class_="pair")

    def _rows(self, case: Case) -> list[Markup]:
        rows = []
        for metric in self.figures:
            value = number(self.contents.own.values[metric.name][case.place], metric.decimals)
            cells = [element("td", value, class_="num")]
            if case.counterpart is not None and self.contents.reference is not None:
                before = self.contents.reference.values[metric.name][case.counterpart]
                text = number(before, metric.decimals)
                cells = [element("td", text, class_="num"), element("td", "\u2192", class_="to"), *cells]
            rows.append(element("tr", element("th", metric_label(metric), scope="row"), *cells))
        return rows


def _clips(contents: FolderContents, case: Case) -> list[EvaluatedClip]:
    clips = [contents.own.clips[case.place]]
    if case.counterpart is not None and contents.reference is not None:
        clips.append(contents.reference.clips[case.counterpart])
    return clips
