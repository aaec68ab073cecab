import pytest
import torch

from vggrpo.flow import Transition, draw_noise, flow_sde


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def transition(batch_size=3, std=0.5, seed=0):
    mean = torch.randn((batch_size, 2, 3, 4), generator=torch.Generator().manual_seed(seed))
    return Transition(mean, torch.full((batch_size,), std))


def test_sample_has_the_mean_and_std_of_the_transition():
    wide = Transition(torch.full((2, 40000), 1.5), torch.tensor([0.5, 2.0]))
    x = wide.sample(torch.Generator().manual_seed(1))
    torch.testing.assert_close(x.mean(dim=1), torch.full((2,), 1.5), rtol=0.0, atol=4 * 2.0 / 200)
    torch.testing.assert_close(x.std(dim=1), wide.std, rtol=4 / 283, atol=0.0)


def test_a_generator_per_sample_makes_noise_independent_of_the_batch():
    step = transition()
    together = step.sample(generators(7, 8, 9))
    for i, seed in enumerate((7, 8, 9)):
        alone = Transition(step.mean[i : i + 1], step.std[i : i + 1]).sample(generators(seed))
        assert torch.equal(together[i : i + 1], alone)


def test_sample_is_repeatable_and_without_gradient():
    x = torch.randn(2, 8)
    velocity = torch.randn(2, 8, requires_grad=True)
    step = flow_sde(x, velocity, 0.7, 0.5)
    first, second = (step.sample(torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert not first.requires_grad


def test_sample_with_the_wrong_number_of_generators_is_refused():
    with pytest.raises(ValueError, match="2 generators for a batch of 3"):
        transition().sample(generators(0, 1))


def test_draw_noise_takes_row_i_from_generator_i():
    noise = draw_noise(generators(4, 5), (2, 3))
    assert torch.equal(noise[1], torch.randn((2, 3), generator=generators(5)[0]))


def test_log_prob_is_a_mean_and_does_not_grow_with_the_video():
    small = Transition(torch.zeros(1, 10), torch.ones(1))
    large = Transition(torch.zeros(1, 1000), torch.ones(1))
    torch.testing.assert_close(small.log_prob(torch.ones(1, 10)), large.log_prob(torch.ones(1, 1000)))


def test_log_prob_of_a_rounded_state_scores_that_state():
    step = transition()
    stored = step.sample(torch.Generator().manual_seed(0)).bfloat16()
    assert torch.equal(step.log_prob(stored), step.log_prob(stored.float()))
    assert step.log_prob(stored).dtype == torch.float32


def test_kl_of_a_transition_with_itself_is_zero():
    assert torch.equal(transition().kl(transition()), torch.zeros(3))


def test_a_deterministic_step_has_no_log_prob():
    step = Transition(torch.zeros(3, 4), torch.tensor([0.5, 0.0, 0.0]))
    with pytest.raises(ValueError, match=r"log_prob is undefined for a deterministic.*samples \[1, 2\]"):
        step.log_prob(torch.zeros(3, 4))
    with pytest.raises(ValueError, match="kl is undefined for a deterministic"):
        step.kl(step)


def test_shapes_and_steps_must_agree():
    with pytest.raises(ValueError, match=r"expected \[B\] and \[B, \.\.\.\]"):
        Transition(torch.zeros(3, 4), torch.ones(2))
    with pytest.raises(ValueError, match="x_next has shape"):
        transition().log_prob(torch.zeros(3, 2, 3, 5))
    with pytest.raises(ValueError, match=r"other\.mean has shape"):
        transition().kl(transition(batch_size=2))
    with pytest.raises(ValueError, match="same step"):
        transition(std=0.5).kl(transition(std=0.25))
