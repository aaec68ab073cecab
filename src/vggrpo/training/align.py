"""`vggrpo train`: opens what a run needs, trains, and evaluates on held-out prompts along the way."""

import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import torch

from vggrpo.config import ConfigError, TrainSettings
from vggrpo.evaluation import (
    Evaluated,
    EvaluationRecords,
    HeldOutEvaluator,
    HeldOutSettings,
    KeyFrameTeacher,
    SampledBlock,
    Sampler,
    summary,
)
from vggrpo.io import RunFolder, atomic_folder, progress, write_text, write_video
from vggrpo.io.runs import CONFIG_NAME
from vggrpo.io.trackers import Tracked, Trackers, require_trackers
from vggrpo.training.interrupt import Stopped, deferred_stop
from vggrpo.training.lgm_admission import admit
from vggrpo.training.models import open_models
from vggrpo.training.policy_gradient import levels_outside
from vggrpo.training.ranks import Ranks, open_ranks, require_shares, were_restarted
from vggrpo.training.report import write_run_report
from vggrpo.training.rewards import build_rewards
from vggrpo.training.run_files import iteration_of, records_file, sample_video
from vggrpo.training.runtime import choose_device, prepare, return_freed_memory
from vggrpo.training.sources import open_prompts, require_disjoint
from vggrpo.training.texts import PromptTexts
from vggrpo.training.trainer import LORA_FOLDER, VGGRPOTrainer
from vggrpo.training.watch import Watch

PREFIX = "evaluation/"
"""Of the held-out means in the run's metrics."""
IDENTITY_FILE = "tracker_id.txt"
VIDEOS_TRACKED = 4
"""Prompts whose first video the trackers get after each evaluation."""


class Evaluation:
    """Evaluates the policy on the held-out prompts and keeps records and sample videos in the run folder.

    Each rank measures its share of the prompts; the first keeps the records.
    """

    def __init__(
        self,
        settings: TrainSettings,
        run: RunFolder,
        evaluator: HeldOutEvaluator,
        prompt_ids: Sequence[str],
        ranks: Ranks,
    ) -> None:
        """`evaluator`: of this rank's share of the prompts; `prompt_ids`: of all."""
        self.settings, self.run, self.evaluator = settings, run, evaluator
        self.prompt_ids, self.ranks = prompt_ids, ranks

    def run_at(self, iteration: int) -> None:
        """Measures what is not measured yet after `iteration` iterations, and logs the means once."""
        file = records_file(self.run.path, iteration)
        spent: dict[str, float] = {}
        if not self.ranks.of_first(file.exists()):
            began = time.perf_counter()
            self._measure(iteration, file)
            spent["time/evaluation"] = time.perf_counter() - began
        if self.ranks.is_first:
            self._log(iteration, EvaluationRecords.load(file), spent)

    def forget_after(self, iteration: int) -> None:
        """Deletes what was measured after more than `iteration` iterations, which will be those of another
        policy.
        """
        for path in (*self.run.path.glob("evaluations/step_*"), *self.run.path.glob("samples/step_*")):
            if iteration_of(path) <= iteration:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def _log(self, iteration: int, records: EvaluationRecords, spent: dict[str, float]) -> None:
        logged = [record for record in self.run.read_metrics() if record["step"] == iteration]
        if not any(PREFIX + name in record for record in logged for name in records.metrics):
            means = {PREFIX + name: interval.mean for name, interval in summary(records).items()}
            self.run.log(iteration, means | spent)
            for key in [key for key in records.keys if key[1] == 0][:VIDEOS_TRACKED]:
                path = sample_video(self.run.path, iteration, key)
                self.run.trackers.video(iteration, f"samples/{key[0]}", path)

    def _measure(self, iteration: int, file: Path) -> None:
        """Writes the records of all ranks; each keeps what it has done until then, for a resumed run."""
        part = file.with_suffix(f".part{self.ranks.share}of{self.ranks.num_shares}.json")
        done = EvaluationRecords.load(part) if part.exists() else None
        if self.ranks.lockstep:
            # What a killed run left may differ: all go on where the one stands that has done least.
            fewest = min(self.ranks.gather(len(done) if done is not None else 0))
            done = done.take(range(fewest)) if done is not None else None

        def keep(records: EvaluationRecords, block: SampledBlock) -> None:
            if self.ranks.speaks:
                self._write_videos(iteration, block)
                records.save(part)

        finished = len(done) if done is not None else 0
        with (
            progress(
                f"evaluate after {iteration} iterations",
                self.evaluator.num_samples,
                finished,
                "sample",
                self.ranks.console,
            ) as bar,
            deferred_stop() as stop,
            stop.together(self.ranks),
        ):

            def on_progress(count: float, total: int) -> None:
                bar.advance(max(int(count) - bar.done, 0))
                stop.check()

            own = self.evaluator.evaluate(done, keep, on_progress)
        parts = self.ranks.gather_shares(own)
        if self.ranks.is_first:
            join_records(parts, self.prompt_ids).save(file)
        self.ranks.wait()
        for leftover in file.parent.glob(f"{file.stem}.part*"):
            leftover.unlink(missing_ok=True)  # another rank may be first

    def _write_videos(self, iteration: int, block: SampledBlock) -> None:
        for key, frames in zip(block.keys, block.frames, strict=True):
            path = sample_video(self.run.path, iteration, key)
            write_video(path, (frames.clamp(0, 1) * 255).round().to(torch.uint8), self.settings.fps)


def join_records(parts: Sequence[EvaluationRecords], prompt_ids: Sequence[str]) -> EvaluationRecords:
    """The records of all ranks, in the order of the prompts."""
    joined = EvaluationRecords()
    for part in parts:
        joined.extend(part)
    place = {prompt_id: number for number, prompt_id in enumerate(prompt_ids)}
    rows = sorted(range(len(joined)), key=lambda row: place[joined.columns["prompt_id"][row]])
    return joined.take(rows)


def align(settings: TrainSettings, on_evaluation: Callable[[int], None] | None = None) -> Path:
    """Trains the policy of `settings` and writes its LoRA to `<output>/lora`, in diffusers' format.

    Under torchrun all its processes share the run. Everything that can be wrong with prompts, sizes and
    models is checked before any work starts.

    Raises:
        ConfigError: for prompts or models that do not exist or do not fit, a latent geometry model whose
            gate is below `lgm_floor`, a tracker that is not installed, or a number of processes that cannot
            share the groups.
        ValueError: if the latent geometry model belongs to another autoencoder.
        AlarmError: if an alarm is raised and `stop_on_alarm` is set, after the checkpoint of that iteration.
    """
    prepare(settings, distributed=True)
    require_trackers(settings.trackers)
    if settings.trajectory_storage == "disk":
        return_freed_memory()
    with open_ranks(
        settings.device, settings.rank_timeout, settings.context_parallel, settings.lockstep
    ) as ranks:
        return _align(settings, ranks, on_evaluation)


def _align(settings: TrainSettings, ranks: Ranks, on_evaluation: Callable[[int], None] | None) -> Path:
    require_shares(ranks, settings)
    device = choose_device(settings.device if ranks.size == 1 else ranks.device)
    training_prompts = open_prompts(settings.prompts, "train", settings.num_prompts)
    held_out_prompts = open_prompts(
        settings.evaluation_prompts, "validation", settings.num_evaluation_prompts, "--evaluation-prompts"
    )
    require_disjoint(training_prompts, held_out_prompts)
    if ranks.num_shares > len(held_out_prompts):
        raise ConfigError(
            f"{ranks.size} processes share {len(held_out_prompts)} held-out prompts: some would have nothing "
            "to do; start fewer, or raise num_evaluation_prompts"
        )
    if settings.lockstep and len(held_out_prompts) % ranks.num_shares:
        raise ConfigError(
            f"{len(held_out_prompts)} held-out prompts cannot be divided by {ranks.num_shares} processes or "
            f"teams, but with parallel {settings.parallel} and context_parallel {settings.context_parallel} "
            "all must make the same forward passes; change num_evaluation_prompts"
        )
    models = open_models(settings, device, settings.gradient_checkpointing)
    policy, lgm, geometry = models.policy, models.lgm, models.geometry
    latent_shape = policy.latent_shape(settings.num_frames, settings.height, settings.width)
    levels_outside(settings, policy.schedule(settings.train_steps, latent_shape))  # are there any to hold?
    admit(settings, lgm, report=ranks.is_first)

    restarted = were_restarted(ranks)
    with ranks.first_before_others():
        resume = settings.resume or (restarted and (settings.output / CONFIG_NAME).exists())
        run = RunFolder(settings.output, settings)
        if ranks.is_first:
            run = RunFolder.start(settings.output, settings, resume)
        texts = PromptTexts(settings, run, policy)
        training_embeds, held_out_embeds = texts.embed(training_prompts), texts.embed(held_out_prompts)
    rewards = build_rewards(settings.rewards)
    policy.release("text_encoder")
    trainer = VGGRPOTrainer(
        settings,
        run,
        policy,
        lgm,
        rewards,
        training_prompts,
        training_embeds,
        texts.negative,
        ranks,
    )
    own = slice(ranks.share, None, ranks.num_shares)
    teacher = KeyFrameTeacher(geometry, policy.latent_spec)
    evaluator = HeldOutEvaluator(
        policy,
        lgm,
        teacher,
        rewards,
        held_out_prompts[own],
        held_out_settings(settings),
        held_out_embeds[own],
        texts.negative,
    )
    prompt_ids = [prompt.id for prompt in held_out_prompts]
    evaluation = Evaluation(settings, run, evaluator, prompt_ids, ranks)
    watch = Watch(settings, run, policy, trainer.weights)
    trainer.resume()
    if ranks.is_first:
        evaluation.forget_after(trainer.iteration)
        watch.forget_after(trainer.iteration)
        run.trackers = open_trackers(settings, run, trainer.iteration)
    with closing(run.trackers), deferred_stop():
        while True:
            if trainer.iteration % settings.eval_every == 0 or trainer.iteration == settings.iterations:
                # The autoencoder and the uncut geometry model are on the device for evaluations only.
                geometry.to(device)
                try:
                    with trainer.averaged():
                        evaluation.run_at(trainer.iteration)
                except Stopped:
                    trainer.save_checkpoint()
                    raise
                policy.release("vae")
                with trainer.averaged():
                    alarms = ranks.of_first(
                        watch.observe(evaluations_so_far(settings, trainer.iteration))
                        if ranks.is_first
                        else ()
                    )
                if ranks.is_first:
                    write_run_report(settings, trainer.iteration, teacher, device)
                geometry.to("cpu")
                if on_evaluation is not None:
                    on_evaluation(trainer.iteration)
                if alarms and settings.stop_on_alarm:
                    raise watch.stopped(alarms)
            if trainer.iteration >= settings.iterations:
                break
            following = (trainer.iteration // settings.eval_every + 1) * settings.eval_every
            trainer.train(until=min(following, settings.iterations))

    if ranks.is_first:
        with trainer.averaged(), atomic_folder(run.path / LORA_FOLDER, replace=True) as folder:
            policy.save_lora(folder)
    ranks.wait()
    return run.path / LORA_FOLDER


def open_trackers(settings: TrainSettings, run: RunFolder, done: int) -> Trackers:
    """What the settings name as trackers, told that `done` iterations are done."""
    file = run.path / IDENTITY_FILE
    if not file.exists():
        write_text(file, uuid4().hex[:8])
    tracked = Tracked(
        run.path, done, file.read_text("utf-8"), settings.tracker_project, settings.model_dump(mode="json")
    )
    return Trackers.open(settings.trackers, tracked)


def evaluations_so_far(settings: TrainSettings, iteration: int) -> list[Evaluated]:
    """The evaluations that a run has made up to `iteration`, which is the newest."""
    folder = records_file(settings.output, iteration).parent
    # By what is there: `eval_every` may have changed since.
    made = sorted(iteration_of(file) for file in folder.glob("step_*.json") if "." not in file.stem)
    return [
        Evaluated(i, EvaluationRecords.load(records_file(settings.output, i))) for i in made if i <= iteration
    ]


def held_out_settings(
    settings: TrainSettings, sampler: Sampler = "ode", steps: int | None = None
) -> HeldOutSettings:
    """The sampling of held-out evaluation; by default that of the run's own evaluations.

    The stochastic sampler is that of the rollouts. With another number of steps than theirs its window covers
    the same share of them.

    Raises:
        ConfigError: if so few steps leave the window empty.
    """
    steps = steps or settings.infer_steps
    return HeldOutSettings(
        num_frames=settings.num_frames,
        height=settings.height,
        width=settings.width,
        num_noises=settings.evaluation_noises,
        num_steps=steps,
        cfg_scale=settings.cfg_scale,
        seed=settings.seed,
        micro_batch=settings.rollout_batch,
        sampler=sampler,
        transition=settings.transition,
        noise_scale=settings.noise_scale,
        window=_window(settings, steps) if sampler == "sde" else None,
        ode_solver=settings.ode_solver,
        ode_stride=settings.ode_stride,
    )


def _window(settings: TrainSettings, steps: int) -> tuple[int, int]:
    """(start, length) of the stochastic steps of a rollout with `steps` steps."""
    scale = steps / settings.train_steps
    start = round(settings.sde_window.start * scale)
    # The last step is never stochastic: a window up to it stays one up to it.
    whole = settings.sde_window.stop == settings.train_steps - 1
    stop = steps - 1 if whole else min(round(settings.sde_window.stop * scale), steps - 1)
    if stop <= start:
        raise ConfigError(
            f"of {steps} steps none is stochastic: the window of the training is steps "
            f"[{settings.sde_window.start}, {settings.sde_window.stop}) of {settings.train_steps}; "
            "use more steps"
        )
    return start, stop - start
