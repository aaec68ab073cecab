"""Videos from prompts, as files that say how they were made."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vggrpo.backbones.base import VideoBackbone
from vggrpo.data.embeddings import ENCODE_BATCH
from vggrpo.data.generation import SamplingSettings, VideoOrder, made_alike
from vggrpo.flow import SigmaSchedule
from vggrpo.io import ProgressBar, progress, save_tensors, write_json, write_video
from vggrpo.rollout import (
    BestOf,
    Condition,
    GuidedStep,
    LatentScore,
    RewardGuidance,
    Trajectories,
    initial_noise,
    sample_best,
)

OnVideo = Callable[[VideoOrder, Tensor, Tensor], None]
"""Called with an order, its latents [C, T_lat, H_lat, W_lat] and its frames [T, H, W, 3] in [0, 1], before
the video appears."""


@dataclass(frozen=True)
class Steering:
    """What rewards have to do with the samples."""

    guidance: RewardGuidance | None = None
    best_of: BestOf | None = None
    reward: Callable[[Tensor], LatentScore] | None = None
    """Scores the finished latents, for the sidecars."""


@dataclass(frozen=True)
class _Sample:
    """A finished sample and what is worth knowing about it, for JSON."""

    order: VideoOrder
    latents: Tensor
    facts: dict[str, Any]


def make_videos(
    backbone: VideoBackbone,
    orders: Sequence[VideoOrder],
    settings: SamplingSettings,
    provenance: Mapping[str, Any],
    *,
    steering: Steering | None = None,
    batch_size: int = 1,
    save_latents: bool = False,
    on_video: OnVideo | None = None,
) -> None:
    """Samples, decodes and writes the videos, each with its sidecar; shows progress.

    The text encoder is released before the first step. Every file is complete or absent, and a video appears
    after its sidecar, so that an interruption costs at most one batch. Only what is kept is decoded.

    Args:
        backbone: the model, with its LoRAs loaded if the orders say so.
        orders: all of the same `settings` and `steering`.
        settings: of the sampler.
        provenance: what else the sidecars say, by key: versions of libraries, settings of the command.
        steering: guidance and best-of-N.
        batch_size: videos, or candidates of one video, denoised at once.
        save_latents: whether to write the latents too, "latents" [C, T_lat, H_lat, W_lat], normalised.
        on_video: what else to do with a video.

    Raises:
        ValueError: if the model cannot make videos of this size.
        DiskFullError: if the space runs out.
    """
    steering = steering or Steering()
    shape = backbone.latent_shape(settings.num_frames, settings.height, settings.width)
    texts = list(dict.fromkeys([settings.negative_prompt, *(order.prompt.text for order in orders)]))
    embeds = _embeddings(backbone, texts)
    backbone.release("text_encoder")
    schedule = backbone.schedule(settings.infer_steps, shape)
    with progress("generate", total=len(orders) * schedule.num_steps, unit="step") as bar:
        samples = _samples(backbone, orders, settings, steering, embeds, shape, schedule, batch_size, bar)
        for sample in samples:
            _write(sample, backbone, settings.fps, provenance, steering.reward, save_latents, on_video)


def _embeddings(backbone: VideoBackbone, texts: Sequence[str]) -> dict[str, Tensor]:
    """Text embeddings [L, D] by text, in main memory: a padded one of Wan's takes 8 MiB."""
    found: dict[str, Tensor] = {}
    for start in range(0, len(texts), ENCODE_BATCH):
        batch = texts[start : start + ENCODE_BATCH]
        found |= zip(batch, backbone.encode_prompts(batch).cpu(), strict=True)
    return found


def _samples(
    backbone: VideoBackbone,
    orders: Sequence[VideoOrder],
    settings: SamplingSettings,
    steering: Steering,
    embeds: dict[str, Tensor],
    shape: tuple[int, int, int, int],
    schedule: SigmaSchedule,
    batch_size: int,
    bar: ProgressBar,
) -> Iterator[_Sample]:
    """The finished samples of all orders, one batch after the other."""
    negative = embeds[settings.negative_prompt].to(backbone.device)
    if steering.best_of is not None:
        for order in orders:
            began = time.monotonic()
            best = sample_best(
                backbone,
                Condition(embeds[order.prompt.text].to(backbone.device), negative, settings.cfg_scale),
                schedule,
                steering.best_of,
                seed=order.seed,
                latent_shape=shape,
                solver=settings.solver,
                guidance=steering.guidance,
                micro_batch=batch_size,
                on_step=lambda done, total: bar.advance(),
            )
            chosen = {
                "candidate": best.candidate,
                "seed": best.seed,
                "values": {str(number): _number(value) for number, value in best.values.items()},
            }
            facts = _facts(time.monotonic() - began, best.evaluations, best.guided, 0)
            yield _Sample(order, best.latents, {**facts, "best_of": chosen})
        return
    for start in range(0, len(orders), batch_size):
        batch = orders[start : start + batch_size]
        began, seeds = time.monotonic(), [order.seed for order in batch]
        prompts = torch.stack([embeds[order.prompt.text] for order in batch]).to(backbone.device)
        trajectories = Trajectories(
            backbone,
            Condition(prompts, negative, settings.cfg_scale),
            settings.solver.start(schedule, seeds),
            initial_noise(seeds, shape).to(prompts.device),
            guidance=steering.guidance,
        )
        while not trajectories.done:
            trajectories.evaluate()
            trajectories.advance()
            bar.advance(len(batch))
        seconds = (time.monotonic() - began) / len(batch)
        for row, order in enumerate(batch):
            facts = _facts(seconds, int(trajectories.evaluations[row]), trajectories.guided, row)
            yield _Sample(order, trajectories.x[row], facts)


def _facts(seconds: float, evaluations: int, guided: Sequence[GuidedStep], row: int) -> dict[str, Any]:
    """What is worth knowing of how a sample was made; the seconds are its share of the sampling."""
    steps = [
        {
            "step": step.index,
            "sigma": step.sigma,
            "reward": _number(float(step.value[row])),
            "ratio": float(step.ratio[row]),
        }
        for step in guided
    ]
    return {"seconds": round(seconds, 3), "denoiser_evaluations": evaluations, "guided_steps": steps}


@torch.no_grad()
def _write(
    sample: _Sample,
    backbone: VideoBackbone,
    fps: float,
    provenance: Mapping[str, Any],
    reward: Callable[[Tensor], LatentScore] | None,
    save_latents: bool,
    on_video: OnVideo | None,
) -> None:
    order, latents, facts = sample.order, sample.latents, dict(sample.facts)
    if reward is not None:
        scores = reward(latents[None]).rewards
        facts["rewards"] = {name: _number(float(value)) for name, value in scores.items()}
    frames = backbone.decode_latents(latents[None])[0]
    # The video's presence says that all is done, so an old one goes first and the new one comes last. What
    # lies beside one that was made otherwise would be taken for the new one's.
    beside = () if made_alike(order) else (order.latents, order.scene, order.sidecar)
    for old in (order.video, *beside):
        old.unlink(missing_ok=True)
    if save_latents:
        save_tensors(order.latents, {"latents": latents}, order.made_from)
    if on_video is not None:
        on_video(order, latents, frames)
    sidecar = {
        "prompt_id": order.prompt.id,
        "kind": order.prompt.kind,
        **order.made_from,
        **provenance,
        "result": facts,
    }
    write_json(order.sidecar, sidecar)
    write_video(order.video, (frames * 255.0).round().to(torch.uint8), fps)


def _number(value: float) -> float | None:
    """Without a value for what could not be computed."""
    return value if math.isfinite(value) else None
