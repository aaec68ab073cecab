"""What an Any4D network says before it becomes a scene: the raw values, and their activations by name."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Any4DPrediction:
    """Raw float32 outputs for T views of H x W pixels. Lengths times `scale` are metric."""

    ray_vectors: Tensor
    """[B, T, H, W, 3] viewing rays in the camera's frame, of any length."""
    log_depth: Tensor
    """[B, T, H, W] logarithm of the distance along the ray."""
    log_confidence: Tensor
    """[B, T, H, W] logarithm of (confidence - 1)."""
    mask_logits: Tensor
    """[B, T, H, W] logits of "this pixel has a well-defined depth"."""
    scene_flow: Tensor
    """[B, T, H, W, 3] on view 0's pixels: the motion of its points from view 0 to view t, world axes."""
    translation: Tensor
    """[B, T, 3] camera centres in the world."""
    quat_vectors: Tensor
    """[B, T, 4] camera-to-world rotations as xyzw quaternions of any length."""
    log_scale: Tensor
    """[B] logarithm of the metric scale."""

    @property
    def ray_directions(self) -> Tensor:
        """[B, T, H, W, 3] unit rays in the camera's frame."""
        return F.normalize(self.ray_vectors, dim=-1, eps=1e-8)

    @property
    def depth_along_ray(self) -> Tensor:
        """[B, T, H, W] distance along the ray, network units."""
        return self.log_depth.exp()

    @property
    def confidence(self) -> Tensor:
        """[B, T, H, W], above 1."""
        return 1 + self.log_confidence.exp()

    @property
    def quat_xyzw(self) -> Tensor:
        """[B, T, 4] unit quaternions."""
        return self.quat_vectors / torch.linalg.vector_norm(self.quat_vectors, dim=-1, keepdim=True)

    @property
    def scale(self) -> Tensor:
        """[B] metric scale: scene units per network unit."""
        return self.log_scale.exp().clamp(min=1e-8)
