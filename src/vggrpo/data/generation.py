"""Which videos are to be made, by what, and which of them are there already."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vggrpo.config.errors import ConfigError
from vggrpo.data.prompts import Prompt
from vggrpo.rollout import SolverSettings


@dataclass(frozen=True)
class SamplingSettings:
    """How videos are sampled, on the model's own sigma grid."""

    num_frames: int
    height: int
    width: int
    fps: float
    infer_steps: int
    cfg_scale: float
    negative_prompt: str = ""
    solver: SolverSettings = field(default_factory=SolverSettings)


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

    @property
    def scene(self) -> Path:
        """The file of the video's 4D scene, where it is kept."""
        return self.video.with_suffix(".scene.safetensors")


def order_videos(
    prompts: Sequence[Prompt],
    seeds: Sequence[int],
    folder: Path,
    settings: SamplingSettings,
    model: dict[str, Any],
    steering: dict[str, Any] | None = None,
) -> list[VideoOrder]:
    """One order for every prompt and seed: `<folder>/<prompt id>_seed<seed>.mp4`.

    Args:
        prompts: with different ids.
        seeds: of the initial noise; a seed means the same noise for every prompt.
        folder: where the videos go.
        settings: of the sampler.
        model: what determines the model, for JSON: `backbone.identity()`, and its LoRAs.
        steering: what rewards do to the samples, for JSON; None if nothing.

    Raises:
        ConfigError: if a seed comes twice.
    """
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"seeds are {', '.join(map(str, seeds))}; give each only once")
    common = {**asdict(settings), "model": model, "steering": steering}
    return [
        VideoOrder(
            prompt,
            seed,
            Path(folder) / f"{prompt.id}_seed{seed}.mp4",
            {"prompt": prompt.text, "seed": seed, **common},
        )
        for prompt in prompts
        for seed in seeds
    ]


def unfinished(
    orders: Sequence[VideoOrder], save_latents: bool = False, save_scene: bool = False
) -> list[VideoOrder]:
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
        wanted = [order.latents] * save_latents + [order.scene] * save_scene
        if not all(file.is_file() for file in wanted):
            missing.append(order)
    return missing


def made_alike(order: VideoOrder) -> bool:
    """Whether a sidecar is there, and of a video that was made as this one is to be."""
    return not _difference(order)


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
