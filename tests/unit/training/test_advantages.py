import math

import pytest
import torch

from vggrpo.training.advantages import group_advantages, group_statistics


def rewards(groups=3, samples=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        "motion": torch.rand((groups, samples), generator=generator),
        "geometry": 10 + 3 * torch.rand((groups, samples), generator=generator),
    }


def loop_reference(rewards, weights, valid, adv_clip=5.0):
    """Group by group in plain Python."""
    first = next(iter(rewards.values()))
    result = torch.zeros(first.shape, dtype=torch.float64)
    for g in range(first.shape[0]):
        members = [k for k in range(first.shape[1]) if valid[g, k]]
        for name, value in rewards.items():
            scores = [float(value[g, k]) for k in members]
            mean = math.fsum(scores) / len(scores)
            std = math.sqrt(math.fsum((score - mean) ** 2 for score in scores) / len(scores))
            for k, score in zip(members, scores, strict=True):
                result[g, k] += weights[name] / sum(weights.values()) * (score - mean) / std
    return result.clamp(-adv_clip, adv_clip).float()


def test_equals_a_plain_loop():
    valid = torch.rand((3, 8), generator=torch.Generator().manual_seed(5)) > 0.3
    weights = {"motion": 2.0, "geometry": 0.5}
    expected = loop_reference(rewards(), weights, valid)
    advantages = group_advantages(rewards(), weights, valid)
    assert advantages.dtype == torch.float32
    torch.testing.assert_close(advantages, expected, rtol=1e-6, atol=1e-6)
    assert (advantages[~valid] == 0).all()


def test_default_weights_are_equal():
    equal = group_advantages(rewards(), {"motion": 0.5, "geometry": 0.5})
    assert torch.equal(group_advantages(rewards()), equal)


def test_one_reward_has_mean_zero_and_population_std_one():
    advantages = group_advantages({"motion": rewards()["motion"]})
    torch.testing.assert_close(advantages.mean(dim=1), torch.zeros(3), rtol=0.0, atol=1e-6)
    torch.testing.assert_close(advantages.std(dim=1, correction=0), torch.ones(3))


def test_invariant_to_shift_and_scale_of_a_reward_in_a_group():
    moved = rewards()
    moved["geometry"] = moved["geometry"] * torch.tensor([[1.0], [100.0], [0.01]]) + torch.tensor(
        [[-5.0], [3.0], [0.0]]
    )
    torch.testing.assert_close(group_advantages(moved), group_advantages(rewards()), rtol=1e-4, atol=1e-4)


def test_invalid_values_are_never_read():
    values, valid = rewards(), torch.ones(3, 8, dtype=torch.bool)
    valid[1, 2] = valid[2, 5] = False
    clean = group_advantages(values, valid=valid)
    for poison in (float("nan"), float("inf"), 1e9):
        poisoned = {name: torch.where(valid, value, poison) for name, value in values.items()}
        assert torch.equal(group_advantages(poisoned, valid=valid), clean)


def test_permuting_the_samples_permutes_the_advantages():
    order = torch.randperm(8, generator=torch.Generator().manual_seed(2))
    permuted = {name: value[:, order] for name, value in rewards().items()}
    torch.testing.assert_close(group_advantages(permuted), group_advantages(rewards())[:, order])


@pytest.mark.parametrize("level", [0.1, 0.7, 1234.567])
def test_a_constant_float32_group_gives_zero_despite_rounding(level):
    constant = torch.full((1, 7), level)
    constant[0, 3] = torch.nextafter(constant[0, 3], torch.tensor(torch.inf))
    assert torch.equal(group_advantages({"motion": constant}), torch.zeros(1, 7))


def test_a_small_but_real_difference_counts():
    values = torch.full((1, 8), 0.5)
    values[0, 0] += 1e-4
    assert float(group_advantages({"motion": values})[0, 0]) == pytest.approx(math.sqrt(7), rel=1e-2)


def test_a_constant_reward_leaves_the_other_one_its_share():
    values = rewards()
    values["motion"] = torch.full_like(values["motion"], 0.3)
    alone = group_advantages({"geometry": values["geometry"]})
    torch.testing.assert_close(group_advantages(values), 0.5 * alone)


def test_a_group_with_one_or_no_valid_sample_teaches_nothing():
    valid = torch.ones(3, 8, dtype=torch.bool)
    valid[0, 1:] = False
    valid[1] = False
    advantages = group_advantages(rewards(), valid=valid)
    assert torch.equal(advantages[:2], torch.zeros(2, 8))
    assert (advantages[2] != 0).all()


def test_clip():
    outlier = torch.zeros(1, 64)
    outlier[0, 0] = 1.0
    assert float(group_advantages({"motion": outlier})[0, 0]) == 5.0
    assert float(group_advantages({"motion": outlier}, adv_clip=2.0)[0, 0]) == 2.0
    assert float(group_advantages({"motion": outlier}, adv_clip=100.0)[0, 0]) == pytest.approx(
        math.sqrt(63), rel=1e-5
    )


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_value_in_a_valid_sample_is_named(bad):
    values = rewards()
    values["geometry"][1, 4] = bad
    with pytest.raises(ValueError, match=r"reward 'geometry' is (nan|inf) at group 1, sample 4"):
        group_advantages(values)


def test_bad_arguments_are_refused():
    values = rewards()
    with pytest.raises(ValueError, match="rewards is empty"):
        group_advantages({})
    with pytest.raises(ValueError, match=r"expected the same \[G, K\]"):
        group_advantages({"motion": values["motion"], "geometry": values["geometry"][:, :4]})
    with pytest.raises(ValueError, match=r"expected the same \[G, K\]"):
        group_advantages({"motion": values["motion"][0]})
    with pytest.raises(ValueError, match=r"weights are for \['motion'\]"):
        group_advantages(values, {"motion": 1.0})
    with pytest.raises(ValueError, match="positive sum"):
        group_advantages(values, {"motion": 0.0, "geometry": 0.0})
    with pytest.raises(ValueError, match="numbers >= 0"):
        group_advantages(values, {"motion": -1.0, "geometry": 2.0})
    with pytest.raises(ValueError, match=r"valid is torch\.float32"):
        group_advantages(values, valid=torch.ones(3, 8))
    with pytest.raises(ValueError, match="adv_clip is 0"):
        group_advantages(values, adv_clip=0.0)


def test_statistics():
    values = {
        "motion": torch.tensor([[0.0, 1.0, 0.0, 1.0], [0.5, 0.5, 0.5, 0.5], [2.0, 4.0, 9.0, 9.0]]),
        "geometry": torch.tensor([[1.0, 1.0, 1.0, 1.0], [3.0, 3.0, 3.0, 3.0], [1.0, 5.0, 0.0, 0.0]]),
    }
    valid = torch.tensor([[True] * 4, [True] * 4, [True, True, False, False]])
    statistics = group_statistics(values, valid)
    assert statistics == {
        "reward/motion/mean": pytest.approx((2.0 + 2.0 + 6.0) / 10),
        "reward/motion/std": pytest.approx((0.5 + 0.0 + 1.0) / 3),
        "reward/motion/frac_zero_std": pytest.approx(1 / 3),
        "reward/geometry/mean": pytest.approx((4.0 + 12.0 + 6.0) / 10),
        "reward/geometry/std": pytest.approx((0.0 + 0.0 + 2.0) / 3),
        "reward/geometry/frac_zero_std": pytest.approx(2 / 3),
        "group/frac_zero_std": pytest.approx(1 / 3),
        "group/frac_invalid": pytest.approx(2 / 12),
    }


def test_statistics_without_a_valid_sample_have_no_mean():
    statistics = group_statistics(rewards(), torch.zeros(3, 8, dtype=torch.bool))
    assert "reward/motion/mean" not in statistics
    assert statistics["group/frac_invalid"] == 1.0
    assert statistics["group/frac_zero_std"] == 1.0
