"""What a VGGT network says before it becomes a scene: the raw values, and their activations by name."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class VGGTPrediction:
    """Raw float32 outputs for T views of H x W pixels. Lengths are in units of the scene's own size."""

    pose_encodings: Tensor
    """[iterations, B, T, 9] cameras after each step of refinement: translation, quaternion xyzw of any
    length, vertical and horizontal field of view in radians, before it is made positive."""
    log_depth: Tensor
    """[B, T, H, W] logarithm of the depth along the optical axis."""
    log_depth_confidence: Tensor
    """[B, T, H, W] logarithm of (confidence - 1)."""
    point_vectors: Tensor | None = None
    """[B, T, H, W, 3] world points, each coordinate x as sign(x) log(1 + |x|); None if they were not asked
    for."""
    log_point_confidence: Tensor | None = None
    """[B, T, H, W] likewise, logarithm of (confidence - 1)."""

    @property
    def translation(self) -> Tensor:
        """[B, T, 3] of the world-to-camera transform."""
        return self.pose_encodings[-1, ..., :3]

    @property
    def quat_xyzw(self) -> Tensor:
        """[B, T, 4] unit quaternions of the world-to-camera rotation."""
        vectors = self.pose_encodings[-1, ..., 3:7]
        return vectors / torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)

    @property
    def fov(self) -> Tensor:
        """[B, T, 2] vertical and horizontal field of view in radians, not negative."""
        return F.relu(self.pose_encodings[-1, ..., 7:])

    @property
    def depth_z(self) -> Tensor:
        """[B, T, H, W]."""
        return self.log_depth.exp()

    @property
    def depth_confidence(self) -> Tensor:
        """[B, T, H, W], above 1."""
        return 1 + self.log_depth_confidence.exp()

    @property
    def world_points(self) -> Tensor | None:
        """[B, T, H, W, 3] of the point head."""
        x = self.point_vectors
        return None if x is None else x.sign() * x.abs().expm1()

    @property
    def point_confidence(self) -> Tensor | None:
        """[B, T, H, W], above 1."""
        return None if self.log_point_confidence is None else 1 + self.log_point_confidence.exp()
