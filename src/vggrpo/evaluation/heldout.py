"""Held-out evaluation: fixed prompts and noises, sampled and measured by rewards and by other checks."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from vggrpo.backbones.base import GeometryBackbone, LatentSpec, VideoBackbone
from vggrpo.data import Prompt
from vggrpo.evaluation.diversity import clip_thumbnail, group_diversity
from vggrpo.evaluation.objects import object_presence
from vggrpo.evaluation.optical_flow import dis_flow, flow_drift, flow_jerk, flow_magnitude
from vggrpo.evaluation.pixels import pixel_statistics
from vggrpo.evaluation.records import EvaluationRecords
from vggrpo.geometry import SceneGeometry, angular_velocity, median_depth, path_length, valid_depth
from vggrpo.io import derive_seed
from vggrpo.lgm.quality import agreement
from vggrpo.lgm.views import teacher_frames
from vggrpo.rewards import Reward
from vggrpo.rollout import OdeSolver, sample_ode, sample_sde

FIDELITY = ("depth_abs_rel", "rotation_deg", "translation_error")
"""Errors of the LGM against its teacher that are recorded beside the rewards."""

Sampler = Literal["ode", "sde"]
Geometry = Callable[[Tensor], SceneGeometry]
Sample = Callable[[Tensor, Sequence[int], Callable[[int, int], None]], Tensor]
"""(prompt_embeds [N, L, D], seeds, on_step(steps done, steps in all)) to clean latents [N, C, T, H, W]."""
OnProgress = Callable[[float, int], None]
"""Called with (samples done, samples in all); the first counts parts of samples while they are denoised."""


@dataclass(frozen=True)
class HeldOutSettings:
    """What makes two evaluations comparable; they must be the same before and after."""

    num_frames: int
    height: int
    width: int
    num_noises: int = 2
    """Samples of each prompt; diversity needs at least two."""
    num_steps: int = 20
    cfg_scale: float = 1.0
    seed: int = 0
    micro_batch: int = 8
    """Samples that run together. Changes the results by rounding only."""
    sampler: Sampler = "ode"
    """"sde" samples as rollouts of the training do, from the same initial noises as "ode"."""
    transition: str = "flow_sde"
    """Of the stochastic steps of "sde", as the two below."""
    noise_scale: float = 0.7
    window: tuple[int, int] | None = None
    """(start, length) of the stochastic steps; all but the last if not given."""
    ode_solver: OdeSolver = "euler"
    """Of the other steps of "sde", as the one below."""
    ode_stride: int = 1

    def __post_init__(self) -> None:
        if self.sampler not in get_args(Sampler):
            raise ValueError(f"sampler is {self.sampler!r}, expected one of {', '.join(get_args(Sampler))}")
        for name in ("num_noises", "num_steps", "micro_batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1")


@dataclass(frozen=True)
class SampledBlock:
    """The samples of some prompts, for whoever wants to keep videos."""

    keys: list[tuple[str, int]]
    """(prompt_id, index of the noise) of each sample."""
    latents: Tensor
    """[N, C, T_lat, H_lat, W_lat]."""
    frames: Tensor
    """[N, T, H, W, 3] in [0, 1]."""


OnBlock = Callable[[EvaluationRecords, SampledBlock], None]
"""Called with all records so far and the newest samples: the place to save both."""


class KeyFrameTeacher:
    """The uncut geometry model on the frames that latents stand for: frames [B, T, H, W, 3] to SceneGeometry.

    Called as `KeyFrameTeacher(geometry, latent_spec)(frames)`; the raster is the LGM's.
    """

    def __init__(self, geometry: GeometryBackbone, latent_spec: LatentSpec) -> None:
        self._geometry, self._spec = geometry, latent_spec

    def __call__(self, frames: Tensor) -> SceneGeometry:
        scene: SceneGeometry = self._geometry(teacher_frames(frames, self._spec, self._geometry.patch_size))
        return scene

    def view_frames(self, num_views: int) -> list[int]:
        """The frames of a clip that its views show."""
        return list(self._spec.view_frames(num_views))


class HeldOutEvaluator:
    """Samples fixed prompts from fixed noises and measures every sample.

    The records hold, per sample: every reward on the latents through the LGM ("lgm/<name>") and on the
    decoded key frames through the teacher ("teacher/<name>"), NaN where a reward failed; the LGM's errors
    against the teacher ("fidelity/<name>"); how far the camera goes by the teacher; flow jerk, magnitude and
    drift; pixel statistics and the presence of objects; and, with two noises or more, the diversity of
    its prompt.

    Args:
        video: the model to evaluate, base or policy (the base within `video.lora_disabled()`).
        latent_geometry: the LGM, latents to geometry.
        teacher: decoded frames of whole clips to geometry (`KeyFrameTeacher`).
        rewards: by name.
        prompts: the held-out prompts, in the order in which they run; their `kind` ("static", "dynamic") is
            what comparisons keep apart.
        settings: sampling settings.
        prompt_embeds: [N, L, D] of the prompts, on any device; encoded here if not given.
        negative_prompt_embeds: [L, D]; used where `cfg_scale` is not 1, encoded from "" if not given.
        sample: samples instead of the settings' sampler, from the same seeds.

    Raises:
        ValueError: if there are no prompts, ids repeat, or the embeddings do not fit.
    """

    def __init__(
        self,
        video: VideoBackbone,
        latent_geometry: Geometry,
        teacher: Geometry,
        rewards: Mapping[str, Callable[[SceneGeometry], Reward]],
        prompts: Sequence[Prompt],
        settings: HeldOutSettings,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        sample: Sample | None = None,
    ) -> None:
        ids = [prompt.id for prompt in prompts]
        if not ids:
            raise ValueError("prompts is empty; give at least one held-out prompt")
        if len(set(ids)) < len(ids):
            twice = next(prompt_id for prompt_id in ids if ids.count(prompt_id) > 1)
            raise ValueError(f"prompts hold the id {twice!r} twice; ids name the noises and must differ")
        if prompt_embeds is None:
            prompt_embeds = video.encode_prompts([prompt.text for prompt in prompts])
        if len(prompt_embeds) != len(prompts):
            raise ValueError(f"prompt_embeds has {len(prompt_embeds)} rows for {len(prompts)} prompts")
        if settings.cfg_scale != 1.0 and negative_prompt_embeds is None:
            negative_prompt_embeds = video.encode_prompts([""])[0]
        self._video, self._latent_geometry, self._teacher = video, latent_geometry, teacher
        self._rewards, self._prompts, self._settings = dict(rewards), list(prompts), settings
        self._embeds, self._negative = prompt_embeds, negative_prompt_embeds
        self._own_sample = sample
        self._shape = video.latent_shape(settings.num_frames, settings.height, settings.width)

    @property
    def num_samples(self) -> int:
        """Prompts times noises."""
        return len(self._prompts) * self._settings.num_noises

    @torch.no_grad()
    def evaluate(
        self,
        done: EvaluationRecords | None = None,
        on_block: OnBlock | None = None,
        on_progress: OnProgress | None = None,
    ) -> EvaluationRecords:
        """Measures every sample that `done` does not hold yet.

        Args:
            done: records of an interrupted call, as its `on_block` saw them last; whole prompts are skipped.
            on_block: called after every block of prompts.
            on_progress: called often.

        Returns:
            The complete records: `done` followed by the rest.
        """
        records = EvaluationRecords()
        if done is not None and len(done):
            records.extend(done)
        measured = {prompt_id for prompt_id, _ in records.keys}
        pending = [i for i, prompt in enumerate(self._prompts) if prompt.id not in measured]
        per_block = max(1, self._settings.micro_batch // self._settings.num_noises)
        for start in range(0, len(pending), per_block):
            block, rows = self._measure_block(pending[start : start + per_block], len(records), on_progress)
            records.extend(rows)
            if on_block is not None:
                on_block(records, block)
            if on_progress is not None:
                on_progress(float(len(records)), self.num_samples)
        return records

    def _measure_block(
        self, places: Sequence[int], before: int, on_progress: OnProgress | None
    ) -> tuple[SampledBlock, EvaluationRecords]:
        prompts, noises = [self._prompts[i] for i in places], self._settings.num_noises
        keys = [(prompt.id, k) for prompt in prompts for k in range(noises)]

        def on_step(step: int, steps: int) -> None:
            if on_progress is not None:
                on_progress(before + len(keys) * step / steps, self.num_samples)

        latents = self._sample(places, keys, on_step)
        parts = [self._measure(latents[batch]) for batch in _slices(len(latents), self._settings.micro_batch)]
        frames = torch.cat([part[0] for part in parts])
        columns: dict[str, list[Any]] = {
            "prompt_id": [prompt_id for prompt_id, _ in keys],
            "sample": [k for _, k in keys],
            "kind": [prompt.kind for prompt in prompts for _ in range(noises)],
            "prompt": [prompt.text for prompt in prompts for _ in range(noises)],
        }
        for name in parts[0][1]:
            columns[name] = torch.cat([part[1][name].float().cpu() for part in parts]).tolist()
        if noises > 1:
            groups = clip_thumbnail(frames).unflatten(0, (len(prompts), noises))
            columns["diversity"] = [float(group_diversity(group)) for group in groups for _ in range(noises)]
        return SampledBlock(keys, latents.cpu(), frames), EvaluationRecords(columns)

    def _sample(
        self, places: Sequence[int], keys: Sequence[tuple[str, int]], on_step: Callable[[int, int], None]
    ) -> Tensor:
        settings = self._settings
        embeds = self._embeds[list(places)].to(self._video.device).repeat_interleave(settings.num_noises, 0)
        seeds = [derive_seed(settings.seed, "held-out", prompt_id, k) for prompt_id, k in keys]
        if self._own_sample is not None:
            return self._own_sample(embeds, seeds, on_step)
        arguments: dict[str, Any] = {
            "seeds": seeds,
            "latent_shape": self._shape,
            "cfg_scale": settings.cfg_scale,
            "negative_prompt_embeds": self._negative,
            "micro_batch": settings.micro_batch,
            "on_step": on_step,
        }
        schedule = self._video.schedule(settings.num_steps, self._shape)
        if settings.sampler == "ode":
            return sample_ode(self._video, embeds, schedule, **arguments)
        return sample_sde(
            self._video,
            embeds,
            schedule,
            transition=settings.transition,
            noise_scale=settings.noise_scale,
            window=settings.window,
            ode_solver=settings.ode_solver,
            ode_stride=settings.ode_stride,
            **arguments,
        )

    def _measure(self, latents: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Frames (on the CPU) and every metric [N] of one micro-batch."""
        # Decoding comes first: with `efficiency.offload` it takes the denoiser off the device.
        frames = self._video.decode_latents(latents)
        student = self._latent_geometry(latents)
        teacher = self._teacher(frames)
        frames = frames.float().cpu()
        flow = dis_flow(frames)
        metrics = {f"lgm/{name}": _value(reward(student)) for name, reward in self._rewards.items()}
        metrics |= {f"teacher/{name}": _value(reward(teacher)) for name, reward in self._rewards.items()}
        metrics |= geometry_errors(student, teacher)
        metrics |= camera_motion_amount(teacher)
        metrics["flow_jerk"] = flow_jerk(frames, flow=flow)
        metrics["flow_magnitude"] = flow_magnitude(frames, flow=flow)
        metrics["flow_drift"] = flow_drift(frames, flow=flow)
        metrics |= pixel_statistics(frames)
        metrics["object_presence"] = object_presence(frames)
        return frames, metrics


def geometry_errors(student: SceneGeometry, teacher: SceneGeometry) -> dict[str, Tensor]:
    """The LGM's errors against its teacher, [B] each; NaN for clips in which the teacher sees no surface."""
    sighted = valid_depth(teacher.depth_z).flatten(1).any(1)
    metrics = {
        f"fidelity/{name}": teacher.depth_z.new_full((teacher.batch_size,), torch.nan) for name in FIDELITY
    }
    if bool(sighted.any()):
        errors = agreement(student.take(sighted), teacher.take(sighted))
        for name in FIDELITY:
            metrics[f"fidelity/{name}"][sighted] = errors[name]
    return metrics


def camera_motion_amount(scene: SceneGeometry) -> dict[str, Tensor]:
    """How far the camera goes, [B] each.

    `camera_path`: length of the path through the camera centres over the scene's median depth.
    `camera_extent`: the largest distance between two of the centres, over the same depth. `camera_turn`: sum
    of the angles between successive views, degrees. Path and turn count shake, and a model's pose noise, as
    motion; the extent hardly does.
    """
    angles = angular_velocity(scene.camera_to_world).norm(dim=-1)
    centres, depth = scene.camera_to_world[..., :3, 3], median_depth(scene.depth_z)
    return {
        "camera_path": path_length(scene.camera_to_world) / depth,
        "camera_extent": torch.cdist(centres, centres).flatten(1).amax(1) / depth,
        "camera_turn": angles.sum(-1).rad2deg(),
    }


def _value(reward: Reward) -> Tensor:
    return torch.where(reward.valid, reward.value, torch.nan)


def _slices(count: int, size: int) -> Iterator[slice]:
    for start in range(0, count, size):
        yield slice(start, start + size)
