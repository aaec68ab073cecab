"""SceneGeometry -> score: camera-motion smoothness and geometry reprojection consistency."""

from vggrpo.rewards.base import Reward, SceneReward
from vggrpo.rewards.camera_motion import CameraMotionReward
from vggrpo.rewards.reprojection import ReprojectionReward

__all__ = ["CameraMotionReward", "ReprojectionReward", "Reward", "SceneReward"]
