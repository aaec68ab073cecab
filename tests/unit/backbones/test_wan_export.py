"""LoRAs for other programs: ComfyUI's names, and pipelines with the LoRA in their weights."""

import json

import pytest
import torch
from diffusers import WanPipeline, WanTransformer3DModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tiny_models import tiny_wan
from vggrpo.backbones.pipelines import fuse_loras
from vggrpo.backbones.wan import WanBackbone, export_comfy_lora
from vggrpo.config import CorruptFileError

SIGMA = 0.6
TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module", params=["wan2.1", "wan2.2"])
def folder(request, tmp_path_factory):
    return tiny_wan(tmp_path_factory.mktemp(request.param) / "pipeline", request.param)


@pytest.fixture
def inputs(folder):
    generator = torch.Generator().manual_seed(0)
    channels = WanBackbone(folder).latent_spec.channels
    return (
        torch.randn(2, channels, 2, 4, 4, generator=generator),
        SIGMA,
        torch.randn(2, 24, 16, generator=generator),
    )


def trained(folder, rank=4, alpha=8.0, targets="attention+ffn", seed=1):
    """A policy whose LoRA factors are nowhere zero, as training leaves them."""
    backbone = WanBackbone(folder)
    backbone.add_lora(rank, alpha, targets)
    generator = torch.Generator().manual_seed(seed)
    for parameter in backbone.trainable_parameters().values():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    return backbone


def velocity(backbone, inputs):
    with torch.no_grad():
        return backbone.velocity(*inputs)


def by_diffusers(pipeline, inputs):
    latents, sigma, embeds = inputs
    with torch.no_grad():
        return pipeline.transformer(
            latents, torch.full((len(latents),), 1000 * sigma), embeds, return_dict=False
        )[0]


@pytest.mark.parametrize(("alpha", "scale"), [(8.0, 1.0), (3.0, 1.0), (12.0, 0.5)])
def test_diffusers_reads_the_comfy_file_as_the_policy(folder, inputs, tmp_path, alpha, scale):
    policy = trained(folder, rank=4, alpha=alpha)
    base = by_diffusers(WanPipeline.from_pretrained(folder), inputs)
    policy.save_lora(tmp_path / "lora")
    policy.load_lora(tmp_path / "lora", scale=scale)
    expected = velocity(policy, inputs)
    export_comfy_lora(policy.transformer, tmp_path / "comfy.safetensors")
    pipeline = WanPipeline.from_pretrained(folder)
    pipeline.load_lora_weights(tmp_path, weight_name="comfy.safetensors")
    torch.testing.assert_close(by_diffusers(pipeline, inputs), expected, atol=1e-5, rtol=1e-5)
    assert (expected - base).abs().max() > 0.01

    again = WanBackbone(folder)
    again.load_lora(tmp_path / "comfy.safetensors")
    torch.testing.assert_close(velocity(again, inputs), expected, atol=1e-5, rtol=1e-5)


def test_comfy_names_are_those_of_wans_code(tiny_pipeline, tmp_path):
    policy = trained(tiny_pipeline, rank=4, alpha=6.0)
    tensors = load_file(export_comfy_lora(policy.transformer, tmp_path / "comfy.safetensors"))
    layers = [f"{kind}_attn.{part}" for kind in ("self", "cross") for part in "qkvo"] + ["ffn.0", "ffn.2"]
    assert set(tensors) == {
        f"diffusion_model.blocks.{block}.{layer}.{kind}"
        for block in (0, 1)
        for layer in layers
        for kind in ("lora_A.weight", "lora_B.weight", "alpha")
    }
    assert all(value.item() == 6.0 for name, value in tensors.items() if name.endswith("alpha"))
    # ComfyUI's own rule, written out: alpha / rank * B A.
    name = "diffusion_model.blocks.1.cross_attn.k"
    change = 6 / 4 * tensors[f"{name}.lora_B.weight"] @ tensors[f"{name}.lora_A.weight"]
    layer = policy.transformer.blocks[1].attn2.to_k
    torch.testing.assert_close(change, layer.get_delta_weight("default"))


def test_what_comfy_cannot_hold_is_refused(tiny_pipeline, tmp_path):
    file = tmp_path / "comfy.safetensors"
    with pytest.raises(ValueError, match=r"the model has no LoRA layers"):
        export_comfy_lora(WanBackbone(tiny_pipeline).transformer, file)
    policy = trained(tiny_pipeline)
    policy.save_lora(tmp_path / "lora")
    policy.load_lora(tmp_path / "lora", scale=-1.0)
    with pytest.raises(ValueError, match=r"alpha times the LoRA's scale is -8 at blocks.0.attn1.to_q"):
        export_comfy_lora(policy.transformer, file)
    assert not file.exists()


@pytest.mark.parametrize("scale", [1.0, -0.5])
def test_a_fused_pipeline_is_the_policy_without_a_lora(folder, inputs, tmp_path, scale):
    policy = trained(folder)
    policy.save_lora(tmp_path / "lora")
    policy.load_lora(tmp_path / "lora", scale=scale)
    fuse_loras(WanBackbone(folder), [(tmp_path / "lora", scale)], tmp_path / "fused")
    pipeline = WanPipeline.from_pretrained(tmp_path / "fused")
    expected = velocity(policy, inputs)
    torch.testing.assert_close(by_diffusers(pipeline, inputs), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        velocity(WanBackbone(tmp_path / "fused"), inputs), expected, atol=1e-5, rtol=1e-5
    )
    record = json.loads((tmp_path / "fused" / "fused_loras.json").read_text())
    assert record["loras"][0]["scale"] == scale
    assert len(record["loras"][0]["sha256"]) == 64

    before, after = (load_file(place / TRANSFORMER) for place in (folder, tmp_path / "fused"))
    different = {name for name in before if not torch.equal(before[name], after[name])}
    assert before.keys() == after.keys()
    assert different == {f"{name}.weight" for name in lora_layers(policy)}
    for part in ("vae", "text_encoder", "tokenizer", "scheduler"):
        for file in (folder / part).iterdir():
            assert (tmp_path / "fused" / part / file.name).read_bytes() == file.read_bytes()


def lora_layers(policy):
    return {name.partition(".lora_")[0] for name in policy.trainable_parameters()}


def test_several_loras_add_up(tiny_pipeline, tmp_path):
    generator = torch.Generator().manual_seed(0)
    inputs = (
        torch.randn(1, 4, 2, 4, 4, generator=generator),
        SIGMA,
        torch.randn(1, 24, 16, generator=generator),
    )
    trained(tiny_pipeline, seed=1).save_lora(tmp_path / "a")
    trained(tiny_pipeline, rank=2, targets="attention", seed=2).save_lora(tmp_path / "b")
    loras = [(tmp_path / "a", 0.5), (tmp_path / "b", 2.0)]
    together = WanBackbone(tiny_pipeline)
    together.load_loras(loras)
    fuse_loras(WanBackbone(tiny_pipeline), loras, tmp_path / "fused")
    torch.testing.assert_close(
        velocity(WanBackbone(tmp_path / "fused"), inputs), velocity(together, inputs), atol=1e-5, rtol=1e-5
    )


def test_shards_types_and_header_of_the_base_are_kept(tiny_pipeline, tmp_path):
    """A bfloat16 weight in one of two files: the sum is rounded once."""
    transformer = WanTransformer3DModel.from_pretrained(
        tiny_pipeline / "transformer", torch_dtype=torch.bfloat16
    )
    source = tmp_path / "source"
    WanPipeline.from_pretrained(tiny_pipeline, transformer=transformer).save_pretrained(source)
    size = (source / TRANSFORMER).stat().st_size
    (source / TRANSFORMER).unlink()
    transformer.save_pretrained(source / "transformer", max_shard_size=size // 2)
    files = sorted((source / "transformer").glob("*.safetensors"))
    assert len(files) > 1

    policy = trained(tiny_pipeline)
    policy.save_lora(tmp_path / "lora")
    fuse_loras(WanBackbone(source, precision="bfloat16"), [(tmp_path / "lora", 1.0)], tmp_path / "fused")
    for file in files:
        before, after = load_file(file), load_file(tmp_path / "fused" / "transformer" / file.name)
        assert {n: t.dtype for n, t in before.items()} == {n: t.dtype for n, t in after.items()}
        with (
            safe_open(file, "pt") as old,
            safe_open(tmp_path / "fused" / "transformer" / file.name, "pt") as new,
        ):
            assert old.metadata() == new.metadata()
        for name in before:
            layer = name.removesuffix(".weight")
            if layer in lora_layers(policy):
                change = policy.transformer.get_submodule(layer).get_delta_weight("default")
                assert torch.equal(after[name], (before[name].float() + change).bfloat16())
            else:
                assert torch.equal(after[name], before[name])
    index = "diffusion_pytorch_model.safetensors.index.json"
    assert (tmp_path / "fused/transformer" / index).read_text() == (
        source / "transformer" / index
    ).read_text()


def test_a_failure_leaves_no_folder(tiny_pipeline, tmp_path):
    trained(tiny_pipeline).save_lora(tmp_path / "lora")
    weights = load_file(tmp_path / "lora" / "pytorch_lora_weights.safetensors")
    (tmp_path / "other").mkdir()
    deeper = {key.replace("blocks.1.", "blocks.7."): value for key, value in weights.items()}
    save_file(deeper, tmp_path / "other" / "pytorch_lora_weights.safetensors")
    with pytest.raises(CorruptFileError, match=r"fits this model only in part"):
        fuse_loras(WanBackbone(tiny_pipeline), [(tmp_path / "other", 1.0)], tmp_path / "fused")
    with pytest.raises(FileExistsError, match=r"lora exists already"):
        fuse_loras(WanBackbone(tiny_pipeline), [(tmp_path / "lora", 1.0)], tmp_path / "lora")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lora", "other"]
