"""The rewards that settings describe."""

from vggrpo.config import RewardSettings
from vggrpo.rewards import CameraMotionReward, ReprojectionReward, SceneReward

CAMERA_MOTION, REPROJECTION = "camera_motion", "reprojection"
"""Names of the rewards, in settings, metrics and advantages alike."""


def build_rewards(settings: RewardSettings) -> dict[str, SceneReward]:
    """Both rewards by name, with the settings' options."""
    return {
        CAMERA_MOTION: CameraMotionReward(**settings.camera_motion.model_dump()),
        REPROJECTION: ReprojectionReward(**settings.reprojection.model_dump()),
    }
