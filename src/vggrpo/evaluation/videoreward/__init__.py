"""VideoReward, a learned judge of videos: visual quality, motion quality, text alignment."""

from vggrpo.evaluation.videoreward.metric import VIDEO_REWARD_VALUES, VideoRewardMetric, open_video_reward
from vggrpo.evaluation.videoreward.network import VideoRewardNetwork
from vggrpo.evaluation.videoreward.source import REPOSITORY, VideoRewardSource, locate_video_reward
from vggrpo.evaluation.videoreward.weights import load_network

__all__ = [
    "REPOSITORY",
    "VIDEO_REWARD_VALUES",
    "VideoRewardMetric",
    "VideoRewardNetwork",
    "VideoRewardSource",
    "load_network",
    "locate_video_reward",
    "open_video_reward",
]
