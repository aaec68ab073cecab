"""The geometry reprojection reward: seen from one view, do all views' points agree with its own depth?"""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from vggrpo.geometry import (
    PointRender,
    SceneGeometry,
    lower_quantile,
    masked_mean,
    median_depth,
    render_depth,
    static_mask_from_flow,
    valid_depth,
)
from vggrpo.rewards.base import SceneReward, neutralised, usable_samples
from vggrpo.rewards.comparison import depth_error, observed_at_pixels, observed_at_points


@dataclass(frozen=True)
class ReprojectionReward(SceneReward):
    """r_geo = 1 / ( 1 + mean of the `worst_k` greatest view errors ), in (0, 1].

    The static points of all views are drawn into view i with a z-buffer: D^_i. Over Omega_i, the pixels that
    received a point and whose own depth is valid and static,

        e_i = 1/|Omega_i| sum_{p in Omega_i} | D^_i(p) - D_i(p) |.

    The defaults are the paper's reading. `robust()` is the setting of every recipe that is not the paper's.

    Parts: `reprojection_error` [B] (the mean of the worst), `view_error` [B, T] (NaN where the view is
    invalid), `view_valid` [B, T] bool, `overlap` [B, T] (|Omega_i| as a share of the view's pixels),
    `valid_view_share` [B], `static_share` [B] (of the pixels with valid depth) and
    `dynamics_filtered` [B] bool.

    Raises:
        ValueError: if a setting is out of range.
    """

    relative: bool = False
    """Errors in units of the clip's median depth: shrinking the scene cannot help."""
    exclude_own: bool = False
    """Compare view i with the other views' points only: seeing nothing that others saw earns no credit."""
    min_overlap: float = 0.0
    """A view in which Omega_i is a smaller share of all pixels is invalid; so is one where it is empty."""
    compare: Literal["pixel", "subpixel"] = "pixel"
    """At the pixel's centre, where a sideways camera error has no gradient, or between pixels, where the
    point projects to: differentiable in the projection, as guidance and backpropagation need."""
    occlusion_tolerance: float | None = None
    """Where the error of a point behind the observed surface saturates, as a fraction of that depth."""
    edge_tolerance: float | None = 0.1
    """Spread of the four depths around a subpixel comparison above which they hold an edge."""
    confidence_quantile: float = 0.0
    """Points whose confidence is below this quantile of the clip's are not drawn."""
    worst_k: int = 3
    """How many of the worst valid views count."""
    dynamic_filter: bool = True
    """Leave out dynamic pixels: by `static_mask` if the scene has one, else as derived from its scene flow;
    with neither, nothing can be left out, and the part `dynamics_filtered` is False."""
    flow_threshold: float = 0.1
    """Displacement above which a point of view 0 is dynamic: scene units, or median depths if `relative`."""
    max_elements: int | None = None
    """Memory limit of the rendering; see `render_depth`."""

    @classmethod
    def robust(cls, **overrides: Any) -> "ReprojectionReward":
        """Settings that withstand optimisation: relative, other views' points, minimum overlap, subpixel."""
        settings: dict[str, Any] = {
            "relative": True,
            "exclude_own": True,
            "min_overlap": 0.1,
            "compare": "subpixel",
            "occlusion_tolerance": 0.1,
            "flow_threshold": 0.03,
        }
        return cls(**{**settings, **overrides})

    def __post_init__(self) -> None:
        if self.compare not in ("pixel", "subpixel"):
            raise ValueError(f"compare is {self.compare!r}, but 'pixel' or 'subpixel' was expected")
        for name in ("min_overlap", "confidence_quantile"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ValueError(f"{name} is {value}, but a share in [0, 1) was expected")
        for name in ("occlusion_tolerance", "edge_tolerance", "flow_threshold"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} is {value}, but a positive number was expected")
        for name in ("worst_k", "max_elements"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}, but at least 1 was expected")

    def score(self, scene: SceneGeometry) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """See the class."""
        error, omega, static, filtered = self._compared(scene)
        view_error = masked_mean(error, omega, dim=(2, 3))
        overlap = omega.flatten(2).to(error.dtype).mean(dim=2)
        view_valid = (overlap > 0) & (overlap >= self.min_overlap)
        worst = self._mean_of_worst(view_error, view_valid)
        parts = {
            "reprojection_error": torch.where(view_valid.any(dim=1), worst, torch.nan),
            "view_error": torch.where(view_valid, view_error, torch.nan),
            "view_valid": view_valid,
            "overlap": overlap,
            "valid_view_share": view_valid.to(error.dtype).mean(dim=1),
            "static_share": masked_mean(static.to(error.dtype), valid_depth(scene.depth_z), dim=(1, 2, 3)),
            "dynamics_filtered": torch.full_like(view_valid[:, 0], filtered),
        }
        return 1 / (1 + worst), view_valid.any(dim=1), parts

    def error_map(self, scene: SceneGeometry) -> Tensor:
        """The errors that `view_error` averages, pixel by pixel [B, T, H, W], without gradient.

        In median depths of the clip if `relative`, else in scene units; NaN outside Omega_i, and in every
        pixel of a clip that the reward could not use.
        """
        with torch.no_grad(), torch.autocast(device_type=scene.device.type, enabled=False):
            scene = scene.to(dtype=torch.promote_types(scene.dtype, torch.float32))
            usable = usable_samples(scene)
            error, omega, _, _ = self._compared(neutralised(scene, usable))
            return torch.where(omega & usable[:, None, None, None], error, torch.nan)

    def _compared(self, scene: SceneGeometry) -> tuple[Tensor, Tensor, Tensor, bool]:
        """Errors, Omega and static pixels, [B, T, H, W] each, and whether dynamics were known."""
        unit = median_depth(scene.depth_z) if self.relative else scene.depth_z.new_ones(scene.batch_size)
        static, filtered = self._static(scene, unit)
        usable = valid_depth(scene.depth_z) & static
        render = self._render(scene, usable)
        if self.compare == "pixel":
            observed, omega = observed_at_pixels(render, scene.depth_z, usable)
        else:
            observed, omega = observed_at_points(render, scene.depth_z, usable, self.edge_tolerance)
        error = depth_error(render.depth, observed, self.occlusion_tolerance) / unit[:, None, None, None]
        return error, omega, static, filtered

    def _static(self, scene: SceneGeometry, unit: Tensor) -> tuple[Tensor, bool]:
        """[B, T, H, W] bool, and whether anything was known about dynamics."""
        if self.dynamic_filter and scene.static_mask is not None:
            return scene.static_mask, True
        if self.dynamic_filter and scene.scene_flow_from_ref is not None:
            return static_mask_from_flow(scene, self.flow_threshold * unit.detach()), True
        return torch.ones_like(scene.depth_z, dtype=torch.bool), False

    def _render(self, scene: SceneGeometry, usable: Tensor) -> PointRender:
        """The drawn points of all views in every view."""
        drawn = usable
        if self.confidence_quantile > 0 and scene.confidence is not None:
            least = lower_quantile(scene.confidence, self.confidence_quantile)
            drawn = drawn & (scene.confidence >= least[:, None, None, None])
        own_view = torch.arange(scene.num_views, device=scene.device)
        return render_depth(
            scene.world_points.flatten(1, 3),
            drawn.flatten(1),
            scene.camera_to_world,
            scene.intrinsics,
            scene.height,
            scene.width,
            hidden_view=own_view.repeat_interleave(scene.height * scene.width) if self.exclude_own else None,
            max_elements=self.max_elements,
        )

    def _mean_of_worst(self, view_error: Tensor, view_valid: Tensor) -> Tensor:
        """Mean [B] of the `worst_k` greatest errors [B, T] among the valid views; 0 without any."""
        k = min(self.worst_k, view_error.shape[1])
        greatest = torch.where(view_valid, view_error, -1.0).topk(k, dim=1).values
        return masked_mean(greatest, greatest >= 0, dim=1)
