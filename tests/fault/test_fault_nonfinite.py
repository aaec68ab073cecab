"""Values that are not finite: named by tensor and sample, and stopped before the weights; or left out."""

import math

import pytest
import torch
from faulty import Velocities, breaks, same, weights_of

from formula_lgm import AlwaysOne, StandsRight
from vggrpo.rollout import off_window_distance
from vggrpo.training import group_advantages
from vggrpo.training.policy_gradient import step_loss

SETTINGS = {"group_size": 4, "rollout_batch": 2, "weight_decay": 0.0}
"""Two groups of four; the rollout makes three passes for each batch of two, 12 in all."""


class SaysNaN(StandsRight):
    """Gives NaN for the second sample of the third batch, which it calls valid, or else not."""

    def __init__(self, valid: bool) -> None:
        self.batches, self.valid = 0, valid

    def score(self, scene):
        value, valid, parts = super().score(scene)
        self.batches += 1
        if self.batches == 3:
            value = torch.tensor([float(value[0]), math.nan])
            valid = torch.tensor([True, self.valid])
        return value, valid, parts


class NeverValid(StandsRight):
    def score(self, scene):
        value, valid, parts = super().score(scene)
        return torch.full_like(value, math.nan), ~valid, parts


@pytest.fixture
def stops(make_trainer):
    """Asserts that the second iteration stops with a message, and that the first one's state survives."""

    def check(trainer, message):
        before = weights_of(trainer)
        moments = [state["exp_avg"].clone() for state in trainer.optimizer.state.values()]
        with pytest.raises(FloatingPointError, match=message):
            trainer.train(until=2)
        assert same(weights_of(trainer), before)
        after = [state["exp_avg"] for state in trainer.optimizer.state.values()]
        assert all(torch.equal(*pair) for pair in zip(moments, after, strict=True))
        assert trainer.iteration == trainer.run.latest_checkpoint().step == 1
        assert [record["step"] for record in trainer.run.read_metrics()] == [1]
        assert not list(trainer.run.path.glob("pending*")), "a resumed run would meet it again"

    return check


@pytest.fixture
def trained(make_trainer):
    """A trainer after its first iteration."""

    def make(reward=None, **changes):
        trainer = make_trainer(reward, **SETTINGS, **changes)
        trainer.train(until=1)
        return trainer

    return make


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_latent(trained, stops, value):
    trainer = trained()
    prompt = trainer.prompts[trainer.prompts_of_iteration()[0]].id
    passes = Velocities(trainer, 5, breaks(row=1, value=value))
    stops(
        trainer,
        rf"velocity at sigma 0\.\d+ is not finite \(prompt {prompt}, sample 3 of its group, iteration 2\).*"
        "--skip-nonfinite",
    )
    assert passes.count == 5


def test_a_log_probability(trained):
    trainer = trained()
    groups = [trainer.rollout(place, slot) for slot, place in enumerate(trainer.prompts_of_iteration())]
    groups[1].old_log_probs[2, 0] = math.inf
    name = groups[1].prompt_id
    with pytest.raises(FloatingPointError, match=rf"log-probability .*\(prompt {name}, sample 2 of"):
        trainer.score(groups)


def test_a_reward(trained, stops):
    trainer = trained()
    prompt = trainer.prompts[trainer.prompts_of_iteration()[1]].id
    trainer.rewards = {"camera_motion": SaysNaN(valid=True)}
    stops(trainer, rf"reward camera_motion is nan .*\(prompt {prompt}, sample 1 of its group, iteration 2")


def test_a_velocity_in_the_update(trained, stops):
    trainer = trained()
    Velocities(trainer, 13, breaks(row=2))
    stops(trainer, r"velocity at sigma .* is not finite \(prompt prompt-\d, sample 2 of its group")


def test_a_loss(trained, stops):
    trainer = trained()
    trainer.settings = trainer.settings.model_copy(update={"kl_coef": 3e38})
    Velocities(trainer, 14, lambda velocity: velocity[3].fill_(1e15))
    stops(trainer, r"policy loss is not finite \(prompt prompt-\d, sample .*3 of its group")


def test_a_gradient(trained, stops):
    trainer = trained()
    name, parameter = list(trainer.policy.trainable_parameters().items())[5]
    parameter.register_hook(lambda gradient: gradient * math.nan)
    stops(trainer, rf"gradient of {name} is not finite \(prompt prompt-\d, sample 0, 1, 2, 3 of its group")


def gradient_of(trainer, groups, advantages):
    trainer.update(groups, advantages)
    return torch.cat([parameter.grad.flatten() for parameter in trainer.parameters])


@pytest.mark.parametrize("storage", ["cpu", "disk"])
def test_a_latent_that_is_left_out(make_trainer, storage):
    """The gradient is that of the others' objective, still over the group's size."""
    settings = SETTINGS | {"kl_coef": 0.1, "grad_clip": 1e9, "trajectory_storage": storage}
    trainer = make_trainer(skip_nonfinite=True, prompts_per_rollout=1, **settings)
    Velocities(trainer, 2, breaks(row=1))
    place = trainer.prompts_of_iteration()[0]
    groups = [trainer.rollout(place)]
    scores = trainer.score(groups)
    assert scores.valid.tolist() == [[True, False, True, True]]
    assert scores.frac_skipped == 0.25
    whole = make_trainer(name="whole", prompts_per_rollout=1, **settings)
    others = [0, 2, 3]
    assert torch.equal(groups[0].latents[:][others], whole.rollout(place).latents[:][others])

    advantages = group_advantages(scores.rewards, valid=scores.valid)
    gradient = gradient_of(trainer, groups, advantages)
    reference = whole.score([whole.rollout(place)]).rewards["camera_motion"][:, others]
    expected_advantages = group_advantages({"camera_motion": reference})
    assert torch.equal(advantages[:, others], expected_advantages)
    group, objective = whole.rollout(place), torch.zeros(())
    for step in range(group.num_steps):
        for member, advantage in zip(others, expected_advantages[0], strict=True):
            one = slice(member, member + 1)
            loss = step_loss(whole.policy, group, step, one, advantage[None], 1e-3, kl_coef=0.1)
            objective = objective + loss.loss / (4 * group.num_steps)
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(objective, whole.parameters)])
    assert (gradient - expected).norm() < 1e-4 * expected.norm()


def test_left_out_samples_are_counted(make_trainer):
    trainer = make_trainer(SaysNaN(valid=True), skip_nonfinite=True, **SETTINGS)
    Velocities(trainer, 2, breaks(row=1))
    trainer.train(until=2)
    first, second = trainer.run.read_metrics()
    assert first["group/frac_skipped"] == 2 / 8
    assert first["group/frac_invalid"] == 2 / 8
    assert second["group/frac_skipped"] == 0.0
    assert all(torch.isfinite(tensor).all() for tensor in weights_of(trainer).values())


class NaNBackwards(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * math.nan


def broken_at(trainer, state, kind):
    """Breaks the velocity at one state, or its gradient, whatever batch it is in."""
    whole = trainer.policy.velocity

    def velocity(x, *arguments, **options):
        result = whole(x, *arguments, **options)
        rows = list(result.unbind())
        for row, own in enumerate(x):
            if torch.equal(own, state):
                rows[row] = rows[row] * math.nan if kind == "velocity" else NaNBackwards.apply(rows[row])
        return torch.stack(rows)

    trainer.policy.velocity = velocity


@pytest.mark.parametrize("kind", ["velocity", "gradient"])
def test_a_loss_or_gradient_that_is_left_out(make_trainer, kind):
    """The gradient is that of all other losses, and of the broken member's other step."""
    settings = SETTINGS | {"kl_coef": 0.1, "grad_clip": 1e9, "update_batch": 4, "prompts_per_rollout": 1}
    trainer = make_trainer(skip_nonfinite=True, **settings)
    group = trainer.rollout(trainer.prompts_of_iteration()[0])
    advantages = torch.tensor([[1.0, -2.0, 0.5, 0.7]])
    objective = torch.zeros(())
    for step in range(group.num_steps):
        for member in range(4):
            if (step, member) != (1, 2):
                one = slice(member, member + 1)
                loss = step_loss(trainer.policy, group, step, one, advantages[0, one], 1e-3, kl_coef=0.1)
                objective = objective + loss.loss / (4 * group.num_steps)
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(objective, trainer.parameters)])

    broken_at(trainer, group.states[2, 1].clone(), kind)
    metrics = trainer.update([group], advantages)
    gradient = torch.cat([parameter.grad.flatten() for parameter in trainer.parameters])
    assert (gradient - expected).norm() < 1e-4 * expected.norm()
    assert metrics["policy/skipped"] == 1
    assert metrics["policy/ratio_mean"] == pytest.approx(1.0, abs=1e-6)
    assert all(torch.isfinite(tensor).all() for tensor in weights_of(trainer).values())


def test_a_shared_state_that_is_left_out_takes_all_its_members(make_trainer):
    shared = {"train_steps": 4, "sde_window_length": 2, "shared_noise": True, "update_batch": 4}
    trainer = make_trainer(skip_nonfinite=True, prompts_per_rollout=1, **SETTINGS | shared)
    group = trainer.rollout(trainer.prompts_of_iteration()[0])
    broken_at(trainer, group.states[0, 0].clone(), "velocity")
    metrics = trainer.update([group], torch.tensor([[1.0, -2.0, 0.5, 0.7]]))
    assert metrics["policy/skipped"] == 4
    assert metrics["policy/ratio_mean"] == pytest.approx(1.0, abs=1e-6)


def test_a_shared_state_names_all_its_members(make_trainer):
    shared = {"train_steps": 4, "sde_window_length": 2, "shared_noise": True, "update_batch": 4}
    trainer = make_trainer(prompts_per_rollout=1, **SETTINGS | shared)
    group = trainer.rollout(trainer.prompts_of_iteration()[0])
    broken_at(trainer, group.states[0, 0].clone(), "velocity")
    with pytest.raises(FloatingPointError, match=r"sample 0, 1, 2, 3 of its group"):
        trainer.update([group], torch.tensor([[1.0, -2.0, 0.5, 0.7]]))
    with pytest.raises(FloatingPointError, match=r"sample 0, 1, 2, 3 of its group"):
        trainer.rollout(trainer.prompts_of_iteration()[0])


def test_a_sample_that_was_left_out_is_not_held_to_the_base_model(make_trainer):
    settings = SETTINGS | {"train_steps": 4, "sde_window_length": 2, "prompts_per_rollout": 1}
    trainer = make_trainer(skip_nonfinite=True, **settings)
    with torch.no_grad():
        for parameter in trainer.parameters:
            parameter.add_(0.05)
    Velocities(trainer, 2, breaks(row=1))
    group = trainer.rollout(trainer.prompts_of_iteration()[0])
    assert not group.old_log_probs[1].isfinite().any()
    with torch.no_grad():
        whole = off_window_distance(trainer.policy, group, 0.3).item()
        each = [off_window_distance(trainer.policy, group, 0.3, slice(k, k + 1)).item() for k in range(4)]
    assert each[1] == 0.0
    assert min(each[0], each[2], each[3]) > 0.0
    assert whole == pytest.approx(sum(each) / 4, rel=1e-5)


def test_no_loss_is_left(trained, stops):
    trainer = trained(skip_nonfinite=True)
    parameter = next(iter(trainer.policy.trainable_parameters().values()))
    parameter.register_hook(lambda gradient: gradient * math.nan)
    stops(trainer, "no loss of an update in iteration 2 is finite: skip_nonfinite leaves nothing to train on")


def test_nothing_is_left(trained, stops):
    trainer = trained(skip_nonfinite=True)
    with torch.no_grad():
        trainer.prompt_embeds.fill_(math.nan)
    stops(trainer, "no sample of iteration 2 is finite: skip_nonfinite leaves nothing")


def test_a_reward_that_says_it_failed_stops_nothing(make_trainer):
    trainer = make_trainer(SaysNaN(valid=False), **SETTINGS)
    metrics = trainer.step()
    assert metrics["group/frac_invalid"] == 1 / 8
    assert "group/frac_skipped" not in metrics


def test_all_rewards_failed(make_trainer):
    """Nothing is learnt, nothing is scored as zero, and all of it is counted."""
    trainer = make_trainer(NeverValid(), **SETTINGS)
    before = weights_of(trainer)
    trainer.train(until=2)
    assert same(weights_of(trainer), before)
    for record in trainer.run.read_metrics():
        assert record["group/frac_invalid"] == 1.0
        assert "reward/camera_motion/mean" not in record


def test_groups_without_variance(make_trainer):
    trainer = make_trainer(AlwaysOne(), **SETTINGS)
    before = weights_of(trainer)
    trainer.train(until=2)
    assert same(weights_of(trainer), before)
    for record in trainer.run.read_metrics():
        assert record["group/frac_zero_std"] == 1.0
        assert record["reward/camera_motion/mean"] == 1.0
        assert record["group/frac_invalid"] == 0.0
