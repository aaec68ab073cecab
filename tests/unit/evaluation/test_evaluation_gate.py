"""The gate's statistics against scipy and hand-made cases, its file, its table and its picture."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from example_gate import make_gate, rewards
from matplotlib.image import imread
from scipy import stats

from vggrpo.config import CorruptFileError
from vggrpo.evaluation import (
    LGMGate,
    bootstrap_statistic,
    gate_table,
    noise_response,
    plot_gate,
    rank_agreement,
    spearman,
    spearman_interval,
    steady_shaky_auc,
)

NAN = float("nan")


def same(a: object, b: object) -> bool:
    """Equal, and NaN where the other is NaN."""
    return repr(a) == repr(b)


class TestRankAgreement:
    def test_correlations_are_scipys_and_the_share_is_their_ratio(self) -> None:
        lgm, teacher, repeated = rewards(0)
        agreement = rank_agreement(lgm, teacher, repeated)
        correlation = stats.spearmanr(lgm, teacher).statistic
        ceiling = stats.spearmanr(teacher, repeated).statistic
        assert agreement.correlation.mean == pytest.approx(correlation)
        assert agreement.ceiling.mean == pytest.approx(ceiling)
        assert agreement.share.mean == pytest.approx(correlation / ceiling)
        assert agreement.share.count == 120

    def test_the_intervals_cover_what_other_draws_give(self) -> None:
        many = [rank_agreement(*rewards(seed, count=60)) for seed in range(1, 17)]
        lgm, teacher, repeated = rewards(100, count=20_000)
        truth = spearman(lgm, teacher) / spearman(teacher, repeated)
        covered = [a.share.low <= truth <= a.share.high for a in many]
        assert 0.85 <= np.mean(covered) <= 1.0
        spread = np.std([a.share.mean for a in many])
        widths = np.mean([a.share.high - a.share.low for a in many]) / (2 * 1.96)
        assert widths == pytest.approx(spread, rel=0.35)

    def test_a_perfect_model_may_exceed_the_ceiling(self) -> None:
        _, teacher, repeated = rewards(2)
        agreement = rank_agreement(teacher, teacher, repeated)
        assert agreement.correlation.mean == 1.0
        assert agreement.share.mean == pytest.approx(1 / agreement.ceiling.mean)
        assert agreement.share.mean > 1

    def test_a_failed_reward_takes_its_clip_out_of_all_three(self) -> None:
        lgm, teacher, repeated = rewards(3, count=12)
        lgm[2], teacher[5], repeated[7] = NAN, NAN, NAN
        keep = [i for i in range(12) if i not in (2, 5, 7)]
        agreement, without = (
            rank_agreement(lgm, teacher, repeated),
            rank_agreement(lgm[keep], teacher[keep], repeated[keep]),
        )
        for name in ("correlation", "ceiling", "share"):
            assert getattr(agreement, name) == replace(getattr(without, name), missing=3)
        assert len(agreement.lgm) == len(agreement.teacher) == 12
        assert math.isnan(agreement.lgm[2])

    def test_no_share_where_the_teacher_contradicts_itself(self) -> None:
        lgm, teacher, _ = rewards(4)
        agreement = rank_agreement(lgm, teacher, -teacher)
        assert agreement.ceiling.mean == -1
        assert math.isnan(agreement.share.mean)
        assert math.isnan(agreement.share.low)

    def test_no_share_of_a_constant_reward(self) -> None:
        _, teacher, repeated = rewards(5)
        assert math.isnan(rank_agreement(np.ones_like(teacher), teacher, repeated).share.mean)

    def test_nothing_measured(self) -> None:
        agreement = rank_agreement([NAN] * 4, [1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0])
        assert math.isnan(agreement.share.mean)
        assert (agreement.share.count, agreement.share.missing) == (0, 4)

    def test_whole_prompts_are_resampled(self) -> None:
        lgm, teacher, repeated = rewards(6, count=30)
        prompts = list(range(30))
        one = rank_agreement(lgm, teacher, repeated, prompts)
        four = rank_agreement(*(np.tile(column, 4) for column in (lgm, teacher, repeated)), prompts * 4)
        assert (four.share.low, four.share.high) == pytest.approx((one.share.low, one.share.high))

    def test_other_lengths_are_refused(self) -> None:
        with pytest.raises(ValueError, match="have 2, 3 and 3 values"):
            rank_agreement([1.0, 2.0], [1.0, 2.0, 3.0], [1.0, 2.0, 3.0])


def test_any_statistic_has_an_interval() -> None:
    values = np.random.default_rng(0).exponential(size=200)
    interval = bootstrap_statistic(lambda rows: float(np.median(values[rows])), 200)
    reference = stats.bootstrap(
        (values,), np.median, n_resamples=2000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert interval.mean == np.median(values)
    assert interval.low == pytest.approx(reference.low, abs=0.03)
    assert interval.high == pytest.approx(reference.high, abs=0.03)


def test_a_statistic_that_resamples_lack_has_a_value_and_no_interval() -> None:
    interval = bootstrap_statistic(lambda rows: 1.0 if len(set(rows.tolist())) == 40 else NAN, 40)
    assert interval.mean == 1.0
    assert math.isnan(interval.low)


def test_spearman_interval_is_the_bootstrap_of_spearman() -> None:
    a, b, _ = rewards(7, count=40)
    direct = bootstrap_statistic(lambda rows: spearman(a[rows], b[rows]), 40, seed=3)
    assert spearman_interval(a, b, seed=3) == direct


class TestNoise:
    def test_without_noise_the_teacher_is_its_own_reference(self) -> None:
        _, teacher, _ = rewards(8)
        response = noise_response(teacher, teacher)
        assert response.correlation.mean == 1.0
        assert (response.error.mean, response.error.high) == (0.0, 0.0)

    def test_error_is_a_median(self) -> None:
        response = noise_response([1.0, 2.0, NAN, 9.0], [1.5, 2.1, 3.0, 3.0])
        assert response.error.mean == pytest.approx(0.5)
        assert (response.error.count, response.error.missing) == (3, 1)
        assert response.correlation.mean == 1.0


class TestSteadyShaky:
    def test_is_the_rank_sum_statistic(self) -> None:
        rng = np.random.default_rng(9)
        shaky = rng.random(80) < 0.4
        values = np.round(rng.normal(size=80) - shaky, 1)  # with ties
        expected = stats.mannwhitneyu(values[~shaky], values[shaky]).statistic
        interval = steady_shaky_auc(values, shaky)
        assert interval.mean == pytest.approx(expected / (shaky.sum() * (~shaky).sum()))
        assert interval.low < interval.mean < interval.high

    def test_failures_are_counted_and_one_kind_has_no_auc(self) -> None:
        interval = steady_shaky_auc([NAN, 1.0, 0.0], [False, False, True])
        assert (interval.mean, interval.count, interval.missing) == (1.0, 2, 1)
        assert math.isnan(steady_shaky_auc([1.0, 2.0], [True, True]).mean)


class TestFile:
    def test_what_was_saved_is_loaded(self, tmp_path: Path) -> None:
        gate = make_gate()
        assert gate.save(tmp_path) == tmp_path / "gate.json"
        loaded = LGMGate.load(tmp_path)
        assert same(loaded, gate)
        assert loaded.options["reprojection"]["occlusion_tolerance"] is None

    def test_the_file_is_plain_json(self, tmp_path: Path) -> None:
        make_gate().save(tmp_path)
        content = json.loads((tmp_path / "gate.json").read_text(), parse_constant=pytest.fail)
        assert content["format_version"] == 1
        assert content["generated"]["rewards"]["reprojection"]["lgm"][0] is None
        assert content["generated"]["rewards"]["reprojection"]["share"]["missing"] == 2

    def test_no_gate(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            LGMGate.load(tmp_path)

    @pytest.mark.parametrize("text", ["{", "[]", "{}", '{"format_version": 1, "weights": 3}'])
    def test_damage_is_named(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "gate.json").write_text(text)
        with pytest.raises(CorruptFileError, match=r"gate\.json"):
            LGMGate.load(tmp_path)

    def test_another_version(self, tmp_path: Path) -> None:
        make_gate().save(tmp_path)
        path = tmp_path / "gate.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 2}))
        with pytest.raises(ValueError, match="format version 2, but this version of vggrpo reads 1"):
            LGMGate.load(tmp_path)


def test_table_has_a_line_for_every_kind_and_reward_and_the_failures() -> None:
    lines = gate_table(make_gate(), {"camera_motion": "passed", "reprojection": "too low"}).splitlines()
    assert lines[0].split()[:3] == ["clips", "reward", "Spearman"]
    assert [line.split()[:2] for line in lines[1:5]] == [
        [kind, name] for kind in ("generated", "real") for name in ("camera_motion", "reprojection")
    ]
    assert lines[1].endswith("passed")
    assert "118 (2 failed)" in lines[2]
    assert lines[2].endswith("too low")
    assert "too low" not in lines[4]
    assert "lgm 0.95 (0.90 to 0.98), teacher 0.97" in lines[5]


def test_picture_shows_curves_where_they_were_measured(tmp_path: Path) -> None:
    gate = make_gate()
    plot_gate(gate, tmp_path / "gate.png")
    plot_gate(replace(gate, robustness={}), tmp_path / "bare.png")
    full, bare = imread(tmp_path / "gate.png"), imread(tmp_path / "bare.png")
    assert full.shape == bare.shape
    orange = np.abs(full[..., :3] - np.array([0xC4, 0x60, 0x1D]) / 255).max(-1) < 0.1
    assert orange.sum() > 200
    assert (np.abs(bare[..., :3] - np.array([0xC4, 0x60, 0x1D]) / 255).max(-1) < 0.1).sum() == 0
