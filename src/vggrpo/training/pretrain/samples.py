"""Videos of the video model that is measured."""

from collections.abc import Sequence

import torch
from torch import Tensor

from vggrpo.backbones import VideoBackbone
from vggrpo.config import WorldEvaluateSettings
from vggrpo.rollout import initial_noise, sample_ode


class SampleMaker:
    """Makes videos [N, T, H, W, 3] in [0, 1] on the CPU, the same for the same captions and seeds.

    Args:
        video: the model.
        settings: sizes, steps and guidance.
    """

    def __init__(self, video: VideoBackbone, settings: WorldEvaluateSettings) -> None:
        clips = settings.clips
        self._video, self._cfg_scale = video, settings.cfg_scale
        self._shape = video.latent_shape(clips.num_frames, clips.height, clips.width)
        self._schedule = video.schedule(settings.infer_steps, self._shape)
        self._negative = video.encode_prompts([""])[0] if settings.cfg_scale != 1 else None

    def __call__(self, captions: Sequence[str], seeds: Sequence[int]) -> Tensor:
        """One sample a caption, each from its own noise."""
        latents = sample_ode(
            self._video,
            self._video.encode_prompts(captions),
            self._schedule,
            seeds=seeds,
            latent_shape=self._shape,
            cfg_scale=self._cfg_scale,
            negative_prompt_embeds=self._negative,
        )
        return self._decoded(latents)

    def undenoised(self, seeds: Sequence[int]) -> Tensor:
        """The noises from which samples with these seeds start, decoded as if they were latents."""
        return self._decoded(initial_noise(seeds, self._shape).to(self._video.device))

    @torch.no_grad()
    def _decoded(self, latents: Tensor) -> Tensor:
        return self._video.decode_latents(latents).float().cpu().clamp(0, 1)
