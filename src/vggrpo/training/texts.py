"""Text embeddings of a run."""

from torch import Tensor

from vggrpo.backbones import VideoBackbone
from vggrpo.config import TrainSettings, TuneNoiseSettings
from vggrpo.data import Prompt, TextEmbeddingCache
from vggrpo.io import RunFolder


class PromptTexts:
    """Text embeddings of the run's prompts, encoded once and kept in the run folder."""

    def __init__(
        self, settings: TrainSettings | TuneNoiseSettings, run: RunFolder, policy: VideoBackbone
    ) -> None:
        self._cache = TextEmbeddingCache(run.path / "text", policy)
        self._device = policy.device
        guided = settings.cfg_scale != 1.0
        self.negative = self._cache.embed([settings.negative_prompt])[0].to(self._device) if guided else None
        """[L, D]; None where no guidance needs it."""

    def embed(self, prompts: list[Prompt]) -> Tensor:
        """[N, L, D] on the CPU: hundreds of prompts are gigabytes."""
        return self._cache.embed([prompt.text for prompt in prompts])
