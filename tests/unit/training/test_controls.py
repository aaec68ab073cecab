"""Does training do what it says? A learnable reward gains on held-out noises, and the controls do not."""

import torch

from formula_lgm import AlwaysOne, StandsRight
from vggrpo.rollout import sample_ode
from vggrpo.training import group_advantages

ITERATIONS = 6
OPTIONS = {
    "group_size": 12,
    "prompts_per_rollout": 3,
    "iterations": ITERATIONS,
    "rollout_batch": 12,
    "update_batch": 12,
    "train_steps": 4,
    "kl_coef": 0.0,
    "clip_eps": 1e-2,
}


@torch.no_grad()
def held_out_rewards(trainer):
    """`StandsRight` of 3 prompts x 16 noises that no rollout has drawn, by ODE."""
    scenes = [
        trainer.lgm(
            sample_ode(
                trainer.policy,
                embeds.expand(16, -1, -1),
                trainer.policy.schedule(6),
                seeds=list(range(16)),
                latent_shape=trainer.latent_shape,
            )
        )
        for embeds in trainer.prompt_embeds
    ]
    return torch.cat([StandsRight()(scene).value for scene in scenes])


def gain(trainer, shuffle_seed=None):
    """Mean paired difference of the held-out rewards, in standard deviations of the base model's."""
    before = held_out_rewards(trainer)
    shuffler = None if shuffle_seed is None else torch.Generator().manual_seed(shuffle_seed)
    for trainer.iteration in range(ITERATIONS):
        groups = [trainer.rollout(place, slot) for slot, place in enumerate(trainer.prompts_of_iteration())]
        scores = trainer.score(groups)
        advantages = group_advantages(scores.rewards, valid=scores.valid)
        if shuffler is not None:
            members = torch.randperm(advantages.numel(), generator=shuffler)
            advantages = advantages.flatten()[members].view_as(advantages)
        trainer.update(groups, advantages)
    return ((held_out_rewards(trainer) - before).mean() / before.std()).item()


def test_a_learnable_reward_gains_on_held_out_noises(make_trainer):
    assert gain(make_trainer(**OPTIONS)) > 3


def test_shuffled_advantages_do_not(make_trainer):
    gains = [gain(make_trainer(name=f"shuffled-{seed}", **OPTIONS), shuffle_seed=seed) for seed in range(4)]
    assert abs(sum(gains) / 4) < 1
    assert max(map(abs, gains)) < 3


def test_a_constant_reward_does_not(make_trainer):
    assert gain(make_trainer(AlwaysOne(), **OPTIONS)) == 0.0


def test_the_leash_holds_the_policy_near_the_base_model(make_trainer):
    free = gain(make_trainer(name="free", **OPTIONS))
    held = gain(make_trainer(name="held", **(OPTIONS | {"kl_coef": 100.0})))
    assert abs(held) < 0.5 * free
