"""Samples that rewards have a say in (guidance, best-of-N), measured on unseen prompts.

Every row samples the same prompts from the same noises, so rows are pairs, sample by sample. There are two
sets of prompts, so that a setting that was chosen by one is judged by the other.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.results import plain
from harness.workspace import Workspace
from harness.yardstick import SEED, SPLIT
from vggrpo.backbones import VideoBackbone
from vggrpo.backbones.pipelines import lora_file
from vggrpo.evaluation import (
    EvaluationRecords,
    HeldOutEvaluator,
    KeyFrameTeacher,
    SampledBlock,
    flow_epipolar_error,
)
from vggrpo.geometry import CAMERA_PATHS, SceneGeometry
from vggrpo.io import file_sha256, progress, read_json, write_json
from vggrpo.io.manifest import MANIFEST_NAME
from vggrpo.rewards import CameraTrajectoryReward, Reward
from vggrpo.rollout import (
    BestOf,
    Condition,
    LatentReward,
    RewardGuidance,
    SolverSettings,
    Trajectories,
    initial_noise,
    sample_best,
)
from vggrpo.training.align import held_out_settings
from vggrpo.training.models import open_models
from vggrpo.training.rewards import CAMERA_MOTION, REPROJECTION, build_rewards
from vggrpo.training.runtime import choose_device
from vggrpo.training.sources import prompts_hash, world_prompts
from vggrpo.training.tune_noise import check_inputs

NUM_PROMPTS, STEPS = 64, 50
TRAJECTORY, TRAJECTORY_ERROR = "camera_trajectory", "trajectory_error"
ROTATION_ERROR = "rotation_error"
EPIPOLAR, EVALUATIONS = "flow_epipolar_error", "denoiser_evaluations"
EXTRAS = (EPIPOLAR, EVALUATIONS)
CHOICE, CONFIRMATION = "choice", "confirmation"
"""Sets of prompts: the first captions of the split, and the next."""
EQUAL_WEIGHTS = {CAMERA_MOTION: 0.5, REPROJECTION: 0.5}


@dataclass(frozen=True)
class SteeredRow:
    """One way to sample."""

    name: str
    """Of its folder and its line in the table."""
    group: str = ""
    guidance: Mapping[str, Any] = field(default_factory=dict)
    """Settings of `RewardGuidance`; none if empty."""
    weights: Mapping[str, float] = field(default_factory=lambda: dict(EQUAL_WEIGHTS))
    """Of the rewards that guide and rank."""
    candidates: int = 1
    prune_sigmas: tuple[float, ...] = ()
    policy: bool = False
    """Whether the aligned policy is sampled, not the base model."""
    camera_path: tuple[str, float] | None = None
    """A named path and its amount."""
    steps: int | None = None
    """Denoising steps; those of the benchmark if not given."""


@dataclass(frozen=True, eq=False)
class PathError:
    """A distance from a path as something that can be recorded among the rewards: less is better."""

    reward: CameraTrajectoryReward
    part: str
    """Of the reward's parts: TRAJECTORY_ERROR, of the centres, or ROTATION_ERROR."""

    def __call__(self, scene: SceneGeometry) -> Reward:
        """See the class."""
        scored = self.reward(scene)
        error = torch.where(scored.valid, scored.parts[self.part], torch.nan)
        return Reward(error, scored.valid, {})


class SteeredSamples:
    """Measures rows; what is measured already is read from its file.

    Args:
        workspace: whose folder keeps the records.
        lgm: folder of the latent geometry model.
        captions: which set of prompts, CHOICE or CONFIRMATION.
        lora: folder of the aligned policy's LoRA; None if no row asks for it.
    """

    def __init__(self, workspace: Workspace, lgm: Path, captions: str, lora: Path | None = None) -> None:
        self.folder = workspace.root / "steered" / captions
        quick = workspace.options.quick
        self.steps, count = (6, 3) if quick else (STEPS, NUM_PROMPTS)
        both = world_prompts(SPLIT, 2 * count)
        self.prompts = both[:count] if captions == CHOICE else both[count:]
        self.settings = workspace.policy_settings(lgm, seed=SEED)
        self.sampling = replace(held_out_settings(self.settings, "ode", self.steps), num_noises=1)
        self.device = choose_device(self.settings.device)
        self.models = open_models(self.settings, self.device)
        self.lora = lora
        self._embeds: tuple[Tensor, Tensor] | None = None

    @property
    def video(self) -> VideoBackbone:
        """The video model."""
        return self.models.policy

    def measure(self, row: SteeredRow) -> EvaluationRecords:
        """The records of a row, among them `EXTRAS`.

        Raises:
            RunError: if the folder holds records of another row, or of other models.
        """
        folder = self.folder / row.name
        check_inputs(folder, self._inputs(row))
        file, extras_file = folder / "records.json", folder / "extras.json"
        done = EvaluationRecords.load(file) if file.exists() else EvaluationRecords()
        extras: dict[str, dict[str, float]] = read_json(extras_file) if extras_file.exists() else {}
        if len(done) < len(self.prompts):
            done = self._measure(row, file, extras_file, done, extras)
        records = EvaluationRecords(dict(done.columns))
        for name in EXTRAS:
            values = [extras[prompt_id][name] for prompt_id, _ in records.keys]
            records.columns[name] = [float("nan") if value is None else value for value in values]
        return records

    def _measure(
        self,
        row: SteeredRow,
        file: Path,
        extras_file: Path,
        done: EvaluationRecords,
        extras: dict[str, dict[str, Any]],
    ) -> EvaluationRecords:
        sampler = _Sampler(self, row)
        embeds, negative = self._prompt_embeds()
        if row.policy and self.lora is not None:
            self.video.load_lora(self.lora)
        rewards: dict[str, Callable[[SceneGeometry], Reward]] = dict(build_rewards(self.settings.rewards))
        if sampler.path is not None:
            errors = {part: PathError(sampler.path, part) for part in (TRAJECTORY_ERROR, ROTATION_ERROR)}
            rewards |= {TRAJECTORY: sampler.path, **errors}
        evaluator = HeldOutEvaluator(
            self.video,
            self.models.lgm,
            KeyFrameTeacher(self.models.geometry.to(self.device), self.video.latent_spec),
            rewards,
            self.prompts,
            replace(self.sampling, num_steps=row.steps or self.steps),
            embeds,
            negative,
            sample=sampler,
        )

        def keep(records: EvaluationRecords, block: SampledBlock) -> None:
            errors = flow_epipolar_error(block.frames).tolist()
            for (prompt_id, _), error, facts in zip(block.keys, errors, sampler.facts, strict=True):
                extras[prompt_id] = {EPIPOLAR: None if math.isnan(error) else error, **facts}
            write_json(extras_file, extras)
            records.save(file)

        with progress(f"measure {row.name}", evaluator.num_samples, len(done), unit="sample") as bar:
            records = evaluator.evaluate(
                done, keep, lambda count, total: bar.advance(max(int(count) - bar.done, 0))
            )
        if row.policy and self.lora is not None:
            self.video.load_loras([])
        return records

    def _prompt_embeds(self) -> tuple[Tensor, Tensor]:
        if self._embeds is None:
            texts = [prompt.text for prompt in self.prompts]
            embeds = self.video.encode_prompts([*texts, self.settings.negative_prompt])
            self.video.release("text_encoder")
            self._embeds = embeds[:-1], embeds[-1]
        return self._embeds

    def _inputs(self, row: SteeredRow) -> dict[str, Any]:
        """What records depend on."""
        inputs = {
            "row": asdict(replace(row, group="")),
            "lora": file_sha256(lora_file(self.lora)) if row.policy and self.lora is not None else None,
            "lgm": file_sha256(self.settings.lgm_path / MANIFEST_NAME),
            "prompts": prompts_hash(self.prompts),
            "sampling": asdict(self.sampling),
            "rewards": self.settings.rewards,
        }
        return dict(plain(inputs))


class _Sampler:
    """Samples a row's blocks for the evaluator and keeps what it cost."""

    def __init__(self, samples: SteeredSamples, row: SteeredRow) -> None:
        self._samples, self._row = samples, row
        self.facts: list[dict[str, float]] = []
        """Of the newest block, sample by sample."""
        s = samples.settings
        self._shape = samples.video.latent_shape(s.num_frames, s.height, s.width)
        self.path: CameraTrajectoryReward | None = None
        if row.camera_path is not None:
            name, amount = row.camera_path
            self.path = CameraTrajectoryReward(CAMERA_PATHS[name](self._shape[1], amount))
        rewards = dict(build_rewards(s.rewards))
        if self.path is not None:
            rewards[TRAJECTORY] = self.path
        weights = {name: row.weights.get(name, 0.0) for name in rewards}
        self._reward = LatentReward(samples.models.lgm, rewards, weights)
        self._guidance = RewardGuidance(self._reward, **row.guidance) if row.guidance else None

    def __call__(self, embeds: Tensor, seeds: Sequence[int], on_step: Callable[[int, int], None]) -> Tensor:
        """Clean latents; see `vggrpo.evaluation.heldout.Sample`."""
        samples, row, s = self._samples, self._row, self._samples.settings
        _, negative = samples._prompt_embeds()
        schedule = samples.video.schedule(row.steps or samples.steps, self._shape)
        if row.candidates > 1:
            choice = BestOf(row.candidates, self._reward, row.prune_sigmas)
            latents, evaluations = [], []
            for prompt, seed in zip(embeds, seeds, strict=True):
                best = sample_best(
                    samples.video,
                    Condition(prompt, negative, s.cfg_scale),
                    schedule,
                    choice,
                    seed=seed,
                    latent_shape=self._shape,
                    guidance=self._guidance,
                    micro_batch=s.rollout_batch,
                )
                latents.append(best.latents)
                evaluations.append(best.evaluations)
                on_step(len(latents), len(seeds))
            made = torch.stack(latents)
        else:
            run = Trajectories(
                samples.video,
                Condition(embeds, negative, s.cfg_scale),
                SolverSettings().start(schedule),
                initial_noise(seeds, self._shape).to(embeds.device),
                guidance=self._guidance,
            )
            while not run.done:
                run.evaluate()
                run.advance()
                on_step(run.index, schedule.num_steps)
            made, evaluations = run.x, run.evaluations.tolist()
        self.facts = [{EVALUATIONS: float(count)} for count in evaluations]
        return made
