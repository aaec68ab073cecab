"""What reward guidance costs: the time of guided over that of unguided sampling, per setting.

    python benchmarks/guidance_cost.py [--threads 1] [--output benchmarks/results/guidance_cost.json]

One video of the micro family from the same noise, ODE in 50 steps. The ways take turns in one process, so
that a machine that slows down slows all of them; a ratio is that of one turn.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from common.results import write_result

from vggrpo.backbones import VideoBackbone, load_video_backbone
from vggrpo.lgm import LatentGeometryModel
from vggrpo.rewards import CameraMotionReward, ReprojectionReward
from vggrpo.rollout import (
    Condition,
    LatentReward,
    RewardGuidance,
    SolverSettings,
    Trajectories,
    initial_noise,
)

FRAMES, HEIGHT, WIDTH, STEPS = 17, 48, 64, 50
TURNS = 11
"""The first is not counted."""
WAYS: dict[str, dict[str, object]] = {
    "unguided": {},
    "every 20th step": {"interval": 20},
    "every 5th step": {"interval": 5},
    "every 5th step, through the denoiser": {"interval": 5, "through": "denoiser"},
    "every 2nd step": {"interval": 2},
    "every step": {"interval": 1},
}


def sample(video: VideoBackbone, condition: Condition, guidance: RewardGuidance | None) -> float:
    """Seconds of the sampling of one video."""
    shape = video.latent_shape(FRAMES, HEIGHT, WIDTH)
    solver = SolverSettings().start(video.schedule(STEPS, shape))
    run = Trajectories(video, condition, solver, initial_noise([0], shape), guidance=guidance)
    began = time.perf_counter()
    while not run.done:
        run.evaluate()
        run.advance()
    return time.perf_counter() - began


def spread(values: np.ndarray) -> dict[str, float]:
    """Median and quartiles over the turns."""
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return {
        "median": round(middle, 3),
        "lower_quartile": round(low, 3),
        "upper_quartile": round(high, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=TURNS, help="times that every way samples, 2 or more")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/guidance_cost.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    video = load_video_backbone("micro")
    condition = Condition(video.encode_prompts(["a red box in a blue room"])[0])
    rewards = {"camera_motion": CameraMotionReward(), "reprojection": ReprojectionReward.robust()}
    reward = LatentReward(LatentGeometryModel.from_pretrained("micro"), rewards, dict.fromkeys(rewards, 0.5))
    guidances = {
        name: RewardGuidance(reward, scale=100, **options) if options else None
        for name, options in WAYS.items()
    }
    turns = [
        [sample(video, condition, guidance) for guidance in guidances.values()]
        for _ in range(arguments.turns)
    ]
    seconds = np.array(turns[1:])
    result = {
        "what": f"a micro video of {FRAMES}x{HEIGHT}x{WIDTH} in {STEPS} steps, both rewards",
        "ways": {
            name: {
                "seconds a video": spread(seconds[:, column]),
                "over unguided": spread(seconds[:, column] / seconds[:, 0]),
            }
            for column, name in enumerate(WAYS)
        },
        "turns": len(seconds),
        "threads": arguments.threads,
    }
    write_result(arguments.output, result, torch=torch.__version__)


if __name__ == "__main__":
    main()
