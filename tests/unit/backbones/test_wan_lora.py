import pytest
import torch
from diffusers import WanPipeline
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from vggrpo.backbones.pipelines import LORA_FILE
from vggrpo.backbones.pipelines.lora import add_lora
from vggrpo.backbones.wan import WanBackbone
from vggrpo.config import CorruptFileError


@pytest.fixture
def backbone(tiny_pipeline):
    return WanBackbone(tiny_pipeline)


@pytest.fixture(scope="module")
def inputs():
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(2, 4, 2, 4, 4, generator=generator),
        0.6,
        torch.randn(2, 24, 16, generator=generator),
    )


def velocity(backbone, inputs):
    with torch.no_grad():
        return backbone.velocity(*inputs)


def trained(backbone, rank=4, alpha=8, targets="attention"):
    """Adds LoRA with factors that are nowhere zero, as training leaves them."""
    backbone.add_lora(rank, alpha, targets)
    generator = torch.Generator().manual_seed(1)
    for parameter in backbone.trainable_parameters().values():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    return backbone


@pytest.mark.parametrize(("targets", "per_block"), [("attention", 8), ("attention+ffn", 10)])
def test_new_lora_is_the_base_model_and_only_it_trains(backbone, inputs, targets, per_block):
    base = velocity(backbone, inputs)
    backbone.add_lora(4, 8, targets)
    assert torch.equal(velocity(backbone, inputs), base)
    parameters = backbone.trainable_parameters()
    assert len(parameters) == 2 * 2 * per_block
    assert all(p.requires_grad and p.dtype == torch.float32 for p in parameters.values())
    trainable = [name for name, p in backbone.transformer.named_parameters() if p.requires_grad]
    assert trainable == list(parameters)


@pytest.mark.parametrize("targets", ["attention", "attention+ffn"])
def test_every_lora_layer_receives_a_gradient(backbone, inputs, targets):
    trained(backbone, targets=targets)
    backbone.velocity(*inputs).square().mean().backward()
    dead = [n for n, p in backbone.trainable_parameters().items() if p.grad is None or not p.grad.any()]
    assert dead == []


def test_start_depends_on_the_seed_alone(tiny_pipeline):
    def start(seed, disturbance):
        backbone = WanBackbone(tiny_pipeline)
        _ = backbone.transformer
        torch.manual_seed(disturbance)
        before = torch.random.get_rng_state()
        backbone.add_lora(4, 8, seed=seed)
        assert torch.equal(torch.random.get_rng_state(), before)
        return {n: p.detach() for n, p in backbone.trainable_parameters().items()}

    first, again, other = start(3, 0), start(3, 7), start(4, 0)
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    a_names = [name for name in first if ".lora_A." in name]
    assert all(not torch.equal(first[name], other[name]) for name in a_names)
    values = torch.cat([first[name].flatten() for name in a_names])
    assert abs(values.std() - 1 / 4) < 0.02


def test_plain_diffusers_reproduces_the_saved_policy(backbone, tiny_pipeline, inputs, tmp_path):
    policy = velocity(trained(backbone, rank=4, alpha=8, targets="attention+ffn"), inputs)
    backbone.save_lora(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [LORA_FILE]

    pipeline = WanPipeline.from_pretrained(tiny_pipeline)
    latents, sigma, embeds = inputs
    timestep = torch.full((2,), 1000 * sigma)
    with torch.no_grad():
        base = pipeline.transformer(latents, timestep, embeds, return_dict=False)[0]
        pipeline.load_lora_weights(tmp_path)
        loaded = pipeline.transformer(latents, timestep, embeds, return_dict=False)[0]
    torch.testing.assert_close(loaded, policy, atol=1e-5, rtol=1e-5)
    assert (policy - base).abs().max() > 0.01


def test_alpha_is_in_the_file(backbone, tiny_pipeline, inputs, tmp_path):
    """Without it the same weights mean another policy: what the metadata is for."""
    policy = velocity(trained(backbone, rank=4, alpha=12), inputs)
    backbone.save_lora(tmp_path)
    save_file(load_file(tmp_path / LORA_FILE), tmp_path / LORA_FILE)
    without = WanBackbone(tiny_pipeline)
    without.load_lora(tmp_path)
    assert (velocity(without, inputs) - policy).abs().max() > 1e-3


def test_reload_equals_the_policy_and_trains_on(backbone, tiny_pipeline, inputs, tmp_path):
    policy = velocity(trained(backbone), inputs)
    backbone.save_lora(tmp_path)
    reloaded = WanBackbone(tiny_pipeline)
    reloaded.load_lora(tmp_path)
    torch.testing.assert_close(velocity(reloaded, inputs), policy, atol=1e-6, rtol=1e-6)
    parameters = reloaded.trainable_parameters()
    assert all(p.requires_grad for p in parameters.values())
    assert {n: p.shape for n, p in parameters.items()} == {
        n: p.shape for n, p in backbone.trainable_parameters().items()
    }
    reloaded.velocity(*inputs).square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in parameters.values())
    reloaded.save_lora(tmp_path / "again")
    again, first = load_file(tmp_path / "again" / LORA_FILE), load_file(tmp_path / LORA_FILE)
    assert first.keys() == again.keys()
    assert all(torch.equal(first[key], again[key]) for key in first)


def test_loading_replaces_the_lora_that_is_there(backbone, tiny_pipeline, inputs, tmp_path):
    policy = velocity(trained(backbone), inputs)
    backbone.save_lora(tmp_path)
    other = WanBackbone(tiny_pipeline)
    trained(other, rank=2, alpha=2, targets="attention+ffn")
    other.load_lora(tmp_path)
    torch.testing.assert_close(velocity(other, inputs), policy, atol=1e-6, rtol=1e-6)


def test_scale_interpolates_from_the_base_model(backbone, tiny_pipeline, inputs, tmp_path):
    trained(backbone)
    backbone.save_lora(tmp_path)
    with backbone.lora_disabled():
        base = velocity(backbone, inputs)
    backbone.load_lora(tmp_path, scale=0.0)
    torch.testing.assert_close(velocity(backbone, inputs), base)
    backbone.load_lora(tmp_path, scale=2.0)
    doubled = WanBackbone(tiny_pipeline)
    trained(doubled, rank=4, alpha=16)
    torch.testing.assert_close(velocity(backbone, inputs), velocity(doubled, inputs), atol=1e-6, rtol=1e-6)
    with pytest.raises(ValueError, match=r"loaded with a scale other than 1"):
        backbone.save_lora(tmp_path / "scaled")


def test_disabled_lora_is_exactly_the_base_model(backbone, inputs):
    base = velocity(backbone, inputs)
    with backbone.lora_disabled():
        assert torch.equal(velocity(backbone, inputs), base)
    policy = velocity(trained(backbone), inputs)
    with backbone.lora_disabled():
        assert torch.equal(velocity(backbone, inputs), base)
        with backbone.lora_disabled():
            pass
        assert torch.equal(velocity(backbone, inputs), base)
    assert torch.equal(velocity(backbone, inputs), policy)
    with pytest.raises(RuntimeError, match=r"boom"), backbone.lora_disabled():
        raise RuntimeError("boom")
    assert torch.equal(velocity(backbone, inputs), policy)


def test_a_graph_made_before_the_reference_pass_still_has_its_gradient(backbone, inputs):
    trained(backbone)
    backbone.velocity(*inputs).square().mean().backward()
    expected = {name: p.grad.clone() for name, p in backbone.trainable_parameters().items()}
    backbone.transformer.zero_grad()
    loss = backbone.velocity(*inputs).square().mean()
    with torch.no_grad(), backbone.lora_disabled():
        backbone.velocity(*inputs)
    loss.backward()
    for name, parameter in backbone.trainable_parameters().items():
        torch.testing.assert_close(parameter.grad, expected[name])


def test_lora_on_half_precision_weights_is_float32(tiny_pipeline, inputs, tmp_path):
    backbone = WanBackbone(tiny_pipeline, precision="bfloat16", weight_dtype=torch.bfloat16)
    trained(backbone).save_lora(tmp_path)
    policy = velocity(backbone, inputs)
    again = WanBackbone(tiny_pipeline, precision="bfloat16", weight_dtype=torch.bfloat16)
    again.load_lora(tmp_path)
    saved = backbone.trainable_parameters()
    for name, parameter in again.trainable_parameters().items():
        assert parameter.dtype == torch.float32
        assert torch.equal(parameter, saved[name])
    assert torch.equal(velocity(again, inputs), policy)


def test_files_that_would_load_nothing_or_a_part_are_refused(backbone, tmp_path):
    trained(backbone)
    backbone.save_lora(tmp_path / "good")
    weights = load_file(tmp_path / "good" / LORA_FILE)

    def saved(name, tensors):
        (tmp_path / name).mkdir()
        save_file(tensors, tmp_path / name / LORA_FILE)
        return tmp_path / name

    foreign = {key.replace("transformer.", "base_model.model."): value for key, value in weights.items()}
    with pytest.raises(
        CorruptFileError, match=r"holds no LoRA weights of a WanPipeline's transformer .* peft's"
    ):
        backbone.load_lora(saved("foreign", foreign))
    deeper = {key.replace("blocks.1.", "blocks.7."): value for key, value in weights.items()}
    with pytest.raises(CorruptFileError, match=r"fits this model only in part: .* blocks.7"):
        backbone.load_lora(saved("deeper", deeper))
    wider = {key: torch.cat([value, value], dim=-1) for key, value in weights.items() if ".lora_A." in key}
    with pytest.raises(CorruptFileError, match=r"does not fit this model"):
        backbone.load_lora(saved("wider", {**weights, **wider}))


def test_missing_and_damaged_files_are_named(backbone, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no LoRA folder or file .*nowhere"):
        backbone.load_lora(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=rf"holds no {LORA_FILE} and 0 other"):
        backbone.load_lora(tmp_path)
    trained(backbone)
    backbone.save_lora(tmp_path)
    content = (tmp_path / LORA_FILE).read_bytes()
    (tmp_path / LORA_FILE).write_bytes(content[: len(content) // 2])
    with pytest.raises(CorruptFileError, match=rf"{LORA_FILE} is truncated or damaged"):
        backbone.load_lora(tmp_path)


def test_wrong_use_is_refused(backbone, tmp_path):
    for call in (backbone.trainable_parameters, lambda: backbone.save_lora(tmp_path)):
        with pytest.raises(ValueError, match=r"has no LoRA layers: call add_lora or load_lora first"):
            call()
    with pytest.raises(ValueError, match=r"targets is 'everything', expected one of attention, attention"):
        backbone.add_lora(4, 8, "everything")
    with pytest.raises(ValueError, match=r"rank is 0"):
        backbone.add_lora(0, 8)
    with pytest.raises(ValueError, match=r"alpha is 0"):
        backbone.add_lora(4, 0)
    backbone.add_lora(4, 8)
    with pytest.raises(ValueError, match=r"has LoRA layers already"):
        backbone.add_lora(4, 8)


def test_a_target_that_matches_nothing_is_an_error(backbone):
    for block in backbone.transformer.blocks:
        block.ffn = torch.nn.Identity()
    with pytest.raises(ValueError, match=r"LoRA target ffn.net.0.proj matches no layer"):
        add_lora(backbone.transformer, 4, 8, "attention+ffn")


def test_a_lora_of_another_program_loads(backbone, tiny_pipeline, inputs, tmp_path):
    """A folder as diffusers' own training scripts leave it."""
    pipeline = WanPipeline.from_pretrained(tiny_pipeline)
    pipeline.transformer.add_adapter(LoraConfig(r=3, lora_alpha=3, target_modules=["to_k", "to_q"]))
    for name, parameter in pipeline.transformer.named_parameters():
        if "lora" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    WanPipeline.save_lora_weights(
        tmp_path, transformer_lora_layers=get_peft_model_state_dict(pipeline.transformer)
    )
    latents, sigma, embeds = inputs
    with torch.no_grad():
        timestep = torch.full((2,), 1000 * sigma)
        expected = pipeline.transformer(latents, timestep, embeds, return_dict=False)[0]
    backbone.load_lora(tmp_path)
    torch.testing.assert_close(velocity(backbone, inputs), expected, atol=1e-5, rtol=1e-5)
