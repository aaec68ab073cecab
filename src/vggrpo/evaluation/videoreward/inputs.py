"""Clips and prompts as VideoReward sees them: which frames, how large, which tokens."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.functional import interpolate

from vggrpo.config.errors import CorruptFileError
from vggrpo.evaluation.videoreward.template import REWARD_TOKENS, PromptTemplate
from vggrpo.evaluation.videos.base import Clip, Video

VIDEO_TOKEN = "<|video_pad|>"
CHAT = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\n<|vision_start|>" + VIDEO_TOKEN + "<|vision_end|>{instruction}<|im_end|>\n"
    "<|im_start|>assistant\n"
)
"""Qwen2-VL's chat with one video."""
SIDE = 28
"""Both sides of a frame are multiples of it: two patches of 14 pixels make a token."""
LEAST_PIXELS = 128 * SIDE * SIDE
LONGEST_ASPECT = 200
LEAST_FRAMES, MOST_FRAMES = 4, 768
MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
"""Of CLIP, by which Qwen2-VL normalises RGB in [0, 1]."""


@dataclass(frozen=True)
class SampledFrames:
    """Frames at `fps`, spread evenly from the first to the last and resized. Returns uint8 [T, h, w, 3]."""

    fps: float
    most_pixels: int

    def __call__(self, video: Video, clip: Clip) -> NDArray[np.uint8]:
        """Raises ValueError if the clip says no frame rate or has sides that differ too much."""
        if video.fps <= 0:
            raise ValueError("the file gives no frame rate, by which frames are chosen")
        count, height, width, _ = video.frames.shape
        size = frame_size(height, width, self.most_pixels)
        chosen = frame_numbers(count, video.fps, self.fps)
        frames = torch.from_numpy(video.frames[chosen]).permute(0, 3, 1, 2).float()
        resized = interpolate(frames, size=size, mode="bicubic", align_corners=False, antialias=True)
        return resized.clamp(0, 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def frame_numbers(count: int, video_fps: float, fps: float) -> list[int]:
    """Numbers of the frames that are shown: an even number of them, from the first to the last.

    Raises:
        ValueError: if there are fewer than two frames.
    """
    if count < 2:
        raise ValueError(f"{count} frame is too few, 2 are needed")
    most = min(MOST_FRAMES, count) // 2 * 2
    wanted = min(max(count / video_fps * fps, LEAST_FRAMES), most)
    numbers: list[int] = torch.linspace(0, count - 1, round(wanted / 2) * 2).round().long().tolist()
    return numbers


def frame_size(height: int, width: int, most_pixels: int) -> tuple[int, int]:
    """(height, width) to which frames are resized: near their shape, multiples of 28, and in all between
    128 * 28^2 and `most_pixels` pixels.

    Raises:
        ValueError: if one side is more than 200 times the other.
    """
    if max(height, width) > LONGEST_ASPECT * min(height, width):
        raise ValueError(f"{width}x{height} pixels: one side is more than {LONGEST_ASPECT} times the other")
    h, w = (max(round(length / SIDE), 1) * SIDE for length in (height, width))
    if h * w > most_pixels:
        shrink = math.sqrt(height * width / most_pixels)
        h, w = (max(math.floor(length / shrink / SIDE), 1) * SIDE for length in (height, width))
    elif h * w < LEAST_PIXELS:
        enlarge = math.sqrt(LEAST_PIXELS / (height * width))
        h, w = (math.ceil(length * enlarge / SIDE) * SIDE for length in (height, width))
    return h, w


def patchify(frames: Tensor, sizes: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """Frames uint8 [B, T, h, w, 3] to normalised patches and their grid.

    Args:
        frames: T and the sides are multiples of the sizes.
        sizes: frames and pixels of a patch, and patches a side of a token.

    Returns:
        [B * T/t * h/p * w/p, 3 * t * p * p] float32, the patches of a token together and tokens row by row;
        and [B, 3], patches along time, height and width.
    """
    t, p, m = sizes
    batch, count, height, width, _ = frames.shape
    grid = (count // t, height // p, width // p)
    mean, deviation = (frames.new_tensor(values, dtype=torch.float32) for values in (MEAN, DEVIATION))
    pixels = (frames.float() / 255 - mean) / deviation
    split = pixels.reshape(batch, grid[0], t, grid[1] // m, m, p, grid[2] // m, m, p, 3)
    ordered = split.permute(0, 1, 3, 6, 4, 7, 9, 2, 5, 8)  # B, T/t, rows, columns, m, m, channel, t, p, p
    return ordered.reshape(-1, 3 * t * p * p), torch.tensor(grid, device=frames.device).expand(batch, 3)


class InstructionTokens:
    """The chat about a video as token ids."""

    def __init__(self, tokenizer: Path, template: PromptTemplate) -> None:
        """Reads a tokenizer.json; reward tokens that it does not have are added at its end.

        Raises:
            CorruptFileError: if it cannot be read, or is not Qwen2-VL's.
        """
        try:
            self._tokenizer = Tokenizer.from_file(str(tokenizer))
        except Exception as error:  # tokenizers raises nothing more precise
            raise CorruptFileError(f"{tokenizer} is no tokenizer ({error}); get a fresh copy") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.add_special_tokens(list(REWARD_TOKENS))
        ids: list[int | None] = [
            self._tokenizer.token_to_id(token) for token in (VIDEO_TOKEN, *REWARD_TOKENS)
        ]
        known = [number for number in ids if number is not None]
        if len(known) < len(ids):
            raise CorruptFileError(f"{tokenizer} has no token {VIDEO_TOKEN}; it is not Qwen2-VL's")
        self._video_id, *self.reward_ids = known
        self._template = template

    def encode(self, prompt: str, video_tokens: int) -> list[int]:
        """The ids of the chat about a video of that many tokens.

        Raises:
            ValueError: if the prompt itself holds the video's token or one of the reward tokens.
        """
        chat = CHAT.format(instruction=self._template.fill(prompt))
        ids: list[int] = self._tokenizer.encode(chat, add_special_tokens=False).ids
        for token, number in zip(
            (VIDEO_TOKEN, *REWARD_TOKENS), (self._video_id, *self.reward_ids), strict=True
        ):
            if ids.count(number) != 1:
                raise ValueError(f"the prompt holds {token}, a token of the reward model's own")
        place = ids.index(self._video_id)
        return [*ids[:place], *[self._video_id] * video_tokens, *ids[place + 1 :]]


def pad(rows: Sequence[Sequence[int]], **options: Any) -> tuple[Tensor, Tensor]:
    """Token ids [B, L], padded on the right with 0, and their mask [B, L]; `options` are torch.tensor's."""
    length = max(map(len, rows))
    ids = [[*row, *[0] * (length - len(row))] for row in rows]
    mask = [[1] * len(row) + [0] * (length - len(row)) for row in rows]
    return torch.tensor(ids, **options), torch.tensor(mask, **options)
