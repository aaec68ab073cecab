import pytest
import torch
from diffusers import UniPCMultistepScheduler

from vggrpo.flow import SigmaSchedule, shift_sigma


def test_linear_without_shift_is_even():
    schedule = SigmaSchedule.linear(4)
    assert schedule.num_steps == 4
    assert schedule.sigmas.dtype == torch.float64
    torch.testing.assert_close(
        schedule.sigmas, torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0], dtype=torch.float64)
    )


def test_linear_shift_moves_every_inner_level_up():
    expected = [3 * s / (1 + 2 * s) for s in (1.0, 0.75, 0.5, 0.25, 0.0)]
    sigmas = SigmaSchedule.linear(4, shift=3.0).sigmas
    torch.testing.assert_close(sigmas, torch.tensor(expected, dtype=torch.float64))
    assert (sigmas[1:-1] > SigmaSchedule.linear(4).sigmas[1:-1]).all()


@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0, 5.0])
def test_linear_starts_at_sigma_max_exactly_whatever_the_shift(shift):
    sigmas = SigmaSchedule.linear(10, shift=shift, sigma_max=0.999).sigmas
    assert float(sigmas[0]) == 0.999
    unshifted = sigmas / (shift - (shift - 1.0) * sigmas)
    steps = unshifted[:-1] - unshifted[1:]
    torch.testing.assert_close(steps, steps.mean().expand_as(steps))


@pytest.mark.parametrize("num_steps", [1, 4, 10, 50])
@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0])
def test_unipc_is_the_grid_of_diffusers(num_steps, shift):
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, num_train_timesteps=1000, flow_shift=shift
    )
    scheduler.set_timesteps(num_steps)
    sigmas = SigmaSchedule.unipc(num_steps, shift).sigmas
    torch.testing.assert_close(sigmas.float(), scheduler.sigmas.float(), rtol=0.0, atol=1e-7)


def test_levels_are_not_rounded_to_integer_timesteps():
    timesteps = 1000 * SigmaSchedule.unipc(10, shift=5.0).sigmas[1:-1]
    assert ((timesteps - timesteps.round()).abs() > 1e-3).all()


def test_steps_pair_neighbouring_levels():
    schedule = SigmaSchedule(torch.tensor([0.9, 0.4, 0.0]))
    assert list(schedule.steps()) == [schedule.step(0), schedule.step(1)]
    sigma, sigma_next = schedule.step(1)
    assert sigma == pytest.approx(0.4)
    assert sigma_next == 0.0


def test_the_schedule_does_not_follow_its_input():
    levels = torch.tensor([1.0, 0.5, 0.0])
    schedule = SigmaSchedule(levels)
    levels[1] = 0.9
    assert float(schedule.sigmas[1]) == 0.5


def test_shift_fixes_both_ends():
    torch.testing.assert_close(shift_sigma(torch.tensor([0.0, 1.0]), 5.0), torch.tensor([0.0, 1.0]))


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        ([1.0], r"at least|N >= 1"),
        ([[1.0, 0.0]], r"shape \(1, 2\)"),
        ([1.0, 0.5], r"end in 0"),
        ([1.5, 0.0], r"start in \(0, 1\]"),
        ([1.0, 0.4, 0.4, 0.0], r"sigmas\[1\] is 0\.4"),
        ([1.0, float("nan"), 0.0], r"finite"),
    ],
)
def test_bad_levels_are_refused(levels, message):
    with pytest.raises(ValueError, match=message):
        SigmaSchedule(torch.tensor(levels, dtype=torch.float64))


def test_bad_grid_arguments_are_refused():
    with pytest.raises(ValueError, match="num_steps is 0"):
        SigmaSchedule.linear(0)
    with pytest.raises(ValueError, match="shift is -1"):
        SigmaSchedule.unipc(4, shift=-1.0)
    with pytest.raises(ValueError, match=r"sigma_max is 1\.2"):
        SigmaSchedule.linear(4, sigma_max=1.2)
    with pytest.raises(ValueError, match="steps 0 to 3"):
        SigmaSchedule.linear(4).step(4)
