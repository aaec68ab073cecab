"""What a reward costs through the latents and through pixels, measured side by side in one run."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from vggrpo.geometry import SceneGeometry


@dataclass(frozen=True)
class Timing:
    """Repeated wall-clock times of one phase."""

    seconds: list[float]

    @property
    def median(self) -> float:
        return float(np.median(self.seconds))

    @property
    def quartiles(self) -> tuple[float, float]:
        low, high = np.quantile(self.seconds, [0.25, 0.75])
        return float(low), float(high)


@dataclass(frozen=True)
class RewardTiming:
    """Both paths from the same batch of latents to the same rewards."""

    latent: dict[str, Timing]
    """Phases of the latent path: "latent geometry" (the LGM), "rewards"."""
    pixel: dict[str, Timing]
    """Phases of the pixel path: "decode" (the autoencoder), "geometry" (the uncut model), "rewards"."""
    batch_size: int
    latent_shape: tuple[int, ...]
    device: str
    threads: int
    peak_bytes: dict[str, int] = field(default_factory=dict)
    """Peak memory by path ("latent", "pixel") above what was allocated before; CUDA only."""

    @property
    def latent_total(self) -> Timing:
        """The whole latent path, repeat by repeat."""
        return _total(self.latent)

    @property
    def pixel_total(self) -> Timing:
        """The whole pixel path, repeat by repeat."""
        return _total(self.pixel)

    @property
    def speedup(self) -> float:
        """Median time of the pixel path over the median time of the latent path."""
        return self.pixel_total.median / self.latent_total.median


@torch.no_grad()
def time_reward_paths(
    latents: Tensor,
    latent_geometry: Callable[[Tensor], SceneGeometry],
    decode: Callable[[Tensor], Tensor],
    teacher: Callable[[Tensor], SceneGeometry],
    rewards: Mapping[str, Callable[[SceneGeometry], object]],
    repeats: int = 10,
    warmup: int = 2,
) -> RewardTiming:
    """Times latents -> LGM -> rewards against latents -> decode -> teacher -> rewards, without gradients.

    The two paths take turns within every repeat, so that a machine that slows down slows both.

    Args:
        latents: [B, C, T_lat, H_lat, W_lat], normalised; a batch of 4 is what the figures in the docs use.
        latent_geometry: the LGM.
        decode: latents to frames [B, T, H, W, 3].
        teacher: frames to geometry, on the key frames (see `KeyFrameTeacher`).
        rewards: by name, each called with the geometry.
        repeats: measured turns.
        warmup: turns before, which are thrown away.

    Raises:
        ValueError: if `repeats` is less than one or `warmup` negative.
    """
    if repeats < 1 or warmup < 0:
        raise ValueError(f"repeats is {repeats} and warmup {warmup}, expected at least 1 and 0")

    def score(scene: SceneGeometry) -> SceneGeometry:
        for reward in rewards.values():
            reward(scene)
        return scene

    paths: dict[str, list[tuple[str, Callable]]] = {
        "latent": [("latent geometry", latent_geometry), ("rewards", score)],
        "pixel": [("decode", decode), ("geometry", teacher), ("rewards", score)],
    }
    seconds: dict[str, dict[str, list[float]]] = {
        path: {phase: [] for phase, _ in phases} for path, phases in paths.items()
    }
    peaks: dict[str, int] = {}
    for turn in range(warmup + repeats):
        for path, phases in paths.items():
            before = _start_memory(latents.device)
            value: Tensor | SceneGeometry = latents
            for phase, function in phases:
                start = _now(latents.device)
                value = function(value)
                if turn >= warmup:
                    seconds[path][phase].append(_now(latents.device) - start)
            if latents.is_cuda:
                peaks[path] = torch.cuda.max_memory_allocated(latents.device) - before
    return RewardTiming(
        {phase: Timing(times) for phase, times in seconds["latent"].items()},
        {phase: Timing(times) for phase, times in seconds["pixel"].items()},
        len(latents),
        tuple(latents.shape),
        torch.cuda.get_device_name(latents.device) if latents.is_cuda else str(latents.device),
        torch.get_num_threads(),
        peaks,
    )


def _total(phases: Mapping[str, Timing]) -> Timing:
    return Timing([sum(times) for times in zip(*(phase.seconds for phase in phases.values()), strict=True)])


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _start_memory(device: torch.device) -> int:
    if device.type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)
