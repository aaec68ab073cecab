"""SceneGeometry -> score: camera-motion smoothness, geometry reprojection consistency, a camera path."""

from vggrpo.rewards.base import Reward, SceneReward
from vggrpo.rewards.camera_motion import CameraMotionReward
from vggrpo.rewards.camera_trajectory import CameraTrajectoryReward
from vggrpo.rewards.reprojection import ReprojectionReward

__all__ = ["CameraMotionReward", "CameraTrajectoryReward", "ReprojectionReward", "Reward", "SceneReward"]
