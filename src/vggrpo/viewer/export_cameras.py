"""The cameras of a scene in float64, checked for what formats of other programs can hold."""

import numpy as np
from numpy.typing import NDArray

from vggrpo.config.errors import ConfigError
from vggrpo.viewer.scene_file import Scene4D


def scene_cameras(scene: Scene4D, kind: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """`camera_to_world` [T, 4, 4], its rotations made exactly orthonormal, and `intrinsics` [T, 3, 3].

    Args:
        scene: whose cameras.
        kind: the name of the format, for messages.

    Raises:
        ConfigError: if a camera is not finite, without positive focal lengths, mirrored, or with a skew.
    """
    pose = scene.geometry.camera_to_world[0].detach().cpu().double().numpy().copy()
    K = scene.geometry.intrinsics[0].detach().cpu().double().numpy()
    finite = np.isfinite(pose).all(axis=(1, 2)) & np.isfinite(K).all(axis=(1, 2))
    focal = np.stack([K[:, 0, 0], K[:, 1, 1]], axis=1)
    determinant = np.linalg.det(np.where(finite[:, None, None], pose[:, :3, :3], np.eye(3)))
    faults = {
        "not finite": ~finite,
        "without positive focal lengths": finite & (focal <= 0).any(axis=1),
        "mirrored": determinant <= 0,
        "with skewed pixels": finite & (np.abs(K[:, 0, 1]) > 1e-6 * focal[:, 0]),
    }
    for fault, views in faults.items():
        if views.any():
            raise ConfigError(
                f"{kind} cannot hold cameras that are {fault}, as those of views "
                f"{', '.join(map(str, views.nonzero()[0]))} are; leave this export out"
            )
    # A pose is exported as a unit quaternion, so the nearest rotation is what any reader gets.
    u, _, vt = np.linalg.svd(pose[:, :3, :3])
    pose[:, :3, :3] = u @ vt
    return pose, K
