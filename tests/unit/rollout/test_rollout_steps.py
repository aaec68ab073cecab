"""Steps outside the window: higher orders, fewer levels, and what they cost."""

import itertools

import pytest
import torch

from vggrpo.flow import TRANSITIONS, SigmaSchedule, ode_step
from vggrpo.rollout import RolloutSteps, initial_noise, sample_group, sample_sde, step_generators

SHAPE = (4, 2, 4, 6)
SEEDS = [11, 12, 13]


def draw(policy, embeds, schedule, **settings):
    return sample_group(policy, embeds[0][0], schedule, SEEDS, SHAPE, **settings)


def exact(prompt, x, sigma, sigma_end, steps=400):
    """The flow of the linear policy by the classical Runge-Kutta method in float64."""
    x, h, shift = x.double(), (sigma_end - sigma) / steps, prompt.double().mean()

    def v(z, t):
        return (1 + t) * z - shift

    for index in range(steps):
        t = sigma + index * h
        k1 = v(x, t)
        k2 = v(x + h / 2 * k1, t + h / 2)
        k3 = v(x + h / 2 * k2, t + h / 2)
        k4 = v(x + h * k3, t + h)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return x


def errors(policy, embeds, steps, solver, stride=1):
    """Relative errors of the ODE before the window, of the second third of the steps, and behind it."""
    schedule, third = SigmaSchedule.linear(steps, sigma_max=0.9), steps // 3
    group = draw(
        policy, embeds, schedule, window=(third, third), ode_solver=solver, ode_stride=stride, noise_scale=0.1
    )
    prompt = embeds[0][0]
    before = exact(prompt, initial_noise(SEEDS, SHAPE), 0.9, group.sigmas[0])
    after = exact(prompt, group.states[:, -1], group.sigmas[-1], 0.0)
    return [
        float((made.double() - truth).norm() / truth.norm())
        for made, truth in ((group.states[:, 0], before), (group.latents, after))
    ]


@pytest.mark.parametrize("solver", ["heun", "unipc"])
def test_higher_orders_converge_faster_on_both_sides_of_the_window(linear_policy, embeds, solver):
    coarse, fine = (errors(linear_policy, embeds, steps, solver) for steps in (12, 48))
    plain, plain_fine = (errors(linear_policy, embeds, steps, "euler") for steps in (12, 48))
    for side in range(2):
        assert coarse[side] < plain[side] / 3
        # Four times the steps: a quarter of the error at first order. At second order a sixteenth, which a
        # multistep method comes near to once its first step counts little.
        assert plain[side] / plain_fine[side] == pytest.approx(4, rel=0.35)
        assert coarse[side] / fine[side] > 7


def test_half_the_steps_at_second_order_are_better_than_all_at_first(linear_policy, embeds):
    halved = errors(linear_policy, embeds, 24, "unipc", stride=2)
    plain = errors(linear_policy, embeds, 24, "euler")
    assert all(ours < theirs for ours, theirs in zip(halved, plain, strict=True))


def test_a_stride_leaves_out_levels_but_never_the_windows_ends(linear_policy, embeds):
    schedule = SigmaSchedule.unipc(10, shift=3.0)
    group = draw(linear_policy, embeds, schedule, window=(3, 2), ode_stride=2)
    levels, prompt = schedule.sigmas.tolist(), embeds[0][0].expand(3, -1, -1)

    def along(x, places):
        for start, end in itertools.pairwise(places):
            velocity = linear_policy.velocity(x, levels[start], prompt)
            x = ode_step(x, velocity, levels[start], levels[end])
        return x.detach()

    assert torch.equal(group.states[:, 0], along(initial_noise(SEEDS, SHAPE), (0, 2, 3)))
    assert torch.equal(group.latents, along(group.states[:, -1], (5, 7, 9, 10)))
    assert group.sigmas == tuple(levels[3:6])
    # A step adds the noise of its number in the schedule, whatever was left out before it.
    x, x_next = group.states[:, 0], group.states[:, 1]
    velocity = linear_policy.velocity(x, levels[3], prompt)
    step = TRANSITIONS["flow_sde"](x, velocity, levels[3], levels[4], 0.7)
    assert torch.equal(x_next, step.sample(step_generators(SEEDS, 3)))


@pytest.mark.parametrize("solver", ["euler", "heun", "unipc"])
@pytest.mark.parametrize(("window", "stride"), [((0, 2), 1), ((3, 2), 2), ((2, 5), 3), ((0, 0), 2)])
@pytest.mark.parametrize("shared", [False, True])
def test_forwards_are_counted_before_they_are_made(linear_policy, embeds, solver, window, stride, shared):
    schedule = SigmaSchedule.linear(8)
    done = []
    draw(
        linear_policy,
        embeds,
        schedule,
        window=window,
        ode_solver=solver,
        ode_stride=stride,
        shared_noise_seed=5 if shared else None,
        micro_batch=2,
        on_step=lambda step, steps: done.append((step, steps)),
    )
    steps = RolloutSteps(schedule, window, ode_solver=solver, ode_stride=stride)
    assert sum(size for size, _, _ in linear_policy.calls) == steps.forwards(3, shared)
    assert done[-1][0] == done[-1][1] == len(done)


@pytest.mark.parametrize("solver", ["heun", "unipc"])
def test_the_stochastic_sampler_takes_the_same_steps(policy, embeds, solver):
    settings = {"window": (2, 2), "ode_solver": solver, "ode_stride": 2}
    schedule = SigmaSchedule.unipc(8, shift=3.0)
    group = draw(policy, embeds, schedule, **settings)
    prompts = embeds[0][:1].expand(3, -1, -1)
    samples = sample_sde(policy, prompts, schedule, seeds=SEEDS, latent_shape=SHAPE, **settings)
    assert torch.equal(samples, group.latents)


def test_bad_settings_are_refused():
    schedule = SigmaSchedule.linear(8)
    with pytest.raises(ValueError, match="ode_solver is 'sde', expected one of euler, heun, unipc"):
        RolloutSteps(schedule, ode_solver="sde")
    with pytest.raises(ValueError, match="ode_stride is 0, expected at least 1"):
        RolloutSteps(schedule, ode_stride=0)
