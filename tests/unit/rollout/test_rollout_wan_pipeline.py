"""Our samplers beside diffusers' WanPipeline, on a tiny pipeline of each kind."""

from typing import Any

import pytest
import torch
from diffusers import WanPipeline, WanTransformer3DModel

from tiny_models import tiny_wan
from vggrpo.backbones.wan import WanBackbone
from vggrpo.rollout import sample_ode

PROMPTS = ["a red box in a blue room", "a green sphere"]
CFG_SCALE = 3.0


@pytest.fixture(scope="module", params=["wan2.1", "wan2.2"])
def pipeline(request, tmp_path_factory):
    folder = tiny_wan(tmp_path_factory.mktemp(request.param) / "pipeline", request.param)
    pipeline = WanPipeline.from_pretrained(folder)
    assert pipeline.config.expand_timesteps is (request.param == "wan2.2")
    pipeline.set_progress_bar_config(disable=True)
    make_smooth(pipeline.transformer)
    scheduler, whole_numbered = pipeline.scheduler, pipeline.scheduler.set_timesteps

    def float_timesteps(*words: Any, **flags: Any) -> None:
        # The scheduler cuts its timesteps to whole numbers, which would put a floor under every difference.
        whole_numbered(*words, **flags)
        scheduler.timesteps = 1000 * scheduler.sigmas[:-1]

    scheduler.set_timesteps = float_timesteps
    return folder, pipeline


def make_smooth(transformer: WanTransformer3DModel) -> None:
    """Cuts off the fast half of the time step's sines.

    Random weights heed a sine with a period of six of the thousand steps as much as a slow one, and no solver
    would show its order at a moderate number of steps.
    """
    weight = transformer.condition_embedder.time_embedder.linear_1.weight
    half = weight.shape[1] // 2
    with torch.no_grad():
        weight.view(len(weight), 2, half)[:, :, : half // 2] = 0


def by_diffusers(pipeline: WanPipeline, latents: torch.Tensor, steps: int) -> torch.Tensor:
    stride = pipeline.vae_scale_factor_spatial
    return pipeline(
        PROMPTS,
        negative_prompt="",
        height=latents.shape[3] * stride,
        width=latents.shape[4] * stride,
        num_frames=4 * (latents.shape[2] - 1) + 1,
        num_inference_steps=steps,
        guidance_scale=CFG_SCALE,
        latents=latents.clone(),
        output_type="latent",
        max_sequence_length=24,
    ).frames


def ours(model: WanBackbone, latents: torch.Tensor, steps: int, solver: Any) -> torch.Tensor:
    return sample_ode(
        model,
        model.encode_prompts(PROMPTS),
        model.schedule(steps),
        noises=latents,
        cfg_scale=CFG_SCALE,
        negative_prompt_embeds=model.encode_prompts([""])[0],
        solver=solver,
    )


def test_samples_agree_with_the_pipelines(pipeline):
    """The same solver to rounding; Euler's, of first order, twice as close at twice the steps."""
    folder, theirs = pipeline
    model = WanBackbone(folder)
    make_smooth(model.transformer)
    shape = (2, model.latent_spec.channels, 2, 4, 4)
    latents = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    errors = []
    for steps in (20, 40, 80):
        expected = by_diffusers(theirs, latents, steps)
        torch.testing.assert_close(ours(model, latents, steps, "unipc"), expected, atol=2e-5, rtol=1e-4)
        errors.append((ours(model, latents, steps, "euler") - expected).norm() / expected.norm())
    ratios = [float(errors[i] / errors[i + 1]) for i in (0, 1)]
    assert all(1.6 < ratio < 2.5 for ratio in ratios), (errors, ratios)
    assert errors[-1] < 0.05
