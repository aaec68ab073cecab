"""Making the first view's camera the world, which networks that predict cameras only approximate."""

import torch
from torch import Tensor

from vggrpo.geometry import relative_pose


def cameras_from_first_view(camera_to_world: Tensor) -> Tensor:
    """Cameras [B, T, 4, 4] in the frame of camera 0, which becomes the identity exactly."""
    reference = camera_to_world[:, :1]
    identity = torch.eye(4, dtype=camera_to_world.dtype, device=camera_to_world.device)
    others = relative_pose(reference, camera_to_world[:, 1:])
    return torch.cat([identity.expand_as(reference), others], dim=1)
