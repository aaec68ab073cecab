"""VideoReward's scores of clips."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vggrpo.config.errors import CorruptFileError
from vggrpo.evaluation.videoreward.inputs import InstructionTokens, SampledFrames, pad, patchify
from vggrpo.evaluation.videoreward.network import VideoRewardNetwork
from vggrpo.evaluation.videoreward.source import VideoRewardSource, locate_video_reward
from vggrpo.evaluation.videoreward.weights import load_network
from vggrpo.evaluation.videos.base import Clip, Measured, ModelMetric
from vggrpo.io import file_sha256

VIDEO_REWARD_VALUES = ("videoreward_vq", "videoreward_mq", "videoreward_ta", "videoreward_overall")


@dataclass(eq=False)
class VideoRewardMetric(ModelMetric):
    """Visual quality, motion quality, text alignment, and their sum. Made by `open_video_reward`.

    The instruction names the prompt after the places where the two qualities are read, so these do not depend
    on it: of a clip without a prompt only alignment and sum are missing.
    """

    source: VideoRewardSource
    weights: str
    """SHA-256 of the weight file."""
    device: torch.device
    batch_size: int = 1
    network: VideoRewardNetwork | None = field(default=None, repr=False)
    """Loaded by `open`."""

    name = "videoreward"
    metrics = VIDEO_REWARD_VALUES
    uses_prompt = True

    def __post_init__(self) -> None:
        self._tokens = InstructionTokens(self.source.tokenizer, self.source.template)
        # As published; but a CPU is faster in float32.
        self.dtype = torch.float32 if self.device.type == "cpu" else torch.bfloat16

    def settings(self) -> Mapping[str, Any]:
        """See the class."""
        config = self.source.config
        return {
            "model": self.source.name,
            "weights": self.weights,
            "template": self.source.template.sha256,
            "fps": config.data.fps,
            "most_pixels": config.data.max_frame_pixels,
            "normalisation": config.normalisation.model_dump() if config.normalisation else None,
            "dtype": str(self.dtype).removeprefix("torch."),
        }

    @property
    def prepare(self) -> SampledFrames:
        """The frames that are shown."""
        data = self.source.config.data
        return SampledFrames(data.fps, data.max_frame_pixels)

    def open(self) -> None:
        """Loads the network.

        Raises:
            CorruptFileError: if the weights do not fit.
        """
        network = load_network(self.source, self.dtype)
        rows = network.backbone.get_input_embeddings().weight.shape[0]
        if rows <= max(self._tokens.reward_ids):
            raise CorruptFileError(
                f"{self.source.weights} has {rows} embeddings, but {self.source.tokenizer} numbers the "
                f"reward tokens {self._tokens.reward_ids}; they do not belong together"
            )
        self.network = network.to(self.device)

    @torch.no_grad()
    def compute(self, prepared: NDArray[np.uint8], clips: Sequence[Clip]) -> list[Measured]:
        """Frames [B, T, h, w, 3] to the scores of B clips."""
        assert self.network is not None, "open was not called"
        sizes = self.network.patch_sizes
        frames = torch.from_numpy(prepared).to(self.device)
        patches, grid = patchify(frames, sizes)
        video_tokens = int(grid[0].prod()) // sizes[2] ** 2
        rows: list[list[int]] = []
        problems: dict[int, str] = {}
        for place, clip in enumerate(clips):
            try:
                rows.append(self._tokens.encode(clip.prompt or "", video_tokens))
            except ValueError as error:
                problems[place] = str(error)
                rows.append(self._tokens.encode("", video_tokens))
            else:
                if clip.prompt is None:
                    problems[place] = "there is no prompt"
        ids, mask = pad(rows, device=self.device)
        reward_ids = torch.tensor(self._tokens.reward_ids, device=self.device)
        raw = self.network(ids, mask, patches.to(self.dtype), grid, reward_ids).cpu()
        return [self._measured(scores, problems.get(place)) for place, scores in enumerate(raw.tolist())]

    def _measured(self, raw: Sequence[float], problem: str | None) -> Measured:
        scores = self.normalised(raw)
        notes: list[str] = []
        if not np.isfinite(scores).all():
            return self.unmeasured("the model gives scores that are not finite")
        if problem is not None:
            scores[2] = float("nan")
            notes.append(f"{problem}, so text alignment and the sum are missing")
        return Measured(dict(zip(self.metrics, [*scores, sum(scores)], strict=True)), tuple(notes))

    def normalised(self, raw: Sequence[float]) -> list[float]:
        """(score - mean) / deviation of VQ, MQ and TA, with the checkpoint's constants."""
        constants = self.source.config.normalisation
        if constants is None:
            return list(raw)
        triples = zip(raw, constants.means, constants.deviations, strict=True)
        return [(score - mean) / deviation for score, mean, deviation in triples]


def open_video_reward(
    name: str | Path, device: torch.device, *, base: str | Path | None = None, batch_size: int = 1
) -> VideoRewardMetric:
    """The metric of a checkpoint in a folder or repository; see `locate_video_reward`.

    Its network is loaded later, by `open`; everything else is read and checked here.

    Raises:
        ConfigError, FileNotFoundError, CorruptFileError: if there is no such checkpoint, or it is damaged.
    """
    source = locate_video_reward(name, base)
    return VideoRewardMetric(source, file_sha256(source.weights), device, batch_size)
