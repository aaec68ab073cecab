"""LTX-Video's denoiser, text and sigma grid beside diffusers' LTXPipeline, on a tiny pipeline."""

import json
import math

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, LTXPipeline

from tiny_models import tiny_ltx
from vggrpo.backbones.ltx import LTXBackbone
from vggrpo.backbones.ltx.schedule import SigmaGrid
from vggrpo.backbones.ltx.text import attention_mask
from vggrpo.rollout import sample_ode

PROMPTS = ["a red box in a blue room", "a green sphere"]
CLIP = (17, 96, 64)
LATENTS = (8, 3, 3, 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_ltx(tmp_path_factory.mktemp("ltx") / "pipeline")


@pytest.fixture(scope="module")
def pipeline(folder):
    pipeline = LTXPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def backbone(folder):
    return LTXBackbone(folder)


@pytest.fixture(scope="module")
def embeds(backbone):
    return backbone.encode_prompts(PROMPTS)


@pytest.fixture
def latents():
    return torch.randn(2, *LATENTS, generator=torch.Generator().manual_seed(1))


def sampled(pipeline, latents, steps, cfg_scale, output_type="latent"):
    """By diffusers, from the tokens that the latents are."""
    return pipeline(
        PROMPTS,
        negative_prompt="",
        height=CLIP[1],
        width=CLIP[2],
        num_frames=CLIP[0],
        num_inference_steps=steps,
        guidance_scale=cfg_scale,
        latents=LTXPipeline._pack_latents(latents),
        output_type=output_type,
        max_sequence_length=24,
    ).frames


def ours(backbone, latents, steps, cfg_scale):
    return sample_ode(
        backbone,
        backbone.encode_prompts(PROMPTS),
        backbone.schedule(steps, LATENTS),
        noises=latents,
        cfg_scale=cfg_scale,
        negative_prompt_embeds=backbone.encode_prompts([""])[0],
    )


@pytest.mark.parametrize("cfg_scale", [1.0, 3.0])
def test_samples_equal_the_pipelines(pipeline, backbone, latents, cfg_scale):
    expected = LTXPipeline._unpack_latents(sampled(pipeline, latents, 6, cfg_scale), *LATENTS[1:])
    samples = ours(backbone, latents, 6, cfg_scale)
    torch.testing.assert_close(samples, expected, atol=1e-5, rtol=1e-5)
    assert (samples - latents).norm() > 0.3 * latents.norm()


def test_sampled_videos_equal_the_pipelines(pipeline, backbone, latents):
    expected = sampled(pipeline, latents, 2, 3.0, output_type="pt").movedim(2, -1)
    frames = backbone.decode_latents(ours(backbone, latents, 2, 3.0))
    torch.testing.assert_close(frames, expected, atol=1e-5, rtol=1e-5)


def test_a_saved_lora_is_the_same_policy_in_the_pipeline(folder, latents, tmp_path):
    policy = LTXBackbone(folder)
    base = ours(policy, latents, 3, 1.0)
    policy.add_lora(4, 6.0, "attention+ffn")
    assert len(policy.trainable_parameters()) == 2 * 2 * 10
    with torch.no_grad():
        assert torch.equal(ours(policy, latents, 3, 1.0), base)
        generator = torch.Generator().manual_seed(1)
        for parameter in policy.trainable_parameters().values():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    expected = ours(policy, latents, 3, 1.0)
    assert (expected - base).abs().max() > 0.01
    with policy.lora_disabled():
        assert torch.equal(ours(policy, latents, 3, 1.0), base)

    policy.save_lora(tmp_path)
    pipeline = LTXPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(tmp_path)
    by_diffusers = LTXPipeline._unpack_latents(sampled(pipeline, latents, 3, 1.0), *LATENTS[1:])
    torch.testing.assert_close(by_diffusers, expected, atol=1e-5, rtol=1e-5)

    again = LTXBackbone(folder)
    again.check_lora(tmp_path)
    again.load_lora(tmp_path)
    torch.testing.assert_close(ours(again, latents, 3, 1.0), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_rescoring_with_gradient_gives_the_same_bits(folder, embeds, latents, precision, checkpointing):
    """The importance ratio before the first update is exactly 1 only if this holds."""
    policy = LTXBackbone(folder, precision=precision, gradient_checkpointing=checkpointing)
    policy.add_lora(2, 4)
    for parameter in policy.trainable_parameters().values():
        torch.nn.init.normal_(parameter, std=0.3)
    with torch.no_grad():
        velocity = policy.velocity(latents, 0.5, embeds, embeds[:1], cfg_scale=2.0)
    scored = policy.velocity(latents, 0.5, embeds, embeds[:1], cfg_scale=2.0)
    assert torch.equal(scored, velocity)
    scored.square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in policy.trainable_parameters().values())


def test_bfloat16_stays_close_and_returns_float32(folder, backbone, embeds, latents):
    half = LTXBackbone(folder, precision="bfloat16")
    with torch.no_grad():
        expected, velocity = backbone.velocity(latents, 0.7, embeds), half.velocity(latents, 0.7, embeds)
    assert velocity.dtype == torch.float32
    assert 0 < (velocity - expected).norm() / expected.norm() < 0.03


def test_sigma_may_differ_between_samples(backbone, embeds, latents):
    with torch.no_grad():
        together = backbone.velocity(latents, torch.tensor([0.2, 0.9]), embeds)
        alone = [backbone.velocity(latents[i : i + 1], s, embeds[i : i + 1]) for i, s in ((0, 0.2), (1, 0.9))]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-5)


def test_embeddings_equal_the_pipelines_and_carry_its_mask(pipeline, backbone):
    prompts = [*PROMPTS, "", "a box " * 40]
    expected, mask, *_ = pipeline.encode_prompt(
        prompts, do_classifier_free_guidance=False, max_sequence_length=24
    )
    embeds = backbone.encode_prompts(prompts)
    assert embeds.shape == (4, 24, 16)
    assert torch.equal(attention_mask(embeds), mask)
    assert mask.sum(dim=1).tolist() == [8, 4, 1, 24]
    torch.testing.assert_close(embeds[mask], expected[mask], atol=1e-6, rtol=1e-5)


def test_sigma_grid_is_the_pipelines(folder, backbone):
    """From the tokens of a small clip to those of 161 frames of 512x704, the published default."""
    for shape in (LATENTS, (8, 7, 16, 22), (8, 21, 16, 22)):
        scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(folder, subfolder="scheduler")
        mu = 0.95 + (2.05 - 0.95) * (math.prod(shape[1:]) - 1024) / (4096 - 1024)
        for steps in range(2, 51):
            scheduler.set_timesteps(sigmas=[1 - i / steps for i in range(steps)], mu=mu)
            sigmas = backbone.schedule(steps, shape).sigmas
            torch.testing.assert_close(sigmas, scheduler.sigmas.double(), atol=1e-6, rtol=0)
            assert sigmas[-2] == pytest.approx(0.1)
    assert backbone.schedule(1, LATENTS).sigmas.tolist() == [1.0, 0.0]


def test_a_flow_shift_serves_clips_of_every_size(folder):
    backbone = LTXBackbone(folder, flow_shift=3.0)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, shift_terminal=0.1)
    scheduler.set_timesteps(sigmas=[1 - i / 7 for i in range(7)])
    torch.testing.assert_close(backbone.schedule(7).sigmas, scheduler.sigmas.double(), atol=1e-6, rtol=0)
    assert backbone.identity()["flow_shift"] == 3.0


def test_a_scheduler_without_dynamic_shift_keeps_its_own():
    scheduler = FlowMatchEulerDiscreteScheduler(shift=2.0)
    scheduler.set_timesteps(sigmas=[1 - i / 7 for i in range(7)])
    grid = SigmaGrid.of_pipeline({**scheduler.config, "_class_name": type(scheduler).__name__}, None)
    torch.testing.assert_close(grid.schedule(7, 100).sigmas, scheduler.sigmas.double(), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_class_name": "UniPCMultistepScheduler"}, "scheduler is UniPCMultistepScheduler, whose sigma"),
        ({"use_karras_sigmas": True}, "use_karras_sigmas is True: such a grid is not supported"),
        ({"stochastic_sampling": True}, "stochastic_sampling is True"),
        ({"time_shift_type": "linear"}, "time_shift_type is 'linear', expected 'exponential'"),
    ],
)
def test_other_sigma_grids_are_refused(folder, change, message):
    config = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    with pytest.raises(ValueError, match=message):
        SigmaGrid.of_pipeline({**config, **change}, None)


def test_a_grid_that_needs_the_clips_size_says_so(backbone):
    with pytest.raises(ValueError, match=r"latent_shape is not given, .* shifts its sigma grid by the clip"):
        backbone.schedule(4)
