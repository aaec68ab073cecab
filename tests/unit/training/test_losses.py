import math

import pytest
import torch

from vggrpo.training.losses import policy_loss

CLIP_EPS, KL_COEF = 0.1, 0.4


def inputs(steps=4, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    shape = (6,) if steps is None else (6, steps)
    old = torch.randn(shape, generator=generator, dtype=dtype)
    new = old + 0.15 * torch.randn(shape, generator=generator, dtype=dtype)
    advantages = torch.randn((6,), generator=generator, dtype=dtype)
    kl = torch.rand(shape, generator=generator, dtype=dtype)
    return new, old, advantages, kl


def loop_reference(new, old, advantages, kl):
    """Sample by sample, step by step, in plain Python: (loss, clipped share)."""
    total, clipped, count = 0.0, 0, 0
    for n in range(new.shape[0]):
        for s in range(new.shape[1]):
            rho, advantage = math.exp(float(new[n, s] - old[n, s])), float(advantages[n])
            bounded = max(1 - CLIP_EPS, min(1 + CLIP_EPS, rho))
            total += -min(rho * advantage, bounded * advantage) + KL_COEF * float(kl[n, s])
            clipped += bounded * advantage < rho * advantage
            count += 1
    return total / count, clipped / count


def test_equals_a_plain_loop():
    new, old, advantages, kl = inputs()
    result = policy_loss(new, old, advantages, CLIP_EPS, kl, KL_COEF)
    loss, clip_frac = loop_reference(new, old, advantages, kl)
    assert float(result.loss) == pytest.approx(loss, rel=1e-12)
    assert 0 < clip_frac < 1
    assert float(result.clip_frac) == pytest.approx(clip_frac)
    assert float(result.kl) == pytest.approx(float(kl.detach().mean()))
    ratio = (new - old).exp()
    assert float(result.ratio_mean) == pytest.approx(float(ratio.mean()))
    assert float(result.ratio_deviation) == pytest.approx(float((ratio - 1).abs().max()))
    assert float(result.approx_kl) == pytest.approx(float((ratio - 1 - ratio.log()).mean()))


def test_gradcheck():
    new, old, advantages, kl = inputs()
    new.requires_grad_()
    kl.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda a, b: policy_loss(a, old, advantages, CLIP_EPS, b, KL_COEF).loss, (new, kl)
    )


def test_gradient_is_cut_off_exactly_where_the_ratio_is_clipped():
    log_ratio = torch.log(
        torch.tensor([1.2, 0.8, 1.2, 0.8, 1.05, 0.95], dtype=torch.float64)
    ).requires_grad_()
    advantages = torch.tensor([1.0, 1.0, -1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
    result = policy_loss(log_ratio, torch.zeros(6, dtype=torch.float64), advantages, CLIP_EPS)
    result.loss.backward()
    ratio = log_ratio.detach().exp()
    expected = -advantages * ratio / 6 * torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0, 1.0])
    torch.testing.assert_close(log_ratio.grad, expected)
    assert float(result.clip_frac) == pytest.approx(2 / 6)


def test_at_ratio_one_the_gradient_is_the_plain_policy_gradient():
    _, old, advantages, _ = inputs()
    log_prob = old.clone().requires_grad_()
    result = policy_loss(log_prob, old, advantages, clip_eps=1e-3)
    result.loss.backward()
    torch.testing.assert_close(log_prob.grad, -advantages.unsqueeze(1).expand(6, 4) / 24)
    assert float(result.ratio_deviation) == 0.0
    assert float(result.clip_frac) == 0.0
    assert float(result.approx_kl) == 0.0


def test_a_step_down_the_gradient_raises_the_log_prob_of_good_samples():
    _, old, advantages, _ = inputs()
    log_prob = old.clone().requires_grad_()
    policy_loss(log_prob, old, advantages, CLIP_EPS).loss.backward()
    assert torch.equal(torch.sign(-log_prob.grad), torch.sign(advantages).unsqueeze(1).expand(6, 4))


def test_advantages_per_sample_broadcast_over_steps():
    new, old, advantages, kl = inputs()
    spread = advantages.unsqueeze(1).expand(6, 4)
    per_sample = policy_loss(new, old, advantages, CLIP_EPS, kl, KL_COEF)
    per_step = policy_loss(new, old, spread, CLIP_EPS, kl, KL_COEF)
    assert torch.equal(per_sample.loss, per_step.loss)
    square = policy_loss(new[:4], old[:4], advantages[:4], CLIP_EPS)
    assert float(square.loss) == pytest.approx(
        float(policy_loss(new[:4], old[:4], advantages[:4].unsqueeze(1).expand(4, 4), CLIP_EPS).loss)
    )


def test_one_step_without_a_step_axis():
    new, old, advantages, kl = inputs(steps=None)
    flat = policy_loss(new, old, advantages, CLIP_EPS, kl, KL_COEF)
    column = policy_loss(new[:, None], old[:, None], advantages, CLIP_EPS, kl[:, None], KL_COEF)
    assert torch.equal(flat.loss, column.loss)


def test_minibatches_of_equal_size_average_to_the_whole():
    new, old, advantages, kl = inputs()
    whole = policy_loss(new, old, advantages, CLIP_EPS, kl, KL_COEF).loss
    halves = [
        policy_loss(new[half], old[half], advantages[half], CLIP_EPS, kl[half], KL_COEF).loss
        for half in (slice(0, 3), slice(3, 6))
    ]
    torch.testing.assert_close(torch.stack(halves).mean(), whole)


def test_kl_without_a_coefficient_is_only_reported():
    new, old, advantages, kl = inputs()
    new.requires_grad_()
    kl.requires_grad_()
    result = policy_loss(new, old, advantages, CLIP_EPS, kl)
    result.loss.backward()
    assert kl.grad is None
    assert float(result.kl) == pytest.approx(float(kl.detach().mean()))


def test_only_the_loss_carries_a_gradient():
    new, old, advantages, kl = inputs()
    new.requires_grad_()
    old.requires_grad_()
    advantages.requires_grad_()
    result = policy_loss(new, old, advantages, CLIP_EPS, kl.requires_grad_(), KL_COEF)
    result.loss.backward()
    assert old.grad is None
    assert advantages.grad is None
    others = [value for name, value in vars(result).items() if name != "loss"]
    assert len(others) == 8
    assert not any(value.requires_grad for value in others)
    assert set(result.metrics()) >= {"policy/ratio_mean", "policy/clip_frac", "policy/kl"}


def test_bad_arguments_are_refused():
    new, old, advantages, kl = inputs()
    with pytest.raises(ValueError, match="clip_eps is 0"):
        policy_loss(new, old, advantages, 0.0)
    with pytest.raises(ValueError, match="kl_coef is -1"):
        policy_loss(new, old, advantages, CLIP_EPS, kl, -1.0)
    with pytest.raises(ValueError, match="kl is None"):
        policy_loss(new, old, advantages, CLIP_EPS, kl_coef=0.004)
    with pytest.raises(ValueError, match=r"old_log_prob has shape \(6, 3\), expected \(6, 4\)"):
        policy_loss(new, old[:, :3], advantages, CLIP_EPS)
    with pytest.raises(ValueError, match=r"kl has shape \(6,\)"):
        policy_loss(new, old, advantages, CLIP_EPS, kl[:, 0])
    with pytest.raises(ValueError, match=r"advantages has shape \(5,\), expected \(6,\) or \(6, 4\)"):
        policy_loss(new, old, advantages[:5], CLIP_EPS)
    with pytest.raises(ValueError, match=r"expected \[N\] or \[N, S\]"):
        policy_loss(new[None], old[None], advantages, CLIP_EPS)
