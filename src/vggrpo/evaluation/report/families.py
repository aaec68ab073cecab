"""Metrics over video files under common headings."""

from collections.abc import Iterable, Iterator

from vggrpo.evaluation.catalogue import Metric

FAMILIES = (
    ("Epipolar geometry of the picture", ("epipolar_",)),
    ("Scene by a geometry model", ("camera_", "reprojection_error", "mvcs")),
    ("Rewards by the uncut geometry model", ("teacher/",)),
    ("Rewards by the latent geometry model", ("lgm/",)),
    ("Features followed by the flow", ("feature_",)),
    ("VideoReward", ("videoreward",)),
    ("VBench", ("vbench",)),
    ("Motion of the picture", ("flow_", "change_from_first")),
    (
        "Pixels, objects and variety",
        ("brightness", "contrast", "saturation", "sharpness", "object_", "diver"),
    ),
    ("The latent geometry model against its teacher", ("fidelity/",)),
    ("Other", ("",)),
)
"""Headings, and the beginnings of the metric names under them."""


def by_family(metrics: Iterable[Metric]) -> Iterator[tuple[str, list[Metric]]]:
    """(heading, metrics) in the order of FAMILIES; headings without a metric are left out."""
    left = list(metrics)
    for heading, beginnings in FAMILIES:
        members = [metric for metric in left if metric.name.startswith(beginnings)]
        left = [metric for metric in left if metric not in members]
        if members:
            yield heading, members


def telling(metrics: Iterable[Metric], most: int) -> list[Metric]:
    """Up to `most` metrics that have a better direction: the first of each family, then the second ones."""
    directed = [
        [metric for metric in members if metric.better != "watch"] for _, members in by_family(metrics)
    ]
    rounds = range(max((len(members) for members in directed), default=0))
    ordered = [members[i] for i in rounds for members in directed if i < len(members)]
    return ordered[:most]
