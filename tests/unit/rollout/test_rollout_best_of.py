"""Best-of-N against sampling every candidate by itself."""

import math

import pytest
import torch
from tiny_rewards import mean_score, score_of_positive

from vggrpo.flow import SigmaSchedule
from vggrpo.rollout import (
    BestOf,
    Condition,
    LatentScore,
    RewardGuidance,
    SolverSettings,
    candidate_seeds,
    sample_best,
    sample_ode,
    sample_sde,
)

SHAPE = (4, 2, 4, 6)
SCHEDULE = SigmaSchedule.linear(8)


def alone(policy, embeds, seeds, solver="euler", guidance=None):
    prompts = embeds[0][:1].expand(len(seeds), -1, -1)
    if solver == "sde":
        return sample_sde(policy, prompts, SCHEDULE, seeds=seeds, latent_shape=SHAPE)
    return sample_ode(
        policy, prompts, SCHEDULE, seeds=seeds, latent_shape=SHAPE, solver=solver, guidance=guidance
    )


@pytest.mark.parametrize("solver", ["euler", "heun", "unipc", "sde"])
@pytest.mark.parametrize("micro_batch", [None, 3])
def test_the_best_candidate_is_the_one_that_ranks_first_alone(linear_policy, embeds, solver, micro_batch):
    best = sample_best(
        linear_policy,
        Condition(embeds[0][0]),
        SCHEDULE,
        BestOf(7, mean_score),
        seed=3,
        latent_shape=SHAPE,
        solver=SolverSettings(solver),
        micro_batch=micro_batch,
    )
    samples = alone(linear_policy, embeds, candidate_seeds(3, 7), solver)
    values = samples.flatten(1).mean(dim=1)
    assert best.candidate == int(values.argmax())
    assert best.seed == candidate_seeds(3, 7)[best.candidate]
    assert torch.equal(best.latents, samples[best.candidate])
    assert best.values == pytest.approx(dict(enumerate(values.tolist())))
    assert best.evaluations == 7 * (15 if solver == "heun" else 8)


@pytest.mark.parametrize("solver", ["euler", "heun", "unipc", "sde"])
def test_pruning_keeps_the_better_half_and_leaves_its_samples_as_they_are(linear_policy, embeds, solver):
    """x0_pred of a linear flow is linear in x, and its factor is positive below sigma .618."""
    best = sample_best(
        linear_policy,
        Condition(embeds[0][0]),
        SCHEDULE,
        BestOf(5, mean_score, prune_sigmas=(0.5, 0.3)),
        seed=0,
        latent_shape=SHAPE,
        solver=SolverSettings(solver),
    )
    samples = alone(linear_policy, embeds, candidate_seeds(0, 5), solver)
    assert len(best.values) == 2
    assert best.seed in candidate_seeds(0, 5)
    assert torch.equal(best.latents, samples[best.candidate])
    for number, value in best.values.items():
        assert value == pytest.approx(float(samples[number].mean()))
    if solver == "euler":
        assert best.candidate == int(samples.flatten(1).mean(dim=1).argmax())
        # Steps 4 and 6 (levels .5 and .25) are evaluated before the halving: 5 to 3 to 2.
        assert best.evaluations == 2 * 5 + 1 * 7 + 2 * 8


def test_failed_candidates_rank_last_and_if_all_fail_the_first_is_kept(linear_policy, embeds):
    samples = alone(linear_policy, embeds, candidate_seeds(1, 6))
    values = samples.flatten(1).mean(dim=1)
    threshold = float(values.sort().values[3])

    def failing_above(limit):
        def score(latents):
            value = latents.flatten(1).mean(dim=1)
            failed = torch.where(value > limit, torch.nan, value)
            return LatentScore(failed, value, {})

        return score

    def best(score):
        condition = Condition(embeds[0][0])
        return sample_best(linear_policy, condition, SCHEDULE, BestOf(6, score), seed=1, latent_shape=SHAPE)

    chosen = best(failing_above(threshold))
    assert chosen.value == pytest.approx(threshold)
    assert sum(math.isnan(value) for value in chosen.values.values()) == 2
    none = best(failing_above(-math.inf))
    assert none.candidate == 0
    assert math.isnan(none.value)


def test_one_candidate_is_the_plain_sample_and_guidance_applies_to_all(linear_policy, embeds):
    guidance = RewardGuidance(score_of_positive, 100.0, interval=3)
    best = sample_best(
        linear_policy,
        Condition(embeds[0][0]),
        SCHEDULE,
        BestOf(1, mean_score),
        seed=9,
        latent_shape=SHAPE,
        guidance=guidance,
    )
    assert torch.equal(best.latents, alone(linear_policy, embeds, [9], guidance=guidance)[0])
    assert [step.index for step in best.guided] == [3, 6]
    assert best.guided[0].ratio.shape == (1,)


@pytest.mark.parametrize(
    ("candidates", "levels", "message"),
    [
        (0, (), "candidates is 0"),
        (4, (0.3, 0.5), "expected falling levels"),
        (4, (1.0,), "expected falling levels"),
        (2, (0.5, 0.3), "2 candidates can be halved 1 times"),
    ],
)
def test_settings_out_of_range_are_refused(candidates, levels, message):
    with pytest.raises(ValueError, match=message):
        BestOf(candidates, mean_score, levels)


@pytest.mark.parametrize("levels", [(0.6, 0.55), (0.01,)])
def test_levels_that_do_not_fit_the_schedule_are_refused(levels):
    with pytest.raises(ValueError, match="each needs its own"):
        BestOf(8, mean_score, levels).prune_steps(SCHEDULE)
