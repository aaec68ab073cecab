import json
import shutil

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler, WanPipeline

from vggrpo.backbones.wan import WanBackbone
from vggrpo.backbones.wan.schedule import configured_flow_shift, predicts_clean_latents
from vggrpo.flow import SigmaSchedule, ode_step

PROMPTS = ["a red box in a blue room", "a green sphere"]


@pytest.fixture(scope="module")
def backbone(tiny_pipeline):
    return WanBackbone(tiny_pipeline)


@pytest.fixture(scope="module")
def embeds(backbone):
    return backbone.encode_prompts(PROMPTS)


@pytest.fixture
def latents():
    return torch.randn(2, 4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("cfg_scale", [1.0, 4.5])
@pytest.mark.parametrize("expand_timesteps", [False, True])
def test_euler_steps_equal_the_pipelines(tiny_pipeline, latents, cfg_scale, expand_timesteps):
    pipeline = WanPipeline.from_pretrained(tiny_pipeline, expand_timesteps=expand_timesteps)
    assert pipeline.config.expand_timesteps is expand_timesteps
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    expected = pipeline(
        PROMPTS,
        negative_prompt="",
        height=32,
        width=32,
        num_frames=9,
        num_inference_steps=6,
        guidance_scale=cfg_scale,
        latents=latents,
        output_type="latent",
        max_sequence_length=24,
    ).frames

    backbone = WanBackbone(tiny_pipeline)
    embeds, negative = backbone.encode_prompts(PROMPTS), backbone.encode_prompts([""])
    x = latents
    with torch.no_grad():
        for sigma, sigma_next in SigmaSchedule(pipeline.scheduler.sigmas).steps():
            x = ode_step(x, backbone.velocity(x, sigma, embeds, negative, cfg_scale), sigma, sigma_next)
    torch.testing.assert_close(x, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0])
def test_sigma_grid_is_the_pipelines_before_its_integers(tiny_pipeline, shift):
    scheduler = UniPCMultistepScheduler.from_pretrained(
        tiny_pipeline, subfolder="scheduler", flow_shift=shift
    )
    backbone = WanBackbone(tiny_pipeline, flow_shift=shift)
    for num_steps in range(5, 51):
        scheduler.set_timesteps(num_steps)
        sigmas = backbone.schedule(num_steps).sigmas
        torch.testing.assert_close(sigmas, scheduler.sigmas.double(), atol=1e-6, rtol=0)
        lost = 1000 * sigmas[:-1] - scheduler.timesteps
        assert ((lost > -1e-9) & (lost < 1 + 1e-9)).all()
    assert not torch.equal(1000 * sigmas[:-1], scheduler.timesteps.double())


def test_flow_shift_comes_from_the_scheduler(tiny_pipeline):
    assert WanBackbone(tiny_pipeline).flow_shift == 3.0
    assert WanBackbone(tiny_pipeline, flow_shift=5.0).flow_shift == 5.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "scheduler is FlowMatchEulerDiscreteScheduler"),
        ({"use_flow_sigmas": False}, "use_flow_sigmas is False, expected True"),
        ({"prediction_type": "epsilon"}, "prediction_type is 'epsilon', expected one of"),
        ({"shift_terminal": 0.1}, "shift_terminal is 0.1: such a sigma grid is not supported"),
    ],
)
def test_other_sigma_grids_are_refused(tiny_pipeline, change, message):
    config = json.loads((tiny_pipeline / "scheduler" / "scheduler_config.json").read_text())
    read = predicts_clean_latents if "prediction_type" in change else configured_flow_shift
    with pytest.raises(ValueError, match=message):
        read({**config, **change})


@pytest.fixture
def clean_pipeline(tiny_pipeline, tmp_path):
    """The same pipeline, declared to predict clean latents."""
    folder = tmp_path / "clean"
    shutil.copytree(tiny_pipeline, folder)
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"prediction_type": "sample"}))
    return folder


def test_clean_prediction_becomes_a_velocity(clean_pipeline, embeds, latents):
    backbone = WanBackbone(clean_pipeline)
    with torch.no_grad():
        velocity = backbone.velocity(latents, 0.4, embeds)
        clean = backbone.transformer(latents, torch.full((2,), 400.0), embeds, return_dict=False)[0]
    torch.testing.assert_close(latents - 0.4 * velocity, clean, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="sigma is 0, where a denoiser that predicts clean latents"):
        backbone.velocity(latents, 0.0, embeds)


def test_clean_prediction_is_stepped_as_the_pipeline_does(clean_pipeline, embeds, latents):
    """UniPC's first step is of first order: an Euler step, here from its whole-numbered timestep."""
    pipeline = WanPipeline.from_pretrained(clean_pipeline)
    pipeline.set_progress_bar_config(disable=True)
    states = []

    def keep(pipe, step, timestep, tensors):
        states.append(tensors["latents"].clone())
        return {}

    pipeline(
        prompt_embeds=embeds,
        latents=latents.clone(),
        height=32,
        width=32,
        num_frames=9,
        num_inference_steps=4,
        guidance_scale=1.0,
        output_type="latent",
        callback_on_step_end=keep,
    )
    backbone = WanBackbone(clean_pipeline)
    sigma, sigma_next = next(iter(backbone.schedule(4).steps()))
    with torch.no_grad():
        timestep = pipeline.scheduler.timesteps[:1].expand(2)
        clean = backbone.transformer(latents, timestep, embeds, return_dict=False)[0]
        ours = ode_step(latents, (latents - clean) / sigma, sigma, sigma_next)
    torch.testing.assert_close(ours, states[0], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(ours, latents, atol=1e-2)


def test_timestep_is_a_float_of_a_thousand_sigma(backbone, embeds, latents):
    sigma = 0.123456
    with torch.no_grad():
        velocity = backbone.velocity(latents, sigma, embeds)
        direct = backbone.transformer(latents, torch.full((2,), 123.456), embeds, return_dict=False)[0]
        truncated = backbone.transformer(latents, torch.full((2,), 123.0), embeds, return_dict=False)[0]
    assert torch.equal(velocity, direct)
    assert not torch.equal(velocity, truncated)


def test_sigma_may_differ_between_samples(backbone, embeds, latents):
    with torch.no_grad():
        together = backbone.velocity(latents, torch.tensor([0.2, 0.9]), embeds)
        alone = torch.cat(
            [backbone.velocity(latents[i : i + 1], s, embeds[i : i + 1]) for i, s in enumerate((0.2, 0.9))]
        )
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_one_embedding_serves_a_whole_batch(backbone, embeds, latents):
    with torch.no_grad():
        shared = backbone.velocity(latents, 0.5, embeds[:1])
        repeated = backbone.velocity(latents, 0.5, embeds[:1].repeat(2, 1, 1))
    assert torch.equal(shared, repeated)


def test_guidance_costs_a_second_forward_only_where_it_acts(backbone, embeds, latents):
    calls = []
    handle = backbone.transformer.register_forward_hook(lambda *_: calls.append(1))
    try:
        with torch.no_grad():
            plain = backbone.velocity(latents, 0.5, embeds, embeds[:1], cfg_scale=1.0)
            assert len(calls) == 1
            guided = backbone.velocity(latents, 0.5, embeds, embeds[:1], cfg_scale=3.0)
            assert len(calls) == 3
            negative = backbone.velocity(latents, 0.5, embeds[:1])
    finally:
        handle.remove()
    torch.testing.assert_close(guided, negative + 3.0 * (plain - negative))


def test_bfloat16_stays_close_and_returns_float32(tiny_pipeline, backbone, embeds, latents):
    half = WanBackbone(tiny_pipeline, precision="bfloat16")
    with torch.no_grad():
        expected, velocity = backbone.velocity(latents, 0.7, embeds), half.velocity(latents, 0.7, embeds)
    assert velocity.dtype == torch.float32
    error = (velocity - expected).norm() / expected.norm()
    assert 0 < error < 0.03


def test_weights_may_be_held_in_bfloat16(tiny_pipeline, backbone, embeds, latents):
    half = WanBackbone(tiny_pipeline, precision="bfloat16", weight_dtype=torch.bfloat16)
    with torch.no_grad():
        expected, velocity = backbone.velocity(latents, 0.7, embeds), half.velocity(latents, 0.7, embeds)
    assert half.transformer.blocks[0].attn1.to_q.weight.dtype == torch.bfloat16
    assert half.transformer.condition_embedder.time_embedder.linear_1.weight.dtype == torch.float32
    assert (velocity - expected).norm() / expected.norm() < 0.03
    assert half.encode_prompts(PROMPTS).dtype == torch.float32


def test_gradient_checkpointing_changes_no_gradient(tiny_pipeline, embeds, latents):
    gradients = []
    for checkpointing in (False, True):
        backbone = WanBackbone(tiny_pipeline, gradient_checkpointing=checkpointing)
        backbone.add_lora(2, 4)
        backbone.velocity(latents, 0.5, embeds).square().mean().backward()
        gradients.append({name: p.grad for name, p in backbone.trainable_parameters().items()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_rescoring_with_gradient_gives_the_same_bits(
    tiny_pipeline, embeds, latents, precision, checkpointing
):
    """The importance ratio before the first update is exactly 1 only if this holds."""
    backbone = WanBackbone(tiny_pipeline, precision=precision, gradient_checkpointing=checkpointing)
    backbone.add_lora(2, 4)
    for parameter in backbone.trainable_parameters().values():
        torch.nn.init.normal_(parameter, std=0.3)
    with torch.no_grad():
        sampled = backbone.velocity(latents, 0.5, embeds, embeds[:1], cfg_scale=2.0)
    scored = backbone.velocity(latents, 0.5, embeds, embeds[:1], cfg_scale=2.0)
    assert scored.requires_grad
    assert torch.equal(scored, sampled)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"latents": torch.zeros(2, 16, 3, 8, 8)}, r"latents has shape .* expected \[B, 4, T, H, W\]"),
        ({"latents": torch.zeros(2, 4, 3, 7, 8)}, "latents are 7x8, but the denoiser's patches are 2x2"),
        ({"sigma": torch.zeros(3)}, r"sigma has shape \(3,\), expected a number or one per sample, \[2\]"),
        ({"prompt_embeds": torch.zeros(3, 24, 16)}, r"prompt_embeds has shape .* B = 2 or 1"),
        ({"cfg_scale": 2.0}, "cfg_scale is 2, which needs negative_prompt_embeds"),
    ],
)
def test_wrong_arguments_are_named(backbone, embeds, latents, arguments, message):
    good = {"latents": latents, "sigma": 0.5, "prompt_embeds": embeds}
    with pytest.raises(ValueError, match=message):
        backbone.velocity(**{**good, **arguments})


def test_contradicting_types_are_refused(tiny_pipeline):
    with pytest.raises(ValueError, match=r"needs precision 'bfloat16'"):
        WanBackbone(tiny_pipeline, weight_dtype=torch.bfloat16)
    with pytest.raises(ValueError, match=r"precision is 'float16'"):
        WanBackbone(tiny_pipeline, precision="float16")


def test_sizes_that_the_denoiser_cannot_make_are_refused(backbone):
    assert backbone.latent_shape(17, 48, 64) == (4, 5, 12, 16)
    with pytest.raises(
        ValueError, match=r"height is 44, but the denoiser needs a multiple of 8; use 40 or 48"
    ):
        backbone.latent_shape(17, 44, 64)
    with pytest.raises(ValueError, match=r"num_frames is 15"):
        backbone.latent_shape(15, 48, 64)


def test_a_pipeline_of_two_denoisers_is_refused(tiny_pipeline, tmp_path):
    copy = tmp_path / "two"
    shutil.copytree(tiny_pipeline, copy)
    index = json.loads((copy / "model_index.json").read_text())
    (copy / "model_index.json").write_text(json.dumps({**index, "boundary_ratio": 0.875}))
    with pytest.raises(ValueError, match=r"switches between two denoisers"):
        WanBackbone(copy)
    (copy / "model_index.json").write_text(json.dumps({**index, "_class_name": "FluxPipeline"}))
    with pytest.raises(ValueError, match=r"is a FluxPipeline, expected a WanPipeline"):
        WanBackbone(copy)
