"""The 4D scenes of some pairs of videos, playable in the page."""

from vggrpo.evaluation.report.data import ReportData
from vggrpo.evaluation.report.markup import Markup, element, join
from vggrpo.viewer import scene_fragment, scene_script


def scenes(data: ReportData) -> Markup | None:
    """Pairs of scenes, each under one clock and one camera."""
    if not data.scenes:
        return None
    lead = element(
        "p",
        "What the uncut geometry model sees in the videos, before on the left and after on the right. Both "
        "run on one clock, and a drag turns both; click, and the wheel zooms. The camera's path and the "
        "timeline are coloured by its acceleration. \u201cError\u201d shows where the views contradict each "
        "other, \u201cAll views\u201d every view's static points at once: where the geometry is consistent, "
        "they lie on each other.",
        class_="lead",
    )
    # The code comes after the elements, which it looks for.
    shown = [Markup(scene_fragment(pair)) for pair in data.scenes]
    return join(lead, *shown, element("script", Markup(scene_script())))
