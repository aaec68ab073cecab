"""VGGRPO: the policy is aligned with geometry rewards that are read straight from its latents.

One iteration is the method, in its order:

    rollout      K stochastic denoising trajectories of each prompt, under the current policy
    score        latents -> latent geometry model -> rewards, each [G, K]
    advantages   z-scores within each prompt's group, averaged over the rewards
    update       clipped policy gradient with a KL leash to the base model (the policy with its LoRA off)

Neither the autoencoder nor the text encoder is in memory meanwhile. All randomness is a function of the run's
seed and of counters, so a resumed run is the run that was never interrupted.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import Tensor

from vggrpo.backbones import VideoBackbone
from vggrpo.config import TrainSettings
from vggrpo.data import Prompt
from vggrpo.io import Histogram, RunFolder, derive_seed, progress, save_tensors
from vggrpo.lgm import LatentGeometryModel
from vggrpo.rewards import SceneReward
from vggrpo.rollout import RolloutGroup, RolloutSteps, sample_group
from vggrpo.training.advantages import group_advantages, group_statistics
from vggrpo.training.average import WeightAverage
from vggrpo.training.finite import LOWER, SKIP, left_out, naming_samples
from vggrpo.training.interrupt import Stopped, StopRequest, deferred_stop, undone_if_stopped
from vggrpo.training.loop import AVERAGE_FILE, require_finite
from vggrpo.training.optim import (
    gradient_norm,
    load_optimizer_tensors,
    optimizer_tensors,
    parameter_group,
    read_state,
    set_learning_rate,
)
from vggrpo.training.order import shuffled_places
from vggrpo.training.parallel import spread
from vggrpo.training.pending import (
    forget,
    pending_folder,
    remove_foreign,
    rollout_key,
    scratch_folder,
    tidied,
)
from vggrpo.training.phases import Phases, first_metrics, shown
from vggrpo.training.policy_gradient import FORWARDS, PolicyGradient, means
from vggrpo.training.ranks import Ranks
from vggrpo.training.scoring import Scores, counted_weights, score_group

LORA_FOLDER = "lora"
POLICY_FILE, OPTIMIZER_FILE = "policy.safetensors", "optimizer.safetensors"
STORED = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class VGGRPOTrainer:
    """Aligns a policy with the rewards of a latent geometry model.

    Args:
        settings: of the run.
        run: its folder.
        policy: the video model; gets its LoRA here.
        lgm: frozen; its autoencoder must be the policy's.
        rewards: by name, SceneGeometry to Reward.
        prompts: to train on.
        prompt_embeds: [N, L, D] of the prompts, on any device.
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
        self.latent_shape = policy.latent_shape(settings.num_frames, settings.height, settings.width)
        self.schedule = policy.schedule(settings.train_steps, self.latent_shape)
        policy.add_lora(settings.lora_rank, settings.lora_alpha, settings.lora_targets, settings.seed)
        spread(policy, self.ranks, settings.parallel, self.latent_shape)
        self.parameters = list(policy.trainable_parameters().values())
        self.optimizer = torch.optim.AdamW(
            [parameter_group(self.parameters, settings.lr, settings.weight_decay)],
            betas=(settings.beta1, settings.beta2),
        )
        self.average: WeightAverage | None = None
        """Of the LoRA over the iterations, where the settings ask for one."""
        if settings.ema_decay:
            self.average = WeightAverage(policy.trainable_parameters(), settings.ema_decay)
        self.iteration = 0
        """Iterations done."""
        self.histograms: dict[str, Histogram] = {}
        """Of the newest update, over all ranks."""
        self.stop = StopRequest()
        self.pending, self.scratch = pending_folder(run, self.ranks), scratch_folder(run, self.ranks)
        self.phases = Phases()

    def resume(self) -> None:
        """Continues from the run's newest valid checkpoint, if there is one; it is read whole before anything
        changes.
        """
        checkpoint = self.ranks.of_first(
            self.run.latest_checkpoint(self._read_checkpoint) if self.ranks.is_first else None
        )
        if checkpoint is not None:
            found = self._read_checkpoint(checkpoint.path)
            with torch.no_grad():
                for name, parameter in self.policy.trainable_parameters().items():
                    parameter.copy_(found[checkpoint.path / POLICY_FILE][name])
            load_optimizer_tensors(self.optimizer, found[checkpoint.path / OPTIMIZER_FILE])
            if self.average is not None:
                saved = found.get(checkpoint.path / AVERAGE_FILE)
                self.average.load(saved or self.policy.trainable_parameters())
            self.iteration = checkpoint.step
        if self.ranks.is_first:
            self.run.truncate_metrics(self.iteration)
            remove_foreign(self.run, self.ranks)

    def _read_checkpoint(self, folder: Path) -> dict[Path, dict[str, Tensor]]:
        weights: dict[Path, Mapping[str, Tensor]] = {folder / POLICY_FILE: self.policy.trainable_parameters()}
        # A checkpoint without an average is of a run that had none until now: a missing file is found before.
        if self.average is not None and (folder / AVERAGE_FILE).exists():
            weights[folder / AVERAGE_FILE] = self.average.tensors
        return read_state(weights, {folder / OPTIMIZER_FILE: self.optimizer})

    def averaged(self) -> AbstractContextManager[None]:
        """Within the context the policy is the average of its LoRA, where the settings ask for one."""
        return self.average.applied() if self.average is not None else nullcontext()

    def train(self, until: int) -> None:
        """Runs iterations up to number `until`, with checkpoints, one of them at `until`.

        A stop request (SIGINT, SIGTERM, SIGUSR1) to any rank ends it at the next forward pass of the denoiser
        or batch of scores: the state is then that before the iteration, whose finished rollouts are kept on
        disk.

        Raises:
            Stopped: after a stop request, with everything saved.
            FloatingPointError: if a sample, reward, loss or gradient is not finite; the policy is not updated
                with it.
        """
        settings = self.settings
        first = first_metrics(self.run.read_metrics())
        with (
            progress(
                "align policy",
                settings.iterations,
                self.iteration,
                "iteration",
                self.ranks.console,
                first,
            ) as self.phases.bar,
            deferred_stop() as self.stop,
        ):
            while self.iteration < until:
                try:
                    metrics = self.step()
                except Stopped:
                    self.save_checkpoint()
                    raise
                self.iteration += 1
                if self.iteration == 1:
                    first |= metrics
                if self.ranks.is_first:
                    self.run.log(self.iteration, metrics)
                    self.run.log_histograms(self.iteration, self.histograms)
                self.phases.bar.advance(**shown(metrics, list(self.rewards)))
                stopping = self.stop.of_any(self.ranks)
                due = self.iteration % settings.checkpoint_every == 0
                if due or stopping or self.iteration == until:
                    self.save_checkpoint()
                forget(self.pending)
                if stopping:
                    raise Stopped

    def step(self) -> dict[str, float]:
        """One iteration; returns its metrics."""
        metrics: dict[str, float] = {}
        with tidied(self.pending, self.scratch):
            with self.phases.timed(metrics, "rollout"), self.stop.together(self.ranks):
                groups = [self.rollout(place, slot) for slot, place in enumerate(self.prompts_of_iteration())]
            with self.phases.timed(metrics, "score"):
                scores = self.score(groups)
            if self.settings.skip_nonfinite:
                metrics["group/frac_skipped"] = scores.frac_skipped
            advantages = group_advantages(
                scores.rewards, self.weights, scores.valid, self.settings.advantage_clip
            )
            with self.phases.timed(metrics, "update"):
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
        place = 0
        if settings.sde_window_moves == "slides":
            place = self.iteration // settings.sde_window_stay % len(places)
        elif settings.sde_window_moves == "random":
            place = derive_seed(settings.seed, "window", self.iteration) % len(places)
        return places[place], len(settings.sde_window)

    def members(self, slot: int) -> list[int]:
        """Which members of the iteration's group number `slot` are this rank's."""
        number = self.iteration * self.settings.prompts_per_rollout + slot
        return self.ranks.members(self.settings.group_size, number)

    def rollout(self, place: int, slot: int = 0) -> RolloutGroup:
        """This rank's trajectories of the prompt at `place`, as the iteration's group number `slot`."""
        settings, prompt = self.settings, self.prompts[place]
        # The slot keeps two groups apart when an iteration draws one prompt twice.
        stream = (settings.seed, "rollout", self.iteration, slot, prompt.id)
        seeds = [derive_seed(*stream, k) for k in self.members(slot)]
        on_disk, kept = settings.trajectory_storage == "disk", settings.keep_rollouts
        folder = (self.pending if kept else self.scratch) / f"group_{slot}" if kept or on_disk else None
        embeds = self.prompt_embeds[place].to(self.policy.device)
        prompts = (embeds, self.negative_prompt_embeds)

        def on_step(done: int, total: int) -> None:
            self.stop.check()
            self.phases.show("rollout", done + slot * total, settings.prompts_per_rollout * total)

        with naming_samples(self.iteration, prompt.id, self.members(slot), SKIP):
            return sample_group(
                self.policy,
                embeds,
                self.schedule,
                seeds=seeds,
                latent_shape=self.latent_shape,
                prompt_id=prompt.id,
                transition=settings.transition,
                noise_scale=settings.noise_scale,
                window=self.window(),
                ode_solver=settings.ode_solver,
                ode_stride=settings.ode_stride,
                cfg_scale=settings.cfg_scale,
                negative_prompt_embeds=self.negative_prompt_embeds,
                shared_noise_seed=derive_seed(*stream) if settings.shared_noise else None,
                micro_batch=settings.rollout_batch,
                storage_dtype=STORED[settings.trajectory_dtype],
                storage_device="cpu",
                storage_folder=folder,
                storage_key=rollout_key(settings, self.policy, prompts, seeds) if kept else None,
                agree=self.ranks.all if self.ranks.lockstep else bool,
                in_memory=not on_disk,
                blank_nonfinite=settings.skip_nonfinite,
                on_step=on_step,
            )

    def rollout_forwards(self, group: RolloutGroup) -> int:
        """Forward passes of the denoiser that this rank's members of a group took, counted by sample."""
        settings = self.settings
        steps = RolloutSteps(
            self.schedule,
            self.window(),
            settings.transition,
            settings.noise_scale,
            settings.ode_solver,
            settings.ode_stride,
        )
        return group.condition.passes * steps.forwards(group.group_size, settings.shared_noise)

    def score(self, groups: Sequence[RolloutGroup]) -> Scores:
        """Every reward of every sample of all ranks, through the latent geometry model."""
        size, stop = self.settings.rollout_batch, self.stop
        with stop.together(self.ranks):
            own = [score_group(group, self.lgm, self.rewards, size, stop.check) for group in groups]
        places = [(slot, member) for slot in range(len(groups)) for member in self.members(slot)]
        slots, members = zip(*places, strict=True)

        def of_all_ranks(parts: Sequence[Tensor]) -> Tensor:
            values = torch.cat(list(parts))
            whole = values.new_zeros(len(groups), self.settings.group_size)
            if self.ranks.speaks:
                whole[list(slots), list(members)] = values
            self.ranks.sum_([whole])
            return whole

        rewards = {name: of_all_ranks([part.rewards[name] for part in own]) for name in self.rewards}
        valid = of_all_ranks([part.valid.int() for part in own]).bool()
        finite = of_all_ranks([group.old_log_probs.isfinite().all(1).int().cpu() for group in groups]).bool()
        prompts = [group.prompt_id for group in groups]
        skipped = left_out(rewards, valid, finite, prompts, self.iteration, self.settings.skip_nonfinite)
        return Scores(rewards, valid & ~skipped, skipped.double().mean().item())

    def update(self, groups: Sequence[RolloutGroup], advantages: Tensor) -> dict[str, float]:
        """`updates_per_rollout` optimizer steps, each on its share of every group's members.

        Returns the update's metrics, and what rollouts and update have cost.
        """
        with undone_if_stopped(self.parameters, self.optimizer):
            metrics = self._update(groups, advantages)
        if self.average is not None:
            self.average.update(self.iteration)
        return metrics

    def _update(self, groups: Sequence[RolloutGroup], advantages: Tensor) -> dict[str, float]:
        settings, updates = self.settings, self.settings.updates_per_rollout
        gradient = PolicyGradient(
            settings,
            self.policy,
            self.iteration,
            self.schedule,
            self.window(),
            groups,
            [self.members(slot) for slot in range(len(groups))],
            advantages,
            self.stop.check,
            self.ranks.lockstep,
        )
        gradient.figures[FORWARDS] += sum(self.rollout_forwards(group) for group in groups)
        norms = 0.0
        for number in range(updates):
            self.phases.show("update", number, updates)
            self.optimizer.zero_grad(set_to_none=True)
            with self.stop.together(self.ranks):
                added, skipped = gradient.add(number)
            if gradient.skips:
                self._require_some(added, skipped)
            self._exchange_gradients()
            norm = gradient_norm(self.parameters)
            require_finite(self.iteration, {"policy gradient": norm})
            torch.nn.utils.clip_grads_with_norm_(self.parameters, settings.grad_clip, norm)
            done, warmup = self.iteration * updates + number, settings.warmup_steps
            set_learning_rate(self.optimizer, min(1.0, (done + 1) / warmup) if warmup else 1.0)
            self.optimizer.step()
            norms += norm.item() / updates
        self.histograms = gradient.histograms.of_all(self.ranks)
        figures = means(self.ranks.sum_figures(gradient.figures), gradient.skips)
        return figures | self.ranks.max_figures(gradient.largest) | {"policy/grad_norm": norms}

    def _require_some(self, added: int, skipped: int) -> None:
        """Raises FloatingPointError if all losses of an update, of all ranks, were skipped."""
        total = self.ranks.sum_figures({"added": added, "skipped": skipped})
        if total["skipped"] and not total["added"]:
            raise FloatingPointError(
                f"no loss of an update in iteration {self.iteration + 1} is finite: skip_nonfinite leaves "
                f"nothing to train on. The weights were not updated with it. {LOWER}"
            )

    def _exchange_gradients(self) -> None:
        """Makes the gradients the sum of all ranks'; one without a member in this update adds nothing."""
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self.ranks.sum_([parameter.grad for parameter in self.parameters if parameter.grad is not None])

    def save_checkpoint(self) -> None:
        """Writes policy and optimizer after `iteration` iterations, and the LoRA in diffusers' format (its
        average, where there is one).
        """

        def write(folder: Path) -> None:
            save_tensors(folder / POLICY_FILE, self.policy.trainable_parameters())
            save_tensors(folder / OPTIMIZER_FILE, optimizer_tensors(self.optimizer))
            if self.average is not None:
                save_tensors(folder / AVERAGE_FILE, self.average.tensors)
            with self.averaged():
                self.policy.save_lora(folder / LORA_FOLDER)

        self.ranks.require_equal("the policy's weights", self.parameters)
        if self.ranks.is_first:
            self.run.save_checkpoint(self.iteration, write, keep_last=self.settings.keep_checkpoints)
        self.ranks.wait()
