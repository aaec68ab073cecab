"""One iteration of VGGRPO: rollout, score, advantages, update; and exact resume."""

import math
import os
import signal

import pytest
import torch

from formula_lgm import AlwaysOne, FailsBehind, StandsRight
from vggrpo.config import ConfigError
from vggrpo.io import load_tensors, verify_manifest
from vggrpo.rollout import off_window_distance
from vggrpo.training import group_advantages
from vggrpo.training.pending import rollout_key
from vggrpo.training.policy_gradient import PolicyGradient, levels_outside, step_loss


def gradient_of_update(trainer, groups, advantages):
    trainer.update(groups, advantages)
    return torch.cat([parameter.grad.flatten() for parameter in trainer.parameters])


def rollouts(trainer):
    return [trainer.rollout(place, slot) for slot, place in enumerate(trainer.prompts_of_iteration())]


def policy_of(trainer):
    return {name: p.detach().clone() for name, p in trainer.policy.trainable_parameters().items()}


def without_times(records):
    return [{k: v for k, v in record.items() if not k.startswith("time/")} for record in records]


def assert_same_run(first, second):
    """Weights, optimizer and metrics, bit for bit."""
    ours, theirs = policy_of(first), policy_of(second)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    files = [
        {path.name for path in t.run.latest_checkpoint().path.glob("*.safetensors")} for t in (first, second)
    ]
    assert files[0] == files[1] >= {"policy.safetensors", "optimizer.safetensors"}
    for file in files[0]:
        saved = [load_tensors(t.run.latest_checkpoint().path / file) for t in (first, second)]
        assert saved[0].keys() == saved[1].keys()
        assert all(torch.equal(tensor, saved[1][name]) for name, tensor in saved[0].items())
    assert without_times(first.run.read_metrics()) == without_times(second.run.read_metrics())


def test_before_the_first_update_the_ratio_is_one_and_the_kl_zero(make_trainer):
    metrics = make_trainer().step()
    assert metrics["policy/ratio_deviation"] <= 1e-6
    assert metrics["policy/ratio_mean"] == pytest.approx(1.0, abs=1e-6)
    assert metrics["policy/kl"] == 0.0
    assert metrics["policy/clip_frac"] == 0.0


@pytest.mark.parametrize("batched", [False, True])
def test_with_guidance_too(make_trainer, batched):
    metrics = make_trainer(cfg_scale=3.0, efficiency={"cfg_batched": batched}).step()
    assert metrics["policy/ratio_deviation"] <= 1e-6
    assert metrics["policy/kl"] == 0.0


def test_after_an_update_the_kl_to_the_base_model_is_positive(make_trainer):
    trainer = make_trainer()
    trainer.train(until=2)
    assert trainer.run.read_metrics()[-1]["policy/kl"] > 0


def test_metrics_have_their_names(make_trainer):
    metrics = make_trainer().step()
    assert set(metrics) == {
        *("reward/camera_motion/mean", "reward/camera_motion/std", "reward/camera_motion/frac_zero_std"),
        *("group/frac_zero_std", "group/frac_invalid"),
        *(f"policy/{name}" for name in ("loss", "surrogate", "ratio_mean", "ratio_deviation", "clip_frac")),
        *(f"policy/{name}" for name in ("approx_kl", "kl", "grad_norm")),
        *("cost/denoiser_forwards", "cost/denoiser_backwards"),
        *(f"time/{phase}" for phase in ("rollout", "score", "update")),
    }
    assert all(math.isfinite(value) for value in metrics.values())


def test_iterations_walk_through_permutations_of_the_prompts(make_trainer):
    trainer = make_trainer()
    places = []
    for trainer.iteration in range(6):
        places += trainer.prompts_of_iteration()
    assert [sorted(places[start : start + 3]) for start in (0, 3, 6, 9)] == [[0, 1, 2]] * 4
    assert len({tuple(places[start : start + 3]) for start in (0, 3, 6, 9)}) > 1


def test_a_sliding_window_visits_every_place_in_turn(make_trainer):
    trainer = make_trainer(train_steps=5, sde_window_length=2, sde_window_moves="slides", sde_window_stay=2)
    windows = []
    for trainer.iteration in range(8):
        windows.append(trainer.window())
    assert windows == [(0, 2), (0, 2), (1, 2), (1, 2), (2, 2), (2, 2), (0, 2), (0, 2)]
    trainer.iteration = 3
    assert trainer.rollout(0).sigmas == tuple(trainer.schedule.sigmas[1:4].tolist())


def test_a_window_that_moves_stays_in_its_range_and_the_leash_outside_it(make_trainer):
    trainer = make_trainer(
        train_steps=7,
        sde_window_length=1,
        sde_window_moves="random",
        sde_window_start=1,
        sde_window_stop=4,
        off_window_coef=0.1,
        off_window_sigma=0.8,
    )
    windows, levels = set(), set()
    groups = [trainer.rollout(0)]
    for trainer.iteration in range(20):
        windows.add(trainer.window())
        gradient = PolicyGradient(
            trainer.settings,
            trainer.policy,
            trainer.iteration,
            trainer.schedule,
            trainer.window(),
            groups,
            [[0, 1, 2, 3]],
            torch.zeros(1, 4),
            lambda: None,
        )
        levels.add(tuple(gradient.levels_outside))
    assert windows == {(1, 1), (2, 1), (3, 1)}
    sigmas = trainer.schedule.sigmas.tolist()
    outside = (sigmas[0], *sigmas[4:7])
    below = tuple(sigma for sigma in outside if sigma < 0.8)
    assert levels == {below}
    assert 0 < len(below) < len(outside)


def test_a_leash_without_a_level_is_refused(make_trainer):
    trainer = make_trainer(train_steps=4, sde_window_length=1, off_window_coef=0.1, off_window_sigma=0.1)
    with pytest.raises(
        ConfigError, match=r"off_window_sigma is 0\.1, but the lowest noise level outside the"
    ):
        levels_outside(trainer.settings, trainer.schedule)
    without = trainer.settings.model_copy(update={"off_window_coef": 0.0})
    assert levels_outside(without, trainer.schedule) == []


def test_a_random_window_is_drawn_anew_but_the_same_after_a_resume(make_trainer):
    changes = {"train_steps": 6, "sde_window_length": 2, "sde_window_moves": "random"}
    first, second = make_trainer(name="a", **changes), make_trainer(name="b", **changes)
    starts = []
    for iteration in range(40):
        first.iteration = second.iteration = iteration
        assert first.window() == second.window()
        starts.append(first.window()[0])
    assert set(starts) == {0, 1, 2, 3}


def test_rollouts_differ_between_iterations_members_and_runs_but_not_between_calls(make_trainer):
    trainer = make_trainer()
    first, again = trainer.rollout(0), trainer.rollout(0)
    assert torch.equal(first.latents, again.latents)
    assert not torch.equal(first.latents[0], first.latents[1])
    trainer.iteration = 1
    assert not torch.equal(trainer.rollout(0).latents, first.latents)
    assert not torch.equal(make_trainer(name="other", seed=1).rollout(0).latents, first.latents)


def test_the_seed_draws_the_lora(make_trainer):
    first, same, other = (policy_of(make_trainer(name=str(n), seed=n // 2)) for n in (0, 1, 2))
    assert all(torch.equal(tensor, same[name]) for name, tensor in first.items())
    assert any(not torch.equal(tensor, other[name]) for name, tensor in first.items())


def test_scores_are_the_rewards_of_the_latents_whatever_the_batch(make_trainer):
    trainer = make_trainer(rollout_batch=3)
    groups = rollouts(trainer)
    scores = trainer.score(groups)
    expected = torch.stack([group.latents[:, 0].mean(dim=(1, 2, 3)) for group in groups])
    torch.testing.assert_close(scores.rewards["camera_motion"], expected)
    assert scores.valid.all()


def test_invalid_samples_are_counted_and_have_no_advantage(make_trainer):
    trainer = make_trainer(FailsBehind(), group_size=8)
    scores = trainer.score(rollouts(trainer))
    assert scores.valid.any()
    assert not scores.valid.all()
    assert torch.equal(scores.valid, scores.rewards["camera_motion"].isfinite())
    advantages = group_advantages(scores.rewards, valid=scores.valid)
    assert (advantages[~scores.valid] == 0).all()
    metrics = trainer.step()
    assert metrics["group/frac_invalid"] == pytest.approx((~scores.valid).double().mean().item())
    assert math.isfinite(metrics["policy/loss"])


@pytest.mark.parametrize("cfg_scale", [1.0, 2.0])
def test_gradient_does_not_depend_on_the_pieces(make_trainer, cfg_scale):
    gradients = []
    for size in (1, 3, 4):
        trainer = make_trainer(
            name=f"pieces-{size}", update_batch=size, kl_coef=0.1, grad_clip=1e9, cfg_scale=cfg_scale
        )
        groups = rollouts(trainer)
        advantages = torch.tensor([[1.0, -2.0, 0.5, 0.5], [0.0, 3.0, -1.0, -2.0]])
        gradients.append(gradient_of_update(trainer, groups, advantages))
    for gradient in gradients[:2]:
        error = (gradient - gradients[2]).norm() / gradients[2].norm()
        assert error < 1e-4  # float32 sums in another order; a wrong weight would give 1e-1


def test_gradient_is_that_of_the_objective(make_trainer):
    """Against one backward pass through the mean over groups, members and steps."""
    trainer = make_trainer(update_batch=3, grad_clip=1e9, kl_coef=0.0)
    groups = rollouts(trainer)
    advantages = torch.tensor([[1.0, -2.0, 0.5, 0.5], [0.0, 3.0, -1.0, -2.0]])
    objective = torch.zeros(())
    for group, advantage in zip(groups, advantages, strict=True):
        for step in range(group.num_steps):
            loss = step_loss(trainer.policy, group, step, slice(None), advantage, 1e-3, kl_coef=0.0).loss
            objective = objective + loss / (len(groups) * group.num_steps)
    expected = torch.autograd.grad(objective, trainer.parameters)
    expected = torch.cat([gradient.flatten() for gradient in expected])
    gradient = gradient_of_update(trainer, groups, advantages)
    assert (gradient - expected).norm() < 1e-4 * expected.norm()


@pytest.mark.parametrize("members", [0, 3])
@pytest.mark.parametrize("size", [1, 4])
def test_outside_the_window_the_gradient_is_that_of_the_distance_to_the_base_model(
    make_trainer, size, members
):
    """With advantages of zero and no KL nothing else is left; a level is shared by a group's members."""
    trainer = make_trainer(
        update_batch=size,
        kl_coef=0.0,
        off_window_coef=0.5,
        off_window_members=members,
        skip_flat_groups=False,
        grad_clip=1e9,
    )
    with torch.no_grad():
        for parameter in trainer.parameters:
            parameter.add_(0.05)
    groups = rollouts(trainer)
    outside = trainer.schedule.sigmas[trainer.settings.sde_window.stop :].tolist()[:-1]
    assert len(outside) == 1  # every step but the last is stochastic
    held = slice(0, members or 4)
    distances = [off_window_distance(trainer.policy, group, outside[0], held) for group in groups]
    expected = torch.autograd.grad(0.5 * torch.stack(distances).mean(), trainer.parameters)
    expected = torch.cat([gradient.flatten() for gradient in expected])
    gradient = gradient_of_update(trainer, groups, torch.zeros(2, 4))
    assert expected.norm() > 0
    assert (gradient - expected).norm() < 1e-4 * expected.norm()


def test_later_updates_on_a_rollout_are_clipped(make_trainer):
    trainer = make_trainer(updates_per_rollout=4, group_size=8, clip_eps=1e-4)
    metrics = trainer.step()
    assert metrics["policy/clip_frac"] > 0
    assert metrics["policy/ratio_deviation"] > 1e-4


@pytest.mark.parametrize("size", [1, 4])
def test_the_deviation_of_the_ratio_is_its_greatest_whatever_the_pieces(make_trainer, size):
    trainer = make_trainer(updates_per_rollout=2, update_batch=size, lr=1e-6)
    groups = rollouts(trainer)
    groups[1].old_log_probs[3, 0] += 0.5  # of the second update, in which the ratio may be any
    metrics = trainer.update(groups, torch.tensor([[1.0, -2.0, 0.5, 0.5], [0.0, 3.0, -1.0, -2.0]]))
    assert metrics["policy/ratio_deviation"] == pytest.approx(1 - math.exp(-0.5), rel=1e-3)


def test_one_process_skips_a_loss_that_is_not_finite_whatever_several_would_share(make_trainer):
    trainer = make_trainer(skip_nonfinite=True, parallel="fsdp")
    before, groups = policy_of(trainer), rollouts(trainer)
    advantages = torch.tensor([[math.inf, -2.0, 0.5, 0.5], [0.0, 3.0, -1.0, -2.0]])
    metrics = trainer.update(groups, advantages)
    assert metrics["policy/skipped"] == groups[0].num_steps
    assert any(not torch.equal(tensor, before[name]) for name, tensor in policy_of(trainer).items())
    assert all(bool(tensor.isfinite().all()) for tensor in policy_of(trainer).values())


def test_the_panel_shows_the_change_since_the_first_iteration_from_the_second_on(
    make_trainer, monkeypatch, capsys
):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    monkeypatch.setenv("COLUMNS", "200")
    trainer = make_trainer()
    trainer.train(until=2)
    first, second = trainer.run.read_metrics()
    change = second["policy/kl"] - first["policy/kl"]
    assert change > 0
    assert f"kl {second['policy/kl']:.4g} ({change:+.2g})" in capsys.readouterr().err


def test_checkpointing_may_be_switched_on_when_a_run_goes_on_with_its_pending_rollouts(make_trainer):
    trainer = make_trainer()
    settings = trainer.settings.model_copy(update={"gradient_checkpointing": True})
    keys = [rollout_key(each, trainer.policy, [torch.ones(2)], [1]) for each in (trainer.settings, settings)]
    assert keys[0] == keys[1]
    make_trainer(resume=True, gradient_checkpointing=True)


def test_a_policy_that_does_not_score_as_it_drew_is_refused(make_trainer):
    trainer = make_trainer()
    groups = rollouts(trainer)
    groups[1].old_log_probs.add_(1e-3)
    with pytest.raises(FloatingPointError, match="before the first update on a rollout the ratio is off by"):
        trainer.update(groups, torch.ones(2, 4))


def test_a_lora_that_does_not_start_as_zero_is_refused(make_trainer):
    trainer = make_trainer()
    with torch.no_grad():
        for parameter in trainer.parameters:
            parameter.add_(0.01)
    with pytest.raises(FloatingPointError, match=r"KL to the base model is .*, not 0"):
        trainer.step()


def test_a_gradient_that_is_not_finite_updates_nothing(make_trainer):
    trainer = make_trainer()
    before, groups = policy_of(trainer), rollouts(trainer)
    with pytest.raises(FloatingPointError, match=r"policy loss is not finite \(prompt prompt-"):
        trainer.update(groups, torch.full((2, 4), torch.inf))
    assert all(torch.equal(tensor, before[name]) for name, tensor in policy_of(trainer).items())


def test_warm_up_counts_optimizer_steps(make_trainer):
    trainer = make_trainer(warmup_steps=4, updates_per_rollout=2, lr=1.0e-3)
    rates = []
    for _ in range(3):
        trainer.step()
        trainer.iteration += 1
        rates.append(trainer.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.5e-3, 1e-3, 1e-3])


@pytest.mark.parametrize("reward", [StandsRight(), FailsBehind()])
def test_resumed_is_the_run_that_was_not_interrupted(make_trainer, reward):
    options = {"updates_per_rollout": 2, "warmup_steps": 3, "checkpoint_every": 3, "ema_decay": 0.5}
    straight = make_trainer(reward, "straight", **options)
    straight.train(until=4)

    killed = make_trainer(reward, "resumed", **options)
    killed.train(until=2)
    killed.step()  # an iteration that was never saved
    killed.run.log(3, {"policy/kl": -1.0})
    resumed = make_trainer(reward, "resumed", resume=True, **options)
    resumed.resume()
    assert resumed.iteration == 2
    resumed.train(until=4)
    assert_same_run(resumed, straight)


def test_a_signal_stops_within_the_iteration_and_saves_the_state_before_it(make_trainer):
    class Stops(StandsRight):
        def score(self, scene):
            if trainer.iteration == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().score(scene)

    trainer = make_trainer(Stops(), "signalled", checkpoint_every=4)
    with pytest.raises(KeyboardInterrupt):
        trainer.train(until=4)
    checkpoint = trainer.run.latest_checkpoint()
    assert checkpoint.step == trainer.iteration == 1
    verify_manifest(checkpoint.path)

    straight = make_trainer(name="straight", checkpoint_every=4)
    straight.train(until=4)
    resumed = make_trainer(name="signalled", resume=True, checkpoint_every=4)
    resumed.resume()
    resumed.train(until=4)
    assert_same_run(resumed, straight)


def test_a_checkpoint_is_due_at_every_evaluation(make_trainer):
    trainer = make_trainer(checkpoint_every=100)
    trainer.train(until=1)
    assert trainer.run.latest_checkpoint().step == 1


def test_a_constant_reward_trains_nothing(make_trainer):
    trainer = make_trainer(AlwaysOne(), weight_decay=0.0)
    before = policy_of(trainer)
    trainer.train(until=3)
    assert all(torch.equal(tensor, before[name]) for name, tensor in policy_of(trainer).items())
    assert trainer.run.read_metrics()[-1]["group/frac_zero_std"] == 1.0
