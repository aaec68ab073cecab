"""Checks on decoded frames by dense inverse search (DIS) optical flow: how shaky and how much they move.

They share nothing with the geometry models: no weights, no training data, no notion of a camera. The flow
between adjacent frames also sees jitter faster than the one view in four frames that the latent geometry
model looks at.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import cv2
import numpy as np
import torch
from torch import Tensor

SPEED_FLOOR = 0.5
"""Pixels per frame. DIS errs by some hundredths of a pixel: slower motion has no meaningful relative jerk."""


def dis_flow(frames: Tensor) -> Tensor:
    """Optical flow from each frame to the next, by OpenCV's DIS at its "medium" preset on grey frames.

    Args:
        frames: [B, T, H, W, 3] in [0, 1], T >= 2, sides of at least 16 pixels.

    Returns:
        [B, T-1, H, W, 2] in pixels per frame, (x right, y down), float32 on the CPU.

    Raises:
        ValueError: if the shape is another.
    """
    check_frames(frames, at_least=2)
    if min(frames.shape[2:4]) < 16:
        raise ValueError(
            f"frames are {frames.shape[2]}x{frames.shape[3]} pixels, but DIS needs sides of 16 or more"
        )
    images = (frames.detach().float().clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    with one_thread():
        dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        flows = []
        for clip in images:
            grey = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in clip]
            flows.append(np.stack([dis.calc(a, b, None) for a, b in pairwise(grey)]))
    return torch.from_numpy(np.stack(flows))


def dominant_motion(flow: Tensor) -> Tensor:
    """The picture's dominant motion m_t: the median over pixels of each component.

    [B, T-1, H, W, 2] to [B, T-1, 2], pixels per frame. The median ignores objects that cover less than half
    of the frame; it does not see a pure zoom or roll about the image centre.
    """
    return flow.flatten(2, 3).median(dim=2).values


def flow_jerk(frames: Tensor, speed_floor: float = SPEED_FLOOR, flow: Tensor | None = None) -> Tensor:
    """Jerk of the dominant motion over its speed: the independent check of steadiness. Lower is steadier.

        jerk = mean_t | m_{t+2} - 2 m_{t+1} + m_t |  /  ( mean_t | m_t | + speed_floor )

    m_t is a velocity in pixels per frame, so its second difference is the third difference of the position.
    Constant velocity and constant acceleration score 0, and so does a still picture; white jitter of the
    position scores about 3.2 whatever its amplitude, once that is well above `speed_floor`.

    Args:
        frames: [B, T, H, W, 3] in [0, 1], T >= 4.
        speed_floor: pixels per frame, > 0; keeps flow noise of a still picture from reading as shaking.
        flow: `dis_flow(frames)`, where the caller has it already.

    Returns:
        [B], dimensionless, >= 0.

    Raises:
        ValueError: if a clip has fewer than four frames or `speed_floor` is not positive.
    """
    check_frames(frames, at_least=4)
    if not speed_floor > 0:
        raise ValueError(f"speed_floor is {speed_floor}, expected a positive number of pixels per frame")
    motion = dominant_motion(dis_flow(frames) if flow is None else flow)
    jerk = motion[:, 2:] - 2 * motion[:, 1:-1] + motion[:, :-2]
    return jerk.norm(dim=-1).mean(1) / (motion.norm(dim=-1).mean(1) + speed_floor)


def flow_magnitude(frames: Tensor, flow: Tensor | None = None) -> Tensor:
    """Motion amount: the mean length of the flow over all pixels and frames, [B], in pixels per frame.

    Counts camera and object motion alike, and grows with resolution and with the time between frames.
    """
    flow = dis_flow(frames) if flow is None else flow
    return flow.norm(dim=-1).mean((1, 2, 3))


def flow_drift(frames: Tensor, flow: Tensor | None = None) -> Tensor:
    """Motion amount without shake: the mean over pixels of the length of the time-averaged flow, [B].

        drift = mean_p | mean_t flow_t(p) |

    In pixels per frame, at most `flow_magnitude`, and equal to it for steady motion in one direction. Shake
    goes back and forth, so its mean vanishes with the number of frames: where a camera stops shaking,
    `flow_magnitude` falls and this stays. Slow motion to and fro cancels as shake does.
    """
    flow = dis_flow(frames) if flow is None else flow
    return flow.mean(1).norm(dim=-1).mean((1, 2))


def check_frames(frames: Tensor, at_least: int = 1) -> None:
    """Raises ValueError unless `frames` is a float tensor [B, T, H, W, 3] with T >= `at_least`."""
    if frames.ndim != 5 or frames.shape[-1] != 3 or not frames.is_floating_point():
        raise ValueError(
            f"frames have shape {tuple(frames.shape)} and type {frames.dtype}, "
            "expected floating point [B, T, H, W, 3] in [0, 1]"
        )
    if frames.shape[1] < at_least:
        raise ValueError(
            f"frames hold {frames.shape[1]} frames a clip, but this check needs at least {at_least}"
        )


@contextmanager
def one_thread() -> Iterator[None]:
    """DIS cuts the image into as many stripes as OpenCV has threads, and its result depends on the cut."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)
