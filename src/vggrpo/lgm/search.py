"""Stitch-layer search: at which layer of a geometry model can video latents enter with the least loss?

For every candidate a connector is fitted in closed form (`ridge`) and judged on clips that the fit has not
seen:

- held-out error: 1 - R^2 of the tokens, so 0 is exact and 1 is no better than the mean token; of a deep
  point, whose heads have lost inputs, the worst of its tokens and of those inputs;
- downstream error: the untrained stitched model's errors of log depth, camera rotation and camera
  translation against the teacher, each divided by what it would be for a predictor that sees nothing
  (`downstream`), averaged: 0 is the teacher, 1 is no better than seeing nothing.

The recommended point has the least downstream error among those whose held-out error is within
`SHORTLIST_MARGIN` of the least one.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from vggrpo.backbones.base import GeometryBackbone, StitchPoint
from vggrpo.lgm.connector import Connector
from vggrpo.lgm.downstream import Clips, OutputErrors, stitched_output_errors
from vggrpo.lgm.ridge import RidgeSolution, RidgeStatistics
from vggrpo.lgm.unfolding import KERNEL_SIZE, STRIDE, token_grid

RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
"""Penalties that are tried; each candidate keeps the one of least held-out error."""
SHORTLIST_MARGIN = 0.1
"""How far above the least held-out error a candidate may be and still win by its downstream error."""


@dataclass(frozen=True)
class LayerResult:
    """One candidate: how well latents replace its tokens, and the connector that does it."""

    point: StitchPoint
    held_out_error: float
    """1 - R^2 of the tokens on clips that the fit has not seen; the worst, of tokens and lost head inputs."""
    fit_error: float
    """1 - R^2 on the clips of the fit, likewise."""
    output_errors: OutputErrors | None
    """Of the untrained stitched model on held-out clips; None if it was not run."""
    downstream_error: float | None
    """The output errors relative to seeing nothing, averaged."""
    solution: RidgeSolution
    special_tokens: Tensor
    """The teacher's mean special tokens [S, width]; [2, S, width], of view 0 and of the others, where these
    differ."""
    auxiliary: Mapping[str, RidgeSolution] = field(default_factory=dict)
    """The connectors of lost head inputs."""

    def row(self) -> dict[str, Any]:
        """The figures as JSON values."""
        outputs = (
            asdict(self.output_errors) if self.output_errors else dict.fromkeys(OutputErrors.__annotations__)
        )
        return {
            "point": self.point.name,
            "held_out_error": self.held_out_error,
            "downstream_error": self.downstream_error,
            **outputs,
            "fit_error": self.fit_error,
            "ridge": self.solution.ridge,
            "width": self.point.width,
            "num_special_tokens": self.point.num_special_tokens,
            "auxiliary": list(self.auxiliary),
        }

    def cpu(self) -> "LayerResult":
        """The same result on the CPU."""
        return replace(
            self,
            solution=self.solution.cpu(),
            special_tokens=self.special_tokens.cpu(),
            auxiliary={name: solution.cpu() for name, solution in self.auxiliary.items()},
        )

    def connector(self, stride: tuple[int, int, int]) -> Connector:
        """The fitted connector, where the special tokens are."""
        return Connector.from_ridge(self.solution, self.special_tokens, stride, self.auxiliary)


@dataclass(frozen=True)
class LayerSearch:
    """The candidates in the model's order, and the recommended one."""

    results: tuple[LayerResult, ...]
    recommended: str
    num_fit_clips: int
    num_held_out_clips: int
    grid: tuple[int, int]
    """(h, w) of the tokens."""
    nothing_seen: OutputErrors | None
    """The errors of a constant depth and a still camera: what `downstream_error` is relative to."""
    stride: tuple[int, int, int]

    def result(self, point: str) -> LayerResult:
        """The candidate of that name.

        Raises:
            ValueError: if it was no candidate.
        """
        for result in self.results:
            if result.point.name == point:
                return result
        names = ", ".join(result.point.name for result in self.results)
        raise ValueError(f"stitch point {point!r} was not searched; the candidates were {names}")

    def connector(self, point: str | None = None) -> Connector:
        """The fitted connector at `point` (default: the recommended one), on the CPU."""
        return self.result(point or self.recommended).connector(self.stride)

    def as_dict(self) -> dict[str, Any]:
        """Everything but the fitted weights, as JSON values."""
        return {
            "recommended": self.recommended,
            "num_fit_clips": self.num_fit_clips,
            "num_held_out_clips": self.num_held_out_clips,
            "grid": list(self.grid),
            "nothing_seen": asdict(self.nothing_seen) if self.nothing_seen else None,
            "candidates": [result.row() for result in self.results],
        }


@torch.no_grad()
def find_layer(
    backbone: GeometryBackbone,
    batches: Iterable[Clips],
    held_out_clips: int,
    candidates: Sequence[str] = (),
    downstream_clips: int | None = None,
    ridges: Sequence[float] = RIDGES,
    kernel_size: tuple[int, int, int] = KERNEL_SIZE,
    stride: tuple[int, int, int] = STRIDE,
) -> LayerSearch:
    """Fits a connector at every candidate point and judges it on held-out clips.

    The data are read once; of them only the clips for the downstream error are kept. Every clip should be
    of another scene, or the held-out error means nothing. As each candidate's ridge is chosen on the
    held-out clips (one of `len(ridges)`), its error there is very slightly optimistic.

    Args:
        backbone: the uncut geometry model; runs where its parameters are, under the caller's autocast.
        batches: latents [B, C, T, H, W] with the same clips' frames [B, T, h * patch, w * patch, 3] in
            [0, 1], one frame per latent frame (`teacher_frames` makes them from videos).
        held_out_clips: how many clips at the beginning of the stream are not used in the fit.
        candidates: names of stitch points; if empty all at which nothing is lost. Deep ones are searched
            only where they are named.
        downstream_clips: how many of the held-out clips the untrained stitched models are run on; None is
            all, 0 leaves the downstream error out (the recommended point then has the least held-out
            error).
        ridges: penalties to try, relative to the mean eigenvalue of the inputs' second moment.
        kernel_size, stride: the connector's convolution.

    Raises:
        ValueError: if a candidate does not exist, there are no more clips than `held_out_clips`, shapes
            disagree, the clips have one view and a candidate marks view 0, or no candidate has finite errors.
    """
    if held_out_clips < 1:
        raise ValueError(f"held_out_clips is {held_out_clips}; expected at least 1")
    chosen = {backbone.stitch_point(name) for name in candidates} or set(backbone.stitch_points)
    points = [p for p in (*backbone.stitch_points, *backbone.deep_stitch_points) if p in chosen]
    data = _SearchData(points, RidgeStatistics(kernel_size, stride), RidgeStatistics(kernel_size, stride))
    data.collect(backbone, batches, held_out_clips, downstream_clips)
    positions: dict[str, Tensor | None] = dict.fromkeys(data.targets)
    positions |= {point.name: backbone.position_code(point.name, data.grid) for point in points}
    solutions = _best_solutions(data.fit, data.held_out, positions, data.reference, ridges)
    specials = data.mean_special_tokens()
    results = []
    for point in points:
        parts = (point.name, *(lost.name for lost in point.lost))
        results.append(
            LayerResult(
                point=point,
                held_out_error=max(data.held_out.error(name, solutions[name]) for name in parts),
                fit_error=max(data.fit.error(name, solutions[name]) for name in parts),
                output_errors=None,
                downstream_error=None,
                solution=solutions[point.name],
                special_tokens=specials[point.name],
                auxiliary={name: solutions[name] for name in parts[1:]},
            )
        )
    nothing_seen = None
    if data.clips:
        connectors = {result.point.name: result.connector(stride) for result in results}
        errors, nothing_seen = stitched_output_errors(backbone, connectors, data.clips)
        results = [
            replace(
                result,
                output_errors=errors[result.point.name],
                downstream_error=errors[result.point.name].relative_to(nothing_seen),
            )
            for result in results
        ]
    return LayerSearch(
        results=tuple(result.cpu() for result in results),
        recommended=recommend(results),
        num_fit_clips=data.fit.num_clips,
        num_held_out_clips=data.held_out.num_clips,
        grid=data.grid,
        nothing_seen=nothing_seen,
        stride=stride,
    )


def recommend(results: Sequence[LayerResult]) -> str:
    """The point of least downstream error among those of nearly the least held-out error; the earlier one
    of equals.

    Without downstream errors, the point of least held-out error. Points with an error that is not finite are
    left out.

    Raises:
        ValueError: if none remains.
    """

    def error(result: LayerResult) -> float:
        return result.held_out_error if result.downstream_error is None else result.downstream_error

    finite = [r for r in results if math.isfinite(r.held_out_error) and math.isfinite(error(r))]
    if not finite:
        names = ", ".join(result.point.name for result in results)
        raise ValueError(
            f"no stitch point ({names}) has finite errors: the latents or the geometry model's tokens hold "
            "numbers that are not; check the clips, and the model in float32"
        )
    limit = min(result.held_out_error for result in finite) + SHORTLIST_MARGIN
    return min((result for result in finite if result.held_out_error <= limit), key=error).point.name


class _SearchData:
    """What one pass over the clips leaves: the regression's sums of both sides and some held-out clips."""

    def __init__(
        self, points: Sequence[StitchPoint], fit: RidgeStatistics, held_out: RidgeStatistics
    ) -> None:
        self.points = points
        self.fit = fit
        self.held_out = held_out
        self.clips: list[Clips] = []
        self._special_sums: dict[str, Tensor] = {}
        self._num_views = torch.zeros(2, dtype=torch.float64)
        """First views, and others."""

    @property
    def targets(self) -> list[str]:
        """Names of all that is regressed on: the points' tokens and their lost head inputs."""
        lost = [head_input.name for point in self.points for head_input in point.lost]
        return list(dict.fromkeys([*(point.name for point in self.points), *lost]))

    @property
    def reference(self) -> set[str]:
        """Those of which view 0 has its own mean."""
        marked = [point for point in self.points if point.reference_patches]
        return {name for p in marked for name in (p.name, *(lost.name for lost in p.lost))}

    @property
    def grid(self) -> tuple[int, int]:
        assert self.fit.grid is not None
        return self.fit.grid

    def collect(
        self,
        backbone: GeometryBackbone,
        batches: Iterable[Clips],
        held_out_clips: int,
        downstream_clips: int | None,
    ) -> None:
        """Streams the batches through the teacher."""
        device = next(backbone.parameters()).device
        num_clips = 0
        for latents, frames in batches:
            _check_clips(latents, frames, backbone.patch_size, self.fit.stride)
            latents, frames = latents.to(device), frames.to(device)
            tokens = backbone.tokens_at(frames, self.targets)
            numbers = range(num_clips, num_clips + latents.shape[0])
            held_out = torch.tensor([number < held_out_clips for number in numbers], device=device)
            num_clips += latents.shape[0]
            for statistics, chosen in ((self.fit, ~held_out), (self.held_out, held_out)):
                if chosen.any():
                    statistics.add(
                        latents[chosen], {name: patches[chosen] for name, (patches, _) in tokens.items()}
                    )
            self._add_special_tokens({p.name: tokens[p.name][1][~held_out] for p in self.points})
            self._count_views(int((~held_out).sum()), latents.shape[2])
            wanted = held_out.nonzero().flatten()
            if downstream_clips is not None:
                wanted = wanted[: downstream_clips - sum(len(kept) for kept, _ in self.clips)]
            if len(wanted):
                self.clips.append((latents[wanted].cpu(), frames[wanted].cpu()))
        if not self.fit.num_clips or not self.held_out.num_clips:
            raise ValueError(
                f"of {num_clips} clips {self.fit.num_clips} are to fit and {self.held_out.num_clips} held "
                "out, but at least one of each is needed; give more clips or change held_out_clips "
                f"({held_out_clips})"
            )
        marked = [point.name for point in self.points if point.reference_specials or point.reference_patches]
        if marked and self._num_views[1] == 0:
            raise ValueError(
                f"the clips have one view, but {marked[0]} needs the tokens of later views too; use at least "
                "two latent frames"
            )

    def mean_special_tokens(self) -> dict[str, Tensor]:
        """Mean over the fit's clips and views, [S, width] per point; where view 0 has its own, [2, S,
        width]."""
        means = {}
        for point in self.points:
            total = self._special_sums[point.name]  # [2, S, width]
            counts = self._num_views.to(total)
            if point.reference_specials:
                means[point.name] = (total / counts[:, None, None]).float()
            else:
                means[point.name] = (total.sum(dim=0) / counts.sum()).float()
        return means

    def _add_special_tokens(self, tokens: dict[str, Tensor]) -> None:
        for name, special in tokens.items():  # [B, T, S, width]
            sums = special.double().sum(dim=0)
            total = torch.stack([sums[0], sums[1:].sum(dim=0)])
            self._special_sums[name] = (
                self._special_sums[name] + total if name in self._special_sums else total
            )

    def _count_views(self, clips: int, views: int) -> None:
        self._num_views += torch.tensor([clips, clips * (views - 1)])


def _best_solutions(
    fit: RidgeStatistics,
    held_out: RidgeStatistics,
    positions: Mapping[str, Tensor | None],
    reference: Collection[str],
    ridges: Sequence[float],
) -> dict[str, RidgeSolution]:
    """Per target the solution whose ridge gives the least held-out error."""
    best: dict[str, tuple[float, RidgeSolution]] = {}
    for ridge in ridges:
        for name, solution in fit.solve(ridge, positions, reference).items():
            error = held_out.error(name, solution)
            if name not in best or error < best[name][0]:
                best[name] = (error, solution)
    return {name: solution for name, (_, solution) in best.items()}


def _check_clips(latents: Tensor, frames: Tensor, patch_size: int, stride: tuple[int, int, int]) -> None:
    if latents.ndim != 5:
        raise ValueError(f"latents have shape {list(latents.shape)}; expected [B, C, T, H, W]")
    h, w = token_grid(latents.shape[-2], latents.shape[-1], stride)
    expected = [latents.shape[0], latents.shape[2], patch_size * h, patch_size * w, 3]
    if list(frames.shape) != expected:
        raise ValueError(
            f"frames have shape {list(frames.shape)}, but latents of shape {list(latents.shape)} need "
            f"{expected}: one frame per latent frame, resized to patch_size * grid (`teacher_frames` makes "
            "them from videos)"
        )
