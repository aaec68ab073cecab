"""Stitch-layer search: at which layer of a geometry model can video latents enter with the least loss?

For every candidate a connector is fitted in closed form (`ridge`) and judged on clips that the fit has not
seen:

- held-out error: 1 - R^2 of the tokens, so 0 is exact and 1 is no better than the mean token;
- downstream error: the untrained stitched model's errors of log depth, camera rotation and camera
  translation against the teacher, each divided by what it would be for a predictor that sees nothing
  (`downstream`), averaged: 0 is the teacher, 1 is no better than seeing nothing.

The recommended point has the least downstream error among those whose held-out error is within
`SHORTLIST_MARGIN` of the least one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
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
    """1 - R^2 of the tokens on clips that the fit has not seen."""
    fit_error: float
    """1 - R^2 on the clips of the fit."""
    output_errors: OutputErrors | None
    """Of the untrained stitched model on held-out clips; None if it was not run."""
    downstream_error: float | None
    """The output errors relative to seeing nothing, averaged."""
    solution: RidgeSolution
    special_tokens: Tensor
    """The teacher's mean special tokens [S, width]; [2, S, width], of view 0 and of the others, where these
    differ."""

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
        }


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
        result = self.result(point or self.recommended)
        return Connector.from_ridge(result.solution, result.special_tokens, self.stride)

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
        candidates: names of stitch points; all if empty.
        downstream_clips: how many of the held-out clips the untrained stitched models are run on; None is
            all, 0 leaves the downstream error out (the recommended point then has the least held-out
            error).
        ridges: penalties to try, relative to the mean eigenvalue of the inputs' second moment.
        kernel_size, stride: the connector's convolution.

    Raises:
        ValueError: if a candidate does not exist, the share leaves no clip on one side, or shapes disagree.
    """
    if held_out_clips < 1:
        raise ValueError(f"held_out_clips is {held_out_clips}; expected at least 1")
    chosen = {backbone.stitch_point(name) for name in candidates} or set(backbone.stitch_points)
    points = [point for point in backbone.stitch_points if point in chosen]
    data = _SearchData(points, RidgeStatistics(kernel_size, stride), RidgeStatistics(kernel_size, stride))
    data.collect(backbone, batches, held_out_clips, downstream_clips)
    positions = {point.name: backbone.position_code(point.name, data.grid) for point in points}
    solutions = _best_solutions(data.fit, data.held_out, positions, ridges)
    specials = data.mean_special_tokens()

    errors: dict[str, OutputErrors] = {}
    nothing_seen = None
    if data.clips:
        connectors = {
            name: Connector.from_ridge(solution, specials[name], stride)
            for name, solution in solutions.items()
        }
        errors, nothing_seen = stitched_output_errors(backbone, connectors, data.clips)

    results = tuple(
        LayerResult(
            point=point,
            held_out_error=data.held_out.error(point.name, solutions[point.name]),
            fit_error=data.fit.error(point.name, solutions[point.name]),
            output_errors=errors.get(point.name),
            downstream_error=errors[point.name].relative_to(nothing_seen) if nothing_seen else None,
            solution=solutions[point.name].cpu(),
            special_tokens=specials[point.name].cpu(),
        )
        for point in points
    )
    return LayerSearch(
        results=results,
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

    Without downstream errors, the point of least held-out error.
    """
    limit = min(result.held_out_error for result in results) + SHORTLIST_MARGIN
    shortlist = [result for result in results if result.held_out_error <= limit]

    def error(result: LayerResult) -> float:
        return result.held_out_error if result.downstream_error is None else result.downstream_error

    return min(shortlist, key=error).point.name


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
            tokens = backbone.tokens_at(frames, [point.name for point in self.points])
            numbers = range(num_clips, num_clips + latents.shape[0])
            held_out = torch.tensor([number < held_out_clips for number in numbers], device=device)
            num_clips += latents.shape[0]
            for statistics, chosen in ((self.fit, ~held_out), (self.held_out, held_out)):
                if chosen.any():
                    statistics.add(
                        latents[chosen], {name: patches[chosen] for name, (patches, _) in tokens.items()}
                    )
            self._add_special_tokens({name: special[~held_out] for name, (_, special) in tokens.items()})
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

    def mean_special_tokens(self) -> dict[str, Tensor]:
        """Mean over the fit's clips and views, [S, width] per point; where view 0 has its own, [2, S, width].

        Raises:
            ValueError: if view 0 has its own and there is no other view.
        """
        means = {}
        for point in self.points:
            total = self._special_sums[point.name]  # [2, S, width]
            counts = self._num_views.to(total)
            if not point.reference_specials:
                means[point.name] = (total.sum(dim=0) / counts.sum()).float()
                continue
            if counts[1] == 0:
                raise ValueError(
                    f"the clips have one view, but {point.name} needs the special tokens of later views too; "
                    "use at least two latent frames"
                )
            means[point.name] = (total / counts[:, None, None]).float()
        return means

    def _add_special_tokens(self, tokens: dict[str, Tensor]) -> None:
        for name, special in tokens.items():  # [B, T, S, width]
            sums = special.double().sum(dim=0)
            total = torch.stack([sums[0], sums[1:].sum(dim=0)])
            self._special_sums[name] = (
                self._special_sums[name] + total if name in self._special_sums else total
            )
        batch, views = special.shape[:2]
        self._num_views += torch.tensor([batch, batch * (views - 1)])


def _best_solutions(
    fit: RidgeStatistics,
    held_out: RidgeStatistics,
    positions: dict[str, Tensor | None],
    ridges: Sequence[float],
) -> dict[str, RidgeSolution]:
    """Per point the solution whose ridge gives the least held-out error."""
    best: dict[str, tuple[float, RidgeSolution]] = {}
    for ridge in ridges:
        for name, solution in fit.solve(ridge, positions).items():
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
