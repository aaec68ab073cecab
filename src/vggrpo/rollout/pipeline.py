"""diffusers' Wan pipeline with reward guidance."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import WanPipeline
from torch import Tensor

from vggrpo.rollout.guidance import RewardGuidance

PREDICTIONS = ("flow_prediction", "sample")


class VGGRPOPipeline(WanPipeline):
    """A `WanPipeline` whose call takes a `reward_guidance` beside all that diffusers' takes.

        pipeline = VGGRPOPipeline.from_pretrained(folder)
        video = pipeline("a red box in a blue room", reward_guidance=guidance).frames[0]

    Without guidance, or with one of scale 0, it is the `WanPipeline`. The scheduler is the pipeline's own,
    with its integer timesteps.
    """

    def __call__(self, *args: Any, reward_guidance: RewardGuidance | None = None, **kwargs: Any) -> Any:
        """Makes videos; arguments and result are those of `WanPipeline.__call__`.

        Args:
            *args: as there.
            reward_guidance: towards a reward of the clean latents, on the pipeline's device.
            **kwargs: as there.

        Raises:
            ValueError: if the scheduler does not step a rectified flow, or the gradient is to go through one
                of two denoisers.
        """
        if reward_guidance is None or reward_guidance.scale == 0:
            return super().__call__(*args, **kwargs)
        self._check_guidable(reward_guidance)
        with self._guided(reward_guidance):
            return super().__call__(*args, **kwargs)

    def encode_prompt(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        """As `WanPipeline.encode_prompt`; guidance through the denoiser needs the embeddings again."""
        self._guidance_embeds: tuple[Tensor, Tensor | None] = super().encode_prompt(*args, **kwargs)
        return self._guidance_embeds

    def _check_guidable(self, guidance: RewardGuidance) -> None:
        config = self.scheduler.config
        prediction = config.get("prediction_type", "flow_prediction")
        if prediction not in PREDICTIONS or not config.get("use_flow_sigmas", True):
            raise ValueError(
                f"the scheduler is a {type(self.scheduler).__name__} of {prediction}, but reward guidance "
                "needs a rectified flow: flow_prediction or sample, with use_flow_sigmas"
            )
        if guidance.through == "denoiser" and self.config.boundary_ratio is not None:
            raise ValueError(
                "the pipeline switches between two denoisers, where guidance through the denoiser is not "
                "possible; use through='x0_pred'"
            )

    @contextmanager
    def _guided(self, guidance: RewardGuidance) -> Iterator[None]:
        """Within the context, the scheduler's steps are guided."""
        scheduler = self.scheduler
        unguided_step = scheduler.step

        def step(model_output: Tensor, timestep: Any, sample: Tensor, *args: Any, **kwargs: Any) -> Any:
            index = scheduler.step_index or 0  # none yet before the first step
            sigma = float(scheduler.sigmas[index])
            if guidance.guides(index, sigma):
                velocity = self._as_velocity(model_output, sample, sigma)
                change = guidance.correction(sample, velocity, sigma, self._field(timestep)).velocity
                model_output = self._from_velocity(velocity + change, sample, sigma)
            return unguided_step(model_output, timestep, sample, *args, **kwargs)

        scheduler.step = step
        try:
            yield
        finally:
            del scheduler.step

    def _field(self, timestep: Any) -> Callable[[Tensor, float], Tensor]:
        """Latents [B, C, T, H, W] and sigma to velocity, as the pipeline computes it at `timestep`."""

        def predict(x: Tensor, embeds: Tensor) -> Tensor:
            dtype = self.transformer.dtype
            times = torch.as_tensor(timestep, device=x.device).expand(len(x))
            output: Tensor = self.transformer(
                x.to(dtype),
                times,
                embeds.to(dtype),
                return_dict=False,
                attention_kwargs=self.attention_kwargs,
            )[0]
            return output.float()

        def field(x: Tensor, sigma: float) -> Tensor:
            embeds, negative = self._guidance_embeds
            output = predict(x, embeds)
            if self.do_classifier_free_guidance:
                assert negative is not None
                unguided = predict(x, negative)
                output = unguided + self.guidance_scale * (output - unguided)
            return self._as_velocity(output, x, sigma)

        return field

    def _as_velocity(self, model_output: Tensor, sample: Tensor, sigma: float) -> Tensor:
        if self._predicts_clean:
            return (sample.float() - model_output.float()) / sigma
        return model_output.float()

    def _from_velocity(self, velocity: Tensor, sample: Tensor, sigma: float) -> Tensor:
        return sample.float() - sigma * velocity if self._predicts_clean else velocity

    @property
    def _predicts_clean(self) -> bool:
        return bool(self.scheduler.config.get("prediction_type") == "sample")
