"""A video with a steadier camera: reward guidance in a drop-in for diffusers' WanPipeline.

python examples/reward_guidance.py --lgm runs/lgm/model
"""

from pathlib import Path

import numpy as np
import torch
import tyro

from vggrpo.config import resolve_model
from vggrpo.io import write_video
from vggrpo.lgm import LatentGeometryModel
from vggrpo.rewards import CameraMotionReward, ReprojectionReward
from vggrpo.rollout import LatentReward, RewardGuidance
from vggrpo.rollout.pipeline import VGGRPOPipeline


def main(
    lgm: Path,
    model: str = "micro",
    prompt: str = "a red box in a blue room",
    scale: float = 100.0,
    interval: int = 5,
    steps: int = 50,
    num_frames: int = 17,
    height: int = 48,
    width: int = 64,
    output: Path = Path("guided.mp4"),
) -> None:
    """Makes one guided video.

    Args:
        lgm: folder of a latent geometry model for `model`.
        model: a video model by name, or the folder of a WanPipeline.
        prompt: what to show.
        scale: of the guidance; 0 is the WanPipeline.
        interval: every how many steps it guides.
        steps: denoising steps.
        num_frames: a multiple of 4 plus 1.
        height: pixels.
        width: pixels.
        output: the video's file.
    """
    source = resolve_model(model, "video")
    pipeline = VGGRPOPipeline.from_pretrained(source.folder or source.hub)
    reward = LatentReward(
        LatentGeometryModel.from_pretrained(lgm),
        {"camera_motion": CameraMotionReward(), "reprojection": ReprojectionReward.robust()},
        weights={"camera_motion": 0.5, "reprojection": 0.5},
    )
    frames = pipeline(
        prompt,
        num_frames=num_frames,
        height=height,
        width=width,
        num_inference_steps=steps,
        guidance_scale=1.0,
        generator=torch.Generator().manual_seed(0),
        reward_guidance=RewardGuidance(reward, scale, interval),
    ).frames[0]
    write_video(output, (frames * 255).round().astype(np.uint8), fps=8)


if __name__ == "__main__":
    tyro.cli(main)
