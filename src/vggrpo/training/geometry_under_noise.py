"""How geometry and rewards hold up when latents are perturbed: read from the perturbed latents, and by the
uncut model from their video."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from vggrpo.evaluation import bootstrap_mean
from vggrpo.evaluation.geometry_metrics import GEOMETRY_METRICS
from vggrpo.evaluation.geometry_records import finite_json, measure_scenes
from vggrpo.evaluation.videos.results import Record
from vggrpo.geometry import SceneGeometry
from vggrpo.io import make_generator
from vggrpo.rewards import SceneReward
from vggrpo.training.geometry_readers import DECODED, LATENTS, GeometryReaders
from vggrpo.training.lgm_gate import noise_points
from vggrpo.training.pretrain.measures import reward_values

SOURCES = {LATENTS: "lgm", DECODED: "teacher"}
"""The readings, and what the gate of a latent geometry model calls them."""


@torch.no_grad()
def measure_levels(
    readers: GeometryReaders,
    latents: Tensor,
    truth: SceneGeometry,
    numbers: Sequence[int],
    *,
    std: Tensor,
    levels: Sequence[float],
    rewards: Mapping[str, SceneReward],
    seed: int,
) -> Iterator[Record]:
    """The record of each of B clips: at every level, of both readings, the metrics and the rewards.

    Args:
        readers: the models.
        latents: of the clips, [B, C, T, H, W].
        truth: exact geometry of the views.
        numbers: of the clips; a clip has the same noise at every level, drawn from `seed` and its number.
        std: of the channels, [C, 1, 1, 1].
        levels: standard deviations of the noise, as shares of `std`.
        rewards: by name.
        seed: of the noise.
    """
    generators = [make_generator(seed, "geometry noise", number) for number in numbers]
    noise = torch.stack([torch.randn(latents.shape[1:], generator=g) for g in generators]).to(latents)
    clips: list[list[Record]] = [[] for _ in numbers]
    for level in levels:
        scenes = readers.of_latents(latents + level * std.to(latents) * noise)
        measured = {reading: measure_scenes(scene, truth) for reading, scene in scenes.items()}
        scored = {reading: reward_values(scene, rewards) for reading, scene in scenes.items()}
        for row, points in enumerate(clips):
            point: Record = {"level": level}
            for reading in SOURCES:
                values = {name: float(column[row]) for name, column in scored[reading].items()}
                point[reading] = {
                    "metrics": measured[reading][row]["metrics"],
                    "rewards": finite_json(values),
                }
            points.append(point)
    yield from ({"levels": points} for points in clips)


def noise_figures(
    records: Sequence[Record], levels: Sequence[float], rewards: Mapping[str, SceneReward], seed: int
) -> dict[str, Any]:
    """The robustness curves of clips, for JSON.

    `errors`: of every metric that could be measured, for both readings, the mean with its interval at each
    level. `rewards`: of every reward, at each level, how its value follows the uncut model's on the decoded
    unperturbed latents (`vggrpo.evaluation.NoisePoint`).
    """
    errors: dict[str, dict[str, list[Any]]] = {}
    for metric in GEOMETRY_METRICS:
        curves: dict[str, list[Any]] = {reading: [] for reading in SOURCES}
        for place in range(len(levels)):
            for reading, curve in curves.items():
                values = [record["levels"][place][reading]["metrics"][metric] for record in records]
                curve.append(finite_json(asdict(bootstrap_mean(_numbers(values), seed=seed))))
        if any(interval["count"] for curve in curves.values() for interval in curve):
            errors[metric] = curves
    columns = {
        level: {
            f"{source}/{name}": torch.tensor(
                _numbers([record["levels"][place][reading]["rewards"][name] for record in records])
            )
            for reading, source in SOURCES.items()
            for name in rewards
        }
        for place, level in enumerate(levels)
    }
    points = noise_points(columns, rewards, list(range(len(records))), seed)
    return {
        "clips": len(records),
        "levels": list(levels),
        "errors": errors,
        "rewards": {
            name: [finite_json(asdict(point)) for point in of_reward] for name, of_reward in points.items()
        },
    }


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [float("nan") if value is None else value for value in values]
