"""Reward guidance: its formula, its sign, and what it must leave alone."""

import pytest
import torch
from tiny_rewards import mean_score, score_of_positive

from tiny_models import tiny_latent_geometry
from vggrpo.backbones import LatentSpec
from vggrpo.flow import SigmaSchedule, predict_x0
from vggrpo.geometry import orbit
from vggrpo.rewards import CameraMotionReward, CameraTrajectoryReward, ReprojectionReward
from vggrpo.rollout import (
    Condition,
    LatentReward,
    RewardGuidance,
    SolverSettings,
    Trajectories,
    initial_noise,
    sample_ode,
)
from vggrpo.rollout.guidance import MIN_SIGNAL

SHAPE = (4, 3, 4, 6)
SPEC = LatentSpec(channels=4, spatial_stride=4, temporal_stride=4, fingerprint="0" * 64)
SEEDS = [1, 2, 3]
SCHEDULE = SigmaSchedule.unipc(6, shift=3.0)


def latent_reward(dtype=torch.float32) -> LatentReward:
    rewards = {
        "camera_motion": CameraMotionReward(),
        "reprojection": ReprojectionReward.robust(min_overlap=0.0),
        "camera_trajectory": CameraTrajectoryReward(orbit(3, 30.0)),
    }
    return LatentReward(tiny_latent_geometry(SPEC, dtype), rewards, dict.fromkeys(rewards, 0.5))


def noise(seed, dtype=torch.float32, batch=2):
    return torch.randn(batch, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("through", ["x0_pred", "denoiser"])
def test_the_correction_is_the_formula_by_finite_differences(linear_policy, embeds, through):
    sigma, scale = 0.4, 3.0
    reward = latent_reward(torch.float64)
    x = noise(0, torch.float64)
    prompt = embeds[0][:2].double()

    def field(z, level):
        return linear_policy.velocity(z, level, prompt)

    velocity = field(x, sigma)
    guidance = RewardGuidance(reward, scale, through=through, norm_cap=None)
    correction = guidance.correction(x, velocity, sigma, field)

    def reward_at(z):
        return reward(predict_x0(z, field(z, sigma) if through == "denoiser" else velocity, sigma)).ascent

    assert (correction.ratio > 0).all()
    assert not correction.value.isnan().any()
    for seed in range(1, 4):
        direction, step = noise(seed, torch.float64), 1e-5
        slope = (reward_at(x + step * direction) - reward_at(x - step * direction)) / (2 * step)
        expected = -scale * sigma / (1 - sigma) * slope
        actual = (correction.velocity * direction).flatten(1).sum(dim=1)
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("through", ["x0_pred", "denoiser"])
@pytest.mark.parametrize("step", [2, 4])
def test_a_small_guided_step_raises_the_reward_of_x0_pred(wan_policy, embeds, through, step):
    reward, x, prompt = latent_reward(), noise(5), embeds[0][:2]
    sigma, sigma_next = SCHEDULE.step(step)

    def field(z, level):
        return wan_policy.velocity(z, level, prompt)

    def reward_after(change):
        with torch.no_grad():
            x_next = x + (sigma_next - sigma) * (velocity + change)
            return reward(predict_x0(x_next, field(x_next, sigma_next), sigma_next)).value

    with torch.no_grad():
        velocity = field(x, sigma)
    guidance = RewardGuidance(reward, 1e6, through=through, norm_cap=0.02)
    correction = guidance.correction(x, velocity, sigma, field)
    assert (correction.ratio > 0.02).all()
    torch.testing.assert_close(
        correction.velocity.flatten(1).norm(dim=1), 0.02 * velocity.flatten(1).norm(dim=1)
    )
    assert (reward_after(correction.velocity) > reward_after(0.0)).all()
    assert (reward_after(-correction.velocity) < reward_after(0.0)).all()


@pytest.mark.parametrize("solver", ["euler", "heun", "unipc", "sde"])
def test_scale_zero_is_the_unguided_sample_bit_for_bit(policy, embeds, solver):
    def sample(guidance):
        run = Trajectories(
            policy,
            Condition(embeds[0][:3]),
            SolverSettings(solver).start(SCHEDULE, SEEDS),
            initial_noise(SEEDS, SHAPE),
            guidance=guidance,
        )
        while not run.done:
            run.evaluate()
            run.advance()
        return run.x

    plain = sample(None)
    assert torch.equal(sample(RewardGuidance(mean_score, 0.0, interval=1)), plain)
    guided = sample(RewardGuidance(mean_score, 100.0, interval=1))
    assert not torch.equal(guided, plain)
    # A velocity that falls with the mean of x0 makes the mean of every sample rise.
    assert (guided.flatten(1).mean(dim=1) > plain.flatten(1).mean(dim=1)).all()


def test_a_single_kick_has_the_same_effect_in_every_solver(linear_policy, embeds):
    """dt times the correction, carried along a flow whose velocity hardly depends on the state."""
    schedule = SigmaSchedule.linear(40)
    arguments = {"seeds": [1], "latent_shape": SHAPE, "cfg_scale": 1.0}
    moved = {}
    for solver in ("euler", "heun", "unipc"):
        guidance = RewardGuidance(mean_score, 50.0, interval=20, norm_cap=None)
        assert guidance.steps(schedule) == [20]
        runs = [
            sample_ode(linear_policy, embeds[0][:1], schedule, solver=solver, guidance=g, **arguments)
            for g in (None, guidance)
        ]
        moved[solver] = float((runs[1] - runs[0]).mean())
    assert moved["euler"] > 0
    assert moved["heun"] == pytest.approx(moved["euler"], rel=0.1)
    assert moved["unipc"] == pytest.approx(moved["euler"], rel=0.1)


@pytest.mark.parametrize("sigma", [1.0, 1.0 - 1e-6, 0.999])
def test_near_pure_noise_the_correction_stays_within_the_cap(linear_policy, embeds, sigma):
    x, prompt = noise(0), embeds[0][:2]
    velocity = linear_policy.velocity(x, sigma, prompt)
    for scale in (1.0, 1e12):
        guidance = RewardGuidance(latent_reward(), scale, interval=1, norm_cap=0.5)
        change = guidance.correction(x, velocity, sigma, None).velocity
        assert change.isfinite().all()
        assert (change.flatten(1).norm(dim=1) <= 0.5001 * velocity.flatten(1).norm(dim=1)).all()
    uncapped = RewardGuidance(latent_reward(), 1.0, interval=1, norm_cap=None)
    factor = sigma / max(1 - sigma, MIN_SIGNAL)
    change = uncapped.correction(x, velocity, sigma, None).velocity
    z = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(latent_reward()(z - sigma * velocity).ascent.sum(), z)
    torch.testing.assert_close(change, -factor * gradient, rtol=1e-4, atol=1e-7)


def test_failed_rewards_guide_nowhere_and_do_not_disturb_the_others():
    x = torch.stack([torch.full(SHAPE, 1.0), torch.full(SHAPE, -1.0)])
    velocity = torch.ones_like(x) * 1e-3
    guidance = RewardGuidance(score_of_positive, 1.0, norm_cap=None)
    correction = guidance.correction(x, velocity, 0.5, None)
    assert (correction.velocity[0] < 0).all()
    assert (correction.velocity[1] == 0).all()
    assert correction.value.isnan().tolist() == [False, True]


def test_gradients_that_are_not_finite_are_left_out():
    def rooted(latents):
        return mean_score(latents.abs().sqrt())

    x = torch.ones(2, *SHAPE)
    x[1, 0, 0, 0, 0] = 0.0
    correction = RewardGuidance(rooted, 1.0, norm_cap=None).correction(x, torch.zeros_like(x), 0.5, None)
    assert (correction.velocity[0] != 0).all()
    assert (correction.velocity[1] == 0).all()


def test_the_paper_guides_steps_20_and_40_of_50_and_a_window_of_levels_narrows_it():
    schedule = SigmaSchedule.unipc(50, shift=3.0)
    assert RewardGuidance(mean_score, 1.0).steps(schedule) == [20, 40]
    assert RewardGuidance(mean_score, 1.0, interval=1).steps(schedule)[0] == 1
    within = RewardGuidance(mean_score, 1.0, interval=5, start_sigma=0.9, stop_sigma=0.6)
    levels = [schedule.step(index)[0] for index in within.steps(schedule)]
    assert levels
    assert all(0.6 <= level <= 0.9 for level in levels)


def test_guided_sampling_needs_no_autoencoder(wan_policy, embeds, monkeypatch):
    monkeypatch.setattr("vggrpo.backbones.pipelines.backbone.load_module", None)
    guidance = RewardGuidance(latent_reward(), 100.0, interval=2)
    latents = sample_ode(
        wan_policy, embeds[0][:1], SCHEDULE, seeds=[1], latent_shape=SHAPE, guidance=guidance
    )
    assert latents.isfinite().all()
    assert wan_policy._vae is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale": -1.0}, "scale is -1.0"),
        ({"scale": float("nan")}, "scale is nan"),
        ({"interval": 0}, "interval is 0"),
        ({"start_sigma": 0.2, "stop_sigma": 0.4}, "start_sigma is 0.2 and stop_sigma 0.4"),
        ({"through": "vae"}, "through is 'vae'"),
        ({"norm_cap": 0.0}, "norm_cap is 0.0"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        RewardGuidance(mean_score, **{"scale": 1.0, **changes})


def test_rewards_without_gradient_or_weight_are_refused():
    def fixed(latents):
        return mean_score(latents.detach())

    x = torch.ones(1, *SHAPE)
    with pytest.raises(ValueError, match="has no gradient"):
        RewardGuidance(fixed, 1.0).correction(x, x, 0.5, None)
    motion = {"camera_motion": CameraMotionReward()}
    with pytest.raises(ValueError, match="weights has none for camera_motion"):
        LatentReward(tiny_latent_geometry(SPEC), motion, {})
    with pytest.raises(ValueError, match="no reward has a positive weight"):
        LatentReward(tiny_latent_geometry(SPEC), motion, {"camera_motion": 0.0})
