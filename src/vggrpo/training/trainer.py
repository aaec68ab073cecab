"""VGGRPO: the policy is aligned with geometry rewards that are read straight from its latents.

One iteration is the method, in its order:

    rollout      K stochastic denoising trajectories of each prompt, under the current policy
    score        latents -> latent geometry model -> rewards, each [G, K]
    advantages   z-scores within each prompt's group, averaged over the rewards
    update       clipped policy gradient with a KL leash to the base model (the policy with its LoRA off)

Neither the autoencoder nor the text encoder is in memory meanwhile. All randomness is a function of the run's
seed and of counters, so a resumed run is the run that was never interrupted.
"""

import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from vggrpo.backbones import VideoBackbone
from vggrpo.config import TrainSettings
from vggrpo.data import Prompt
from vggrpo.io import RunFolder, derive_seed, load_tensors, progress, save_tensors
from vggrpo.lgm import LatentGeometryModel
from vggrpo.rewards import SceneReward
from vggrpo.rollout import RolloutGroup, rescore, sample_group
from vggrpo.training.advantages import group_advantages, group_statistics
from vggrpo.training.interrupt import deferred_stop
from vggrpo.training.loop import require_finite
from vggrpo.training.losses import PolicyLoss, policy_loss
from vggrpo.training.optim import (
    gradient_norm,
    load_optimizer_tensors,
    optimizer_tensors,
    parameter_group,
    set_learning_rate,
)
from vggrpo.training.order import shuffled_places
from vggrpo.training.ranks import Ranks
from vggrpo.training.scoring import Scores, counted_weights, score_samples

RATIO_TOLERANCE = 1e-6
"""How far the ratio may be from 1 before the first update on a rollout: float32 rounding."""
LORA_FOLDER = "lora"


class VGGRPOTrainer:
    """Aligns a policy with the rewards of a latent geometry model.

    Args:
        settings: of the run.
        run: its folder.
        policy: the video model; gets its LoRA here.
        lgm: frozen; its autoencoder must be the policy's.
        rewards: by name, SceneGeometry to Reward.
        prompts: to train on.
        prompt_embeds: [N, L, D] of the prompts, on the policy's device.
        negative_prompt_embeds: [L, D], needed where `cfg_scale` is not 1.
        ranks: the processes that share the run; this one alone by default.
    """

    def __init__(
        self,
        settings: TrainSettings,
        run: RunFolder,
        policy: VideoBackbone,
        lgm: LatentGeometryModel,
        rewards: Mapping[str, SceneReward],
        prompts: Sequence[Prompt],
        prompt_embeds: Tensor,
        negative_prompt_embeds: Tensor | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self.ranks = ranks or Ranks()
        lgm.check_latents(policy.latent_spec, settings.base_model)
        self.settings, self.run, self.policy, self.lgm = settings, run, policy, lgm
        self.weights = counted_weights(settings.reward_weights, rewards)
        self.rewards = {name: rewards[name] for name in self.weights}
        self.prompts = list(prompts)
        self.prompt_embeds, self.negative_prompt_embeds = prompt_embeds, negative_prompt_embeds
        self.schedule = policy.schedule(settings.train_steps)
        self.latent_shape = policy.latent_shape(settings.num_frames, settings.height, settings.width)
        policy.add_lora(settings.lora_rank, settings.lora_alpha, settings.lora_targets, settings.seed)
        self.parameters = list(policy.trainable_parameters().values())
        self.optimizer = torch.optim.AdamW(
            [parameter_group(self.parameters, settings.lr, settings.weight_decay)],
            betas=(settings.beta1, settings.beta2),
        )
        self.iteration = 0
        """Iterations done."""

    def resume(self) -> None:
        """Continues from the run's newest valid checkpoint, if there is one."""
        checkpoint = self.ranks.of_first(self.run.latest_checkpoint() if self.ranks.is_first else None)
        if checkpoint is not None:
            parameters = self.policy.trainable_parameters()
            saved = load_tensors(checkpoint.path / "policy.safetensors")
            with torch.no_grad():
                for name, parameter in parameters.items():
                    parameter.copy_(saved[name])
            load_optimizer_tensors(self.optimizer, load_tensors(checkpoint.path / "optimizer.safetensors"))
            self.iteration = checkpoint.step
        if self.ranks.is_first:
            self.run.truncate_metrics(self.iteration)

    def train(self, until: int) -> None:
        """Runs iterations up to number `until`, with checkpoints, one of them at `until`.

        A stop request (SIGINT, SIGTERM, SIGUSR1) to any rank ends it at an iteration's boundary.

        Raises:
            KeyboardInterrupt: after a stop request, with everything saved.
            FloatingPointError: if a loss or gradient is not finite; the policy is not updated with it.
        """
        settings = self.settings
        with (
            progress(
                "align policy", settings.iterations, self.iteration, "iteration", self.ranks.console
            ) as bar,
            deferred_stop() as stop,
        ):
            while self.iteration < until:
                metrics = self.step()
                self.iteration += 1
                if self.ranks.is_first:
                    self.run.log(self.iteration, metrics)
                bar.advance(**{name: metrics[name] for name in self._shown(metrics)})
                stop.requested = self.ranks.any(stop.requested)
                due = self.iteration % settings.checkpoint_every == 0
                if due or stop.requested or self.iteration == until:
                    self.save_checkpoint()
                stop.check()

    def step(self) -> dict[str, float]:
        """One iteration; returns its metrics."""
        metrics: dict[str, float] = {}
        with _timed(metrics, "rollout"):
            groups = [self.rollout(place, slot) for slot, place in enumerate(self.prompts_of_iteration())]
        with _timed(metrics, "score"):
            scores = self.score(groups)
        advantages = group_advantages(
            scores.rewards, self.weights, scores.valid, self.settings.advantage_clip
        )
        with _timed(metrics, "update"):
            metrics |= self.update(groups, advantages)
        return group_statistics(scores.rewards, scores.valid) | metrics

    def prompts_of_iteration(self) -> list[int]:
        """Places of the iteration's prompts: the run walks through permutations of all of them."""
        size = self.settings.prompts_per_rollout
        start = self.iteration * size
        return shuffled_places(len(self.prompts), start, size, self.settings.seed, "prompts")

    def window(self) -> tuple[int, int]:
        """(start, length) of the iteration's stochastic steps."""
        settings, places = self.settings, self.settings.window_places
        start = settings.sde_window.start
        if settings.sde_window_moves == "slides":
            start = self.iteration // settings.sde_window_stay % len(places)
        elif settings.sde_window_moves == "random":
            start = derive_seed(settings.seed, "window", self.iteration) % len(places)
        return start, len(settings.sde_window)

    def members(self, slot: int) -> list[int]:
        """Which members of the iteration's group number `slot` are this rank's."""
        return self.ranks.members(self.settings.group_size, slot)

    def rollout(self, place: int, slot: int = 0) -> RolloutGroup:
        """This rank's trajectories of the prompt at `place`, as the iteration's group number `slot`."""
        settings, prompt = self.settings, self.prompts[place]
        # The slot keeps two groups apart when an iteration draws one prompt twice.
        stream = (settings.seed, "rollout", self.iteration, slot, prompt.id)
        return sample_group(
            self.policy,
            self.prompt_embeds[place],
            self.schedule,
            seeds=[derive_seed(*stream, k) for k in self.members(slot)],
            latent_shape=self.latent_shape,
            prompt_id=prompt.id,
            transition=settings.transition,
            noise_scale=settings.noise_scale,
            window=self.window(),
            cfg_scale=settings.cfg_scale,
            negative_prompt_embeds=self.negative_prompt_embeds,
            shared_noise_seed=derive_seed(*stream) if settings.shared_noise else None,
            micro_batch=settings.rollout_batch,
            storage_device="cpu",
        )

    def score(self, groups: Sequence[RolloutGroup]) -> Scores:
        """Every reward of every sample of all ranks, through the latent geometry model."""
        latents = torch.cat([group.latents for group in groups])
        own = score_samples(latents, self.lgm, self.rewards, self.settings.rollout_batch)
        places = [(slot, member) for slot in range(len(groups)) for member in self.members(slot)]
        slots, members = zip(*places, strict=True)

        def of_all_ranks(values: Tensor) -> Tensor:
            whole = values.new_zeros(len(groups), self.settings.group_size)
            whole[list(slots), list(members)] = values
            self.ranks.sum_([whole])
            return whole

        rewards = {name: of_all_ranks(values) for name, values in own.rewards.items()}
        return Scores(rewards, of_all_ranks(own.valid.int()).bool())

    def update(self, groups: Sequence[RolloutGroup], advantages: Tensor) -> dict[str, float]:
        """`updates_per_rollout` optimizer steps, each on its share of every group's members."""
        share = self.settings.group_size // self.settings.updates_per_rollout
        totals: dict[str, float] = defaultdict(float)
        norms = 0.0
        for number in range(self.settings.updates_per_rollout):
            self.optimizer.zero_grad(set_to_none=True)
            first = number * share
            for weight, loss in self._backward(groups, advantages, range(first, first + share)):
                if number == 0:
                    self._check_on_policy(loss)
                for name, value in loss.metrics().items():
                    totals[name] += weight * value / self.settings.updates_per_rollout
            self._exchange_gradients()
            norm = gradient_norm(self.parameters)
            require_finite(self.iteration, {"policy gradient": norm})
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.settings.grad_clip, norm)
            warmup = self.settings.warmup_steps
            done = self.iteration * self.settings.updates_per_rollout + number
            set_learning_rate(self.optimizer, min(1.0, (done + 1) / warmup) if warmup else 1.0)
            self.optimizer.step()
            norms += norm.item() / self.settings.updates_per_rollout
        return self.ranks.sum_figures(totals) | {"policy/grad_norm": norms}

    def _exchange_gradients(self) -> None:
        """Makes the gradients the sum of all ranks'; one without a member in this update adds nothing."""
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self.ranks.sum_([parameter.grad for parameter in self.parameters if parameter.grad is not None])

    def _backward(
        self, groups: Sequence[RolloutGroup], advantages: Tensor, members: range
    ) -> Iterator[tuple[float, PolicyLoss]]:
        """Adds this rank's part of the gradient of the mean loss over groups, members and steps, in small
        pieces.

        Yields each piece's share of the mean with its loss, after its backward pass.
        """
        size = self.settings.update_batch
        for slot, (group, group_advantages_) in enumerate(zip(groups, advantages, strict=True)):
            own = self.members(slot)
            # The group holds this rank's members, in their order: those of the update are a run of them.
            first, stop = bisect_left(own, members.start), bisect_left(own, members.stop)
            own_advantages = group_advantages_[own]
            for piece in (slice(i, min(i + size, stop)) for i in range(first, stop, size)):
                for step in range(group.num_steps):
                    loss = self.step_loss(group, step, piece, own_advantages[piece])
                    require_finite(self.iteration, {f"policy loss of prompt {group.prompt_id}": loss.loss})
                    weight = (piece.stop - piece.start) / (len(members) * len(groups) * group.num_steps)
                    (weight * loss.loss).backward()
                    yield weight, loss

    def step_loss(self, group: RolloutGroup, step: int, members: slice, advantages: Tensor) -> PolicyLoss:
        """The clipped loss of one denoising step of some members [B]."""
        current = rescore(self.policy, group, step, members)
        kl = None
        if self.settings.kl_coef:
            with torch.no_grad(), self.policy.lora_disabled():
                reference = rescore(self.policy, group, step, members)
            kl = current.transition.kl(reference.transition)
        return policy_loss(
            current.log_prob,
            group.old_log_probs[members, step],
            advantages.to(current.log_prob.device),
            self.settings.clip_eps,
            kl,
            self.settings.kl_coef,
        )

    def _check_on_policy(self, loss: PolicyLoss) -> None:
        """Before the first update on a rollout the policy is the one that drew it; before all updates, the
        base.

        Raises:
            FloatingPointError: if the ratio is not 1, or the KL not 0.
        """
        deviation, kl = loss.ratio_deviation.item(), loss.kl.item()
        if deviation > RATIO_TOLERANCE:
            raise FloatingPointError(
                f"before the first update on a rollout the ratio is off by {deviation:.2g} (at most "
                f"{RATIO_TOLERANCE:.0e} is rounding): the policy does not score its own samples as it drew "
                "them. Use precision float32"
            )
        if self.iteration == 0 and kl > 0:
            raise FloatingPointError(
                f"before the first update the KL to the base model is {kl:.2g}, not 0: the LoRA does not "
                "start as zero"
            )

    def save_checkpoint(self) -> None:
        """Writes policy and optimizer after `iteration` iterations, and the LoRA in diffusers' format."""

        def write(folder: Path) -> None:
            save_tensors(folder / "policy.safetensors", self.policy.trainable_parameters())
            save_tensors(folder / "optimizer.safetensors", optimizer_tensors(self.optimizer))
            self.policy.save_lora(folder / LORA_FOLDER)

        self.ranks.require_equal("the policy's weights", self.parameters)
        if self.ranks.is_first:
            self.run.save_checkpoint(self.iteration, write, keep_last=self.settings.keep_checkpoints)
        self.ranks.wait()

    def _shown(self, metrics: Mapping[str, float]) -> list[str]:
        rewards = [f"reward/{name}/mean" for name in self.rewards]
        return [name for name in (*rewards, "policy/kl", "policy/clip_frac") if name in metrics]


@contextmanager
def _timed(metrics: dict[str, float], phase: str) -> Iterator[None]:
    """Notes the seconds of a block as time/<phase>."""
    began = time.perf_counter()
    yield
    metrics[f"time/{phase}"] = time.perf_counter() - began
