"""Statistics of several gates together, against scipy and brute force."""

import math
from dataclasses import replace

import numpy as np
import pytest
from harness.gates import agreement, steady_shaky_auc
from scipy.stats import spearmanr

from vggrpo.evaluation import ClipQuality, Interval, LGMGate, RankAgreement

CLIPS = 60
UNKNOWN = Interval(math.nan, math.nan, math.nan, 0)


def ranks(rng, noise):
    teacher = rng.normal(size=CLIPS)
    columns = (teacher + noise * rng.normal(size=CLIPS), teacher, teacher + 0.3 * rng.normal(size=CLIPS))
    return RankAgreement(UNKNOWN, UNKNOWN, UNKNOWN, *(tuple(column.tolist()) for column in columns))


def gate(rng, noise):
    rewards = {"camera_motion": ranks(rng, noise), "reprojection": ranks(rng, noise)}
    quality = ClipQuality(rewards, {})
    return LGMGate("", "micro", "micro", (17, 48, 64), {}, quality, quality, {}, {})


@pytest.fixture
def gates():
    rng = np.random.default_rng(3)
    return [gate(rng, noise) for noise in (0.5, 1.0, 2.0)]


def test_agreement_is_the_mean_over_the_seeds(gates):
    parts = [gate.generated.rewards["reprojection"] for gate in gates]
    correlation = np.mean([spearmanr(part.lgm, part.teacher).statistic for part in parts])
    ceiling = np.mean([spearmanr(part.teacher, part.repeated).statistic for part in parts])
    result = agreement(gates, "reprojection")
    assert result["correlation"].mean == pytest.approx(correlation)
    assert result["ceiling"].mean == pytest.approx(ceiling)
    assert result["share"].mean == pytest.approx(correlation / ceiling)
    assert result["share"].low < result["share"].mean < result["share"].high
    assert result["share"].count == CLIPS


def test_clips_that_one_could_not_score_are_left_out_of_all_three(gates):
    part = gates[0].generated.rewards["reprojection"]
    holed = replace(part, repeated=(math.nan, *part.repeated[1:]))
    quality = ClipQuality({"reprojection": holed}, {})
    result = agreement([replace(gates[0], generated=quality)], "reprojection")
    assert result["correlation"].mean == pytest.approx(spearmanr(part.lgm[1:], part.teacher[1:]).statistic)
    assert result["correlation"].missing == 1


def test_auc_is_the_mean_over_the_seeds(gates):
    shaky = [clip % 3 == 0 for clip in range(CLIPS)]
    expected = []
    for one in gates:
        scores = one.real.rewards["camera_motion"].lgm
        wins = [
            float(scores[i] > scores[j])
            for i in range(CLIPS)
            for j in range(CLIPS)
            if not shaky[i] and shaky[j]
        ]
        expected.append(np.mean(wins))
    result = steady_shaky_auc(gates, shaky)
    assert result.mean == pytest.approx(np.mean(expected))
    assert result.low < result.mean < result.high
