"""The gate of latent geometry models that were trained with several seeds, clip by clip.

Held-out clip i has the same prompt in every seed, and real clips are the same ones, so clips are resampled in
all seeds alike: the intervals are about other clips.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vggrpo.evaluation import Interval, LGMGate, RankAgreement, auc, bootstrap_statistic, spearman
from vggrpo.training.rewards import CAMERA_MOTION

FloatArray = NDArray[np.float64]
Rows = NDArray[np.int64]


CLIP_KINDS = ("generated", "real")


def agreement(gates: Sequence[LGMGate], reward: str, clips: str = "generated") -> dict[str, Interval]:
    """Of a reward on clips of one of the `CLIP_KINDS`: the mean over the seeds of its rank correlation with
    the teacher's ("correlation") and of the teacher's with itself ("ceiling"), and the quotient of the two
    ("share").

    A clip that one of the three could not score is left out of its seed.
    """
    qualities = [{"generated": gate.generated, "real": gate.real}[clips] for gate in gates]
    parts = [_scores(quality.rewards[reward]) for quality in qualities]

    def mean_of(first: int, second: int) -> Callable[[Rows], float]:
        return lambda rows: float(
            np.mean([spearman(part[first, rows], part[second, rows]) for part in parts])
        )

    correlation, ceiling = mean_of(0, 1), mean_of(1, 2)

    def share(rows: Rows) -> float:
        limit = ceiling(rows)
        return correlation(rows) / limit if limit > 0 else float("nan")

    missing = sum(int(np.isnan(part[0]).sum()) for part in parts)
    count = parts[0].shape[1]
    return {
        name: replace(bootstrap_statistic(statistic, count), missing=missing)
        for name, statistic in (("correlation", correlation), ("ceiling", ceiling), ("share", share))
    }


def steady_shaky_auc(gates: Sequence[LGMGate], is_shaky: Sequence[bool]) -> Interval:
    """The mean over the seeds of P(motion reward of a steady real clip > of a shaky one), on latents."""
    shaky = np.array(is_shaky)
    parts = [np.array(gate.real.rewards[CAMERA_MOTION].lgm) for gate in gates]

    def separation(rows: Rows) -> float:
        values = []
        for part in parts:
            known = rows[~np.isnan(part[rows])]
            steady, unsteady = part[known][~shaky[known]], part[known][shaky[known]]
            values.append(auc(steady, unsteady) if len(steady) and len(unsteady) else float("nan"))
        return float(np.mean(values))

    return bootstrap_statistic(separation, len(shaky))


def _scores(agreement: RankAgreement) -> FloatArray:
    """By latents, teacher and repeated teacher, [3, N]; all NaN where one of them is."""
    scores = np.array([agreement.lgm, agreement.teacher, agreement.repeated], dtype=np.float64)
    return np.where(np.isnan(scores).any(axis=0), np.nan, scores)
