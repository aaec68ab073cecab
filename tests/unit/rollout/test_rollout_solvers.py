"""Solvers against a fine integration, diffusers' own loop and the stochastic sampler."""

import pytest
import torch
from diffusers import UniPCMultistepScheduler

from vggrpo.flow import SigmaSchedule
from vggrpo.rollout import Condition, SolverSettings, Trajectories, initial_noise, sample_ode, sample_sde

SHAPE = (4, 2, 4, 6)
SEEDS = [1, 2]


@torch.no_grad()
def exact(policy, prompt, noises, sigma_start, steps):
    """The flow from `sigma_start` to 0, without gradient, by the classical Runge-Kutta method in float64."""
    x, h = noises.double(), -sigma_start / steps
    for index in range(steps):
        t = sigma_start + index * h

        def v(z, level):
            return policy.velocity(z, level, prompt)

        k1 = v(x, t)
        k2 = v(x + h / 2 * k1, t + h / 2)
        k3 = v(x + h / 2 * k2, t + h / 2)
        k4 = v(x + h * k3, t + h)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return x


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2), ("unipc", 2)])
def test_errors_shrink_by_the_solvers_order(linear_policy, embeds, solver, order):
    prompt, noises = embeds[0][:2], initial_noise(SEEDS, SHAPE)
    truth = exact(linear_policy, prompt.double(), noises, 0.9, steps=400)

    def error(steps):
        schedule = SigmaSchedule.linear(steps, sigma_max=0.9)
        latents = sample_ode(linear_policy, prompt, schedule, noises=noises, solver=solver)
        return float((latents.double() - truth).abs().max())

    coarse, fine = error(16), error(64)
    assert coarse / fine == pytest.approx(4.0**order, rel=0.35)


@pytest.mark.parametrize("steps", [1, 2, 5, 20])
def test_unipc_is_the_loop_of_diffusers_on_float_levels(wan_policy, embeds, steps):
    prompt, noises = embeds[0][:2], initial_noise(SEEDS, SHAPE)
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    scheduler.set_timesteps(steps)
    expected = noises
    with torch.no_grad():
        for index, timestep in enumerate(scheduler.timesteps):
            velocity = wan_policy.velocity(expected, float(scheduler.sigmas[index]), prompt)
            expected = scheduler.step(velocity, timestep, expected, return_dict=False)[0]
    actual = sample_ode(wan_policy, prompt, wan_policy.schedule(steps), noises=noises, solver="unipc")
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def test_unipc_starts_from_pure_noise_without_infinities(linear_policy, embeds):
    latents = sample_ode(
        linear_policy,
        embeds[0][:2],
        SigmaSchedule.linear(8),
        seeds=SEEDS,
        latent_shape=SHAPE,
        solver="unipc",
    )
    assert latents.isfinite().all()


@pytest.mark.parametrize("transition", ["flow_sde", "dance_sde", "cps"])
def test_the_stochastic_solver_draws_the_samples_of_sample_sde(policy, embeds, transition):
    schedule, settings = SigmaSchedule.linear(4), SolverSettings("sde", transition, 0.5)
    expected = sample_sde(
        policy,
        embeds[0][:2],
        schedule,
        seeds=SEEDS,
        latent_shape=SHAPE,
        transition=transition,
        noise_scale=0.5,
    )
    trajectories = Trajectories(
        policy, Condition(embeds[0][:2]), settings.start(schedule, SEEDS), initial_noise(SEEDS, SHAPE)
    )
    while not trajectories.done:
        trajectories.evaluate()
        trajectories.advance()
    assert torch.equal(trajectories.x, expected)


@pytest.mark.parametrize(
    ("solver", "cfg_scale", "count"), [("euler", 1.0, 4), ("euler", 2.0, 8), ("heun", 1.0, 7)]
)
def test_evaluations_are_counted(linear_policy, embeds, solver, cfg_scale, count):
    trajectories = Trajectories(
        linear_policy,
        Condition(embeds[0][:2], embeds[1], cfg_scale),
        SolverSettings(solver).start(SigmaSchedule.linear(4)),
        initial_noise(SEEDS, SHAPE),
        micro_batch=1,
    )
    while not trajectories.done:
        trajectories.evaluate()
        trajectories.advance()
    assert trajectories.evaluations.tolist() == [count, count]
    passes = sum(size for size, _, _ in linear_policy.calls) * (2 if cfg_scale != 1.0 else 1)
    assert passes == 2 * count


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="solver is 'rk45', expected one of euler, heun, unipc, sde"):
        SolverSettings("rk45")
    with pytest.raises(ValueError, match="transition is 'langevin'"):
        SolverSettings("sde", "langevin")
    with pytest.raises(ValueError, match="noise_scale is 0"):
        SolverSettings("sde", noise_scale=0)
    with pytest.raises(ValueError, match="give the seeds"):
        SolverSettings("sde").start(SigmaSchedule.linear(4))
