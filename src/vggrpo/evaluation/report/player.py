"""Videos under one play control and one timeline; the page's script keeps them in step."""

from vggrpo.evaluation.report.markup import Markup, element

RATES = (("0.25", "\u00bc\u00d7"), ("0.5", "\u00bd\u00d7"), ("1", "1\u00d7"), ("2", "2\u00d7"))


def player(lead: Markup, *content: Markup, fps: float, length: int) -> Markup:
    """A lead, the controls, and content whose `video_tag`s they drive; without a video there are no controls.
    A page has one player.

    Args:
        lead: stands above the controls.
        content: any markup.
        fps: frames per second of every video.
        length: frames of every video.
    """
    if not any("<video" in part for part in content):
        return element("div", lead, *content)
    controls = element(
        "div",
        element("button", "Play", id="play", type="button"),
        element(
            "input",
            id="timeline",
            type="range",
            min="0",
            max=str(length - 1),
            step="1",
            value="0",
            aria_label="Frame",
        ),
        element("output", "", id="clock"),
        element(
            "select",
            *(element("option", text, value=rate, selected=rate == "1") for rate, text in RATES),
            id="rate",
            aria_label="Playback speed",
        ),
        class_="controls",
    )
    return element("div", lead, controls, *content, id="player", data_fps=f"{fps:g}", data_frames=str(length))


def video_tag(uri: str, label: str) -> Markup:
    """A silent video that waits for the player; `label` is what a screen reader says."""
    return element(
        "video", src=uri, muted=True, loop=True, playsinline=True, preload="auto", aria_label=label
    )
