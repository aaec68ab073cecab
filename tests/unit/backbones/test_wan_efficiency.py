"""Switches of memory and speed: each does what it says, and changes nothing else."""

import logging

import pytest
import torch
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry

from tiny_models import tiny_ltx, tiny_wan
from vggrpo.backbones import load_video_backbone
from vggrpo.backbones.pipelines import PipelineBackbone, backbone
from vggrpo.backbones.wan import WanBackbone
from vggrpo.config import ConfigError, EfficiencySettings
from vggrpo.training.plan.counting import Meter, measure


@pytest.fixture(scope="module", params=["wan2.1", "wan2.2"])
def folder(request, tmp_path_factory):
    return tiny_wan(tmp_path_factory.mktemp(request.param) / "pipeline", request.param)


def inputs(model: WanBackbone):
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, model.latent_spec.channels, 3, 4, 4, generator=generator)
    return latents, 0.6, torch.randn(1, 24, 16, generator=generator)


def opened(folder, **switches: object) -> WanBackbone:
    model = load_video_backbone(folder, efficiency=EfficiencySettings(**switches))
    assert isinstance(model, WanBackbone)
    return model


def backends(model: WanBackbone) -> set:
    return {block.attn1.processor._attention_backend for block in model.transformer.blocks}


@torch.no_grad()
def test_an_attention_backend_is_its_models_own(folder, caplog):
    plain, chosen = WanBackbone(folder), opened(folder, attention_backend="_native_math")
    before = _AttentionBackendRegistry._active_backend
    with caplog.at_level(logging.WARNING):
        velocity = chosen.velocity(*inputs(chosen))
    assert backends(chosen) == {AttentionBackendName._NATIVE_MATH}
    assert backends(plain) == {None}
    assert _AttentionBackendRegistry._active_backend == before
    assert caplog.records == []
    torch.testing.assert_close(velocity, plain.velocity(*inputs(plain)), atol=1e-5, rtol=1e-5)


def test_an_attention_backend_that_is_not_there_is_refused_before_anything_is_loaded(tiny_pipeline):
    with pytest.raises(ConfigError, match=r"attention_backend is 'fast', but diffusers has .*native"):
        opened(tiny_pipeline, attention_backend="fast")
    with pytest.raises(ConfigError, match=r"attention_backend is 'sage', which cannot be used here: .*sage"):
        opened(tiny_pipeline, attention_backend="sage")


@torch.no_grad()
def test_tiled_decoding_takes_less_memory_and_differs_a_little(folder):
    whole, tiles = opened(folder), opened(folder, tiled_decoding=True)
    stride = whole.latent_spec.spatial_stride
    latents = torch.randn(1, whole.latent_spec.channels, 2, 448 // stride, 64 // stride)
    # A tile is 256 pixels high, the next begins at 192.
    frames = [model.decode_latents(latents) for model in (whole, tiles)]
    assert frames[0].shape == frames[1].shape == (1, 5, 448, 64, 3)
    assert not torch.equal(frames[0], frames[1])
    # Of noise, by random weights: where the content is decoded alike, the frames go together.
    both = torch.stack([frame.flatten() for frame in frames])
    assert torch.corrcoef(both)[0, 1] > 0.95
    peaks = [measure(lambda model=model: model.decode_latents(latents)).peak for model in (whole, tiles)]
    assert peaks[1] < 0.9 * peaks[0]

    video = torch.rand(1, 5, 448, 64, 3)
    assert torch.equal(whole.encode_video(video), tiles.encode_video(video))


def test_recomputed_blocks_of_half_precision_weights_take_less_memory_for_the_same_gradients(folder):
    gradients, peaks = [], []
    for checkpointing in (False, True):
        model = WanBackbone(
            folder,
            precision="bfloat16",
            weight_dtype=torch.bfloat16,
            gradient_checkpointing=checkpointing,
        )
        model.add_lora(2, 4)
        generator = torch.Generator().manual_seed(1)
        for parameter in model.trainable_parameters().values():
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
        latents = torch.randn(1, model.latent_spec.channels, 3, 16, 16, generator=generator)
        embeds = torch.randn(1, 24, 16, generator=generator)
        with Meter() as meter:
            model.velocity(latents, 0.6, embeds).square().mean().backward()
        peaks.append(meter.peak)
        assert {p.dtype for p in model.trainable_parameters().values()} == {torch.float32}
        assert model.transformer.blocks[0].ffn.net[2].weight.dtype == torch.bfloat16
        gradients.append({name: p.grad for name, p in model.trainable_parameters().items()})
    assert peaks[1] < 0.8 * peaks[0]
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert gradient.dtype == torch.float32
        assert gradient.abs().max() > 0
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_what_is_not_in_use_is_off_the_device(folder, monkeypatch):
    """On the meta device, where what has left the device can be told from what is on it."""
    monkeypatch.setattr(backbone, "IDLE_DEVICE", "meta")
    model = opened(folder, offload=True)

    def devices() -> dict[str, str]:
        parts = {"text": model._text_encoder, "denoiser": model._transformer, "vae": model._vae}
        return {name: next(part.parameters()).device.type for name, part in parts.items() if part is not None}

    plain = WanBackbone(folder)
    embeds = model.encode_prompts(["a red box"])
    assert torch.equal(embeds, plain.encode_prompts(["a red box"]))
    assert devices() == {"text": "cpu"}
    latents, sigma, _ = inputs(model)
    with torch.no_grad():
        assert torch.equal(model.velocity(latents, sigma, embeds), plain.velocity(latents, sigma, embeds))
        assert devices() == {"text": "meta", "denoiser": "cpu"}
        assert torch.equal(model.decode_latents(latents), plain.decode_latents(latents))
    assert devices() == {"text": "meta", "denoiser": "meta", "vae": "cpu"}
    vae = model._vae
    model.release("vae")
    assert model._in_use is None
    assert vae is not model.vae


def test_a_policy_comes_back_from_its_rest(tiny_pipeline):
    model = opened(tiny_pipeline, offload=True)
    model.add_lora(2, 4)
    parameters = model.trainable_parameters()
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    latents, sigma, embeds = inputs(model)
    model.decode_latents(latents)
    model.velocity(latents, sigma, embeds).square().mean().backward()
    after = model.trainable_parameters()
    assert all(after[name] is parameters[name] for name in parameters)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in after.values())


def guided(model: PipelineBackbone, embeds: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
    """A velocity of conditions of different lengths; the levels differ too."""
    return model.velocity(latents, torch.tensor([0.3, 0.8]), embeds[:2], embeds[2:], cfg_scale=3.5)


@pytest.mark.parametrize("kind", ["wan2.1", "wan2.2", "ltx"])
def test_guidance_in_one_pass_is_that_of_two(kind, tmp_path):
    folder = tiny_ltx(tmp_path / kind) if kind == "ltx" else tiny_wan(tmp_path / kind, kind)
    results, calls = [], []
    for batched in (False, True):
        model = load_video_backbone(folder, efficiency=EfficiencySettings(cfg_batched=batched))
        model.add_lora(2, 4)
        generator = torch.Generator().manual_seed(1)
        for parameter in model.trainable_parameters().values():
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
        embeds = model.encode_prompts(["a red box in a blue room", "a box", ""])
        latents = torch.randn(2, model.latent_spec.channels, 3, 4, 4, generator=generator)
        passes = []
        model.transformer.register_forward_hook(lambda *_, passes=passes: passes.append(1))
        velocity = guided(model, embeds, latents)
        with torch.no_grad():
            assert torch.equal(velocity, guided(model, embeds, latents)), "the ratio is exactly 1"
        velocity.square().mean().backward()
        gradients = {name: p.grad for name, p in model.trainable_parameters().items()}
        with torch.no_grad(), model.lora_disabled():
            base = guided(model, embeds, latents)
        calls.append(len(passes))
        results.append({"velocity": velocity.detach(), "base": base, **gradients})
    assert calls == [6, 3]
    for name, value in results[0].items():
        torch.testing.assert_close(results[1][name], value, atol=1e-5, rtol=1e-4, msg=name)


def test_without_guidance_there_is_nothing_to_batch(tiny_pipeline):
    plain, batched = opened(tiny_pipeline), opened(tiny_pipeline, cfg_batched=True)
    latents, sigma, embeds = inputs(plain)
    with torch.no_grad():
        assert torch.equal(batched.velocity(latents, sigma, embeds), plain.velocity(latents, sigma, embeds))
    with pytest.raises(ValueError, match=r"negative_prompt_embeds have 5 tokens and prompt_embeds 24: with"):
        batched.velocity(latents, sigma, embeds, embeds[:, :5], cfg_scale=2.0)


@pytest.mark.slow
def test_compiled_blocks_are_the_same_model(folder):
    compiled, plain = opened(folder, compile_blocks=True), WanBackbone(folder)
    for model in (compiled, plain):
        model.add_lora(2, 4)
        generator = torch.Generator().manual_seed(1)
        for parameter in model.trainable_parameters().values():
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    torch._dynamo.reset()
    gradients = []
    for model in (compiled, plain):
        velocity = model.velocity(*inputs(model))
        velocity.square().mean().backward()
        gradients.append({name: parameter.grad for name, parameter in model.trainable_parameters().items()})
    torch.testing.assert_close(
        compiled.velocity(*inputs(compiled)), plain.velocity(*inputs(plain)), atol=1e-5, rtol=1e-5
    )
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], atol=1e-5, rtol=1e-4)
    with torch.no_grad(), compiled.lora_disabled(), plain.lora_disabled():
        torch.testing.assert_close(
            compiled.velocity(*inputs(compiled)), plain.velocity(*inputs(plain)), atol=1e-5, rtol=1e-5
        )
    assert all(block._compiled_call_impl is not None for block in compiled.transformer.blocks)
