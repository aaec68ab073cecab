"""Videos from prompts, as files that say how they were made."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vggrpo.backbones.base import VideoBackbone
from vggrpo.config.errors import ConfigError
from vggrpo.data.prompts import Prompt
from vggrpo.io import ProgressBar, progress, save_tensors, write_json, write_video
from vggrpo.rollout import sample_ode


@dataclass(frozen=True)
class SamplingSettings:
    """How videos are sampled: the ODE's Euler steps on the model's own sigma grid."""

    num_frames: int
    height: int
    width: int
    fps: float
    infer_steps: int
    cfg_scale: float
    negative_prompt: str = ""


@dataclass(frozen=True)
class VideoOrder:
    """One video to be made: everything that determines its content, and where it goes."""

    prompt: Prompt
    seed: int
    video: Path
    made_from: dict[str, Any]
    """For JSON. Equal values make equal videos on the same machine and library versions."""

    @property
    def sidecar(self) -> Path:
        """The JSON file that says how the video was made."""
        return self.video.with_suffix(".json")

    @property
    def latents(self) -> Path:
        """The file of the video's latents, where they are kept."""
        return self.video.with_suffix(".safetensors")


def order_videos(
    prompts: Sequence[Prompt],
    seeds: Sequence[int],
    folder: Path,
    settings: SamplingSettings,
    model: dict[str, Any],
) -> list[VideoOrder]:
    """One order for every prompt and seed: `<folder>/<prompt id>_seed<seed>.mp4`.

    Args:
        prompts: with different ids.
        seeds: of the initial noise; a seed means the same noise for every prompt.
        folder: where the videos go.
        settings: of the sampler.
        model: what determines the model, for JSON: `backbone.identity()`, and its LoRA.

    Raises:
        ConfigError: if a seed comes twice.
    """
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"seeds are {', '.join(map(str, seeds))}; give each only once")
    return [
        VideoOrder(
            prompt,
            seed,
            Path(folder) / f"{prompt.id}_seed{seed}.mp4",
            {"prompt": prompt.text, "seed": seed, **asdict(settings), "model": model},
        )
        for prompt in prompts
        for seed in seeds
    ]


def unfinished(orders: Sequence[VideoOrder], save_latents: bool = False) -> list[VideoOrder]:
    """The orders whose files do not exist yet.

    Raises:
        ConfigError: if a video exists that was made from something else, or by something else.
    """
    missing = []
    for order in orders:
        if not order.video.is_file():
            missing.append(order)
            continue
        difference = _difference(order)
        if difference:
            raise ConfigError(
                f"{order.video} exists and {difference}: "
                "choose another --output, or replace it with --overwrite"
            )
        if save_latents and not order.latents.is_file():
            missing.append(order)
    return missing


def make_videos(
    backbone: VideoBackbone,
    orders: Sequence[VideoOrder],
    settings: SamplingSettings,
    versions: dict[str, str],
    *,
    batch_size: int = 4,
    save_latents: bool = False,
) -> None:
    """Samples, decodes and writes the videos, each with its sidecar; shows progress.

    The text encoder is released before the first step. Every file is complete or absent, and a video appears
    after its sidecar, so that an interruption costs at most one batch.

    Args:
        backbone: the model, with its LoRA loaded if the orders say so.
        orders: all of the same `settings`.
        settings: of the sampler.
        versions: of the libraries, for the sidecars.
        batch_size: videos denoised at once.
        save_latents: whether to write the latents too, "latents" [C, T_lat, H_lat, W_lat], normalised.

    Raises:
        ValueError: if the model cannot make videos of this size.
        DiskFullError: if the space runs out.
    """
    shape = backbone.latent_shape(settings.num_frames, settings.height, settings.width)
    texts = list(dict.fromkeys([settings.negative_prompt, *(order.prompt.text for order in orders)]))
    embeds = dict(zip(texts, backbone.encode_prompts(texts), strict=True))
    backbone.release("text_encoder")
    schedule = backbone.schedule(settings.infer_steps)
    with progress("generate", total=len(orders) * schedule.num_steps, unit="step") as bar:
        for start in range(0, len(orders), batch_size):
            batch = orders[start : start + batch_size]
            latents = sample_ode(
                backbone,
                torch.stack([embeds[order.prompt.text] for order in batch]),
                schedule,
                seeds=[order.seed for order in batch],
                latent_shape=shape,
                cfg_scale=settings.cfg_scale,
                negative_prompt_embeds=embeds[settings.negative_prompt],
                on_step=partial(_advance, bar, len(batch)),
            )
            for order, sample in zip(batch, latents, strict=True):
                _write(order, sample, backbone, settings.fps, versions, save_latents)


def _advance(bar: ProgressBar, videos: int, steps_done: int, steps_in_all: int) -> None:
    bar.advance(videos)


def _write(
    order: VideoOrder,
    latents: Tensor,
    backbone: VideoBackbone,
    fps: float,
    versions: dict[str, str],
    save_latents: bool,
) -> None:
    with torch.no_grad():
        frames = backbone.decode_latents(latents[None])[0]
    # The video's presence says that all is done, so an old one goes first and the new one comes last.
    order.video.unlink(missing_ok=True)
    if save_latents:
        save_tensors(order.latents, {"latents": latents}, order.made_from)
    sidecar = {
        "prompt_id": order.prompt.id,
        "kind": order.prompt.kind,
        **order.made_from,
        "versions": versions,
    }
    write_json(order.sidecar, sidecar)
    write_video(order.video, (frames * 255.0).round().to(torch.uint8), fps)


def _difference(order: VideoOrder) -> str:
    """What keeps an existing video from being the one that is ordered; "" if nothing does."""
    if not order.sidecar.is_file():
        return f"has no {order.sidecar.name} beside it that says how it was made"
    try:
        sidecar = json.loads(order.sidecar.read_text("utf-8"))
    except ValueError:
        return f"the {order.sidecar.name} beside it is damaged"
    names = [name for name, value in order.made_from.items() if sidecar.get(name) != value]
    return f"was made with another {', '.join(names)}" if names else ""
