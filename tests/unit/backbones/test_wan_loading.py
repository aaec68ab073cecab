import json
import shutil

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file

from vggrpo.backbones import load_video_backbone
from vggrpo.backbones.pipelines.source import PipelineSource
from vggrpo.backbones.wan import WanBackbone
from vggrpo.config import ConfigError, CorruptFileError
from vggrpo.data import TextEmbeddingCache

TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture
def copied(tiny_pipeline, tmp_path):
    shutil.copytree(tiny_pipeline, tmp_path / "pipeline")
    return tmp_path / "pipeline"


def test_parts_load_when_first_used_and_can_be_released(tiny_pipeline):
    backbone = load_video_backbone(tiny_pipeline)
    assert (backbone._transformer, backbone._vae, backbone._text_encoder) == (None, None, None)
    backbone.latent_shape(17, 48, 64)
    backbone.schedule(10)
    with backbone.lora_disabled():
        assert (backbone._transformer, backbone._vae, backbone._text_encoder) == (None, None, None)
    embeds = backbone.encode_prompts(["a red box"])
    assert backbone._transformer is None
    assert backbone._vae is None
    backbone.release("text_encoder", "vae")
    assert backbone._text_encoder is None
    assert torch.equal(backbone.encode_prompts(["a red box"]), embeds)
    with pytest.raises(ValueError, match=r"part is 'transformer', expected 'text_encoder' or 'vae'"):
        backbone.release("transformer")


def test_everything_loaded_is_frozen_float32_and_in_evaluation_mode(tiny_pipeline):
    backbone = WanBackbone(tiny_pipeline)
    for module in (backbone.transformer, backbone.vae, backbone.text_encoder):
        assert not module.training
        assert all(not p.requires_grad and p.dtype == torch.float32 for p in module.parameters())


def test_text_fingerprint_follows_encoder_and_tokenizer(tiny_pipeline, copied):
    fingerprint = WanBackbone(tiny_pipeline).text_fingerprint
    assert WanBackbone(copied).text_fingerprint == fingerprint
    tokenizer = copied / "tokenizer" / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace('"box"', '"fox"'))
    assert WanBackbone(copied).text_fingerprint != fingerprint


@pytest.mark.parametrize(
    ("setting", "value"), [("model_max_length", 12), ("pad_token", "</s>"), ("eos_token", "<unk>")]
)
def test_text_fingerprint_follows_length_padding_and_end(tiny_pipeline, copied, tmp_path, setting, value):
    """They are in tokenizer_config.json alone; embeddings that were cached before would be stale."""
    before = TextEmbeddingCache(tmp_path / "cache", WanBackbone(copied))
    assert before.embed(["a red box"]).shape[1] == 24
    file = copied / "tokenizer" / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {setting: value}))
    after = TextEmbeddingCache(tmp_path / "cache", WanBackbone(copied))
    assert after.folder != before.folder
    assert WanBackbone(copied).text_fingerprint != WanBackbone(tiny_pipeline).text_fingerprint
    if setting == "model_max_length":
        assert torch.equal(after.embed(["a red box"]), WanBackbone(copied).encode_prompts(["a red box"]))
    else:
        with pytest.raises(CorruptFileError, match="id is"):
            after.embed(["a red box"])


@pytest.mark.parametrize("part", ["vae", "transformer", "text_encoder"])
def test_truncated_weights_are_named(copied, part):
    (file,) = (copied / part).glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-100])
    backbone = WanBackbone(copied)
    with pytest.raises(CorruptFileError, match=rf"{part}/{file.name} is truncated or damaged .*fresh copy"):
        getattr(backbone, part)


def test_missing_weights_are_named(copied):
    (copied / TRANSFORMER).unlink()
    with pytest.raises(FileNotFoundError, match=r"transformer holds no weights .* complete copy"):
        _ = WanBackbone(copied).transformer
    shutil.rmtree(copied / "text_encoder")
    with pytest.raises(FileNotFoundError, match=r"has no text_encoder folder"):
        WanBackbone(copied).encode_prompts(["a red box"])


def test_weights_that_lack_a_tensor_are_refused_instead_of_filled_at_random(copied):
    weights = load_file(copied / TRANSFORMER)
    name = "blocks.1.attn1.to_q.weight"
    save_file({k: v for k, v in weights.items() if k != name}, copied / TRANSFORMER)
    with pytest.raises(
        CorruptFileError, match=rf"lacks 1 weights of WanTransformer3DModel, among them {name}"
    ):
        _ = WanBackbone(copied).transformer


def test_text_encoder_weights_that_lack_a_tensor_are_refused(copied):
    file = copied / "text_encoder" / "model.safetensors"
    weights = load_file(file)
    name = "encoder.final_layer_norm.weight"
    save_file({k: v for k, v in weights.items() if k != name}, file, metadata={"format": "pt"})
    with pytest.raises(CorruptFileError, match=rf"lacks 1 weights of UMT5EncoderModel, among them {name}"):
        _ = WanBackbone(copied).text_encoder


def test_wans_own_text_encoder_configuration_still_shares_its_embedding(tiny_pipeline, copied):
    """Wan's files say tie_word_embeddings false, but hold one embedding for the two places that use it."""
    config = json.loads((copied / "text_encoder" / "config.json").read_text())
    (copied / "text_encoder" / "config.json").write_text(
        json.dumps({**config, "tie_word_embeddings": False, "is_encoder_decoder": True})
    )
    assert "encoder.embed_tokens.weight" not in load_file(copied / "text_encoder" / "model.safetensors")
    prompts = ["a red box"]
    assert torch.equal(
        WanBackbone(copied).encode_prompts(prompts), WanBackbone(tiny_pipeline).encode_prompts(prompts)
    )


def test_weights_of_another_shape_are_refused(copied):
    config = json.loads((copied / "transformer" / "config.json").read_text())
    (copied / "transformer" / "config.json").write_text(json.dumps({**config, "ffn_dim": 48}))
    with pytest.raises(CorruptFileError, match=r"transformer.*do not fit the configuration beside them"):
        _ = WanBackbone(copied).transformer
    file = copied / "text_encoder" / "model.safetensors"
    weights = load_file(file)
    weights["encoder.final_layer_norm.weight"] = torch.ones(17)
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(CorruptFileError, match=r"text_encoder.*do not fit the configuration beside them"):
        _ = WanBackbone(copied).text_encoder


def test_a_missing_shard_is_named(copied):
    weights = load_file(copied / TRANSFORMER)
    (copied / TRANSFORMER).unlink()
    names = sorted(weights)
    shards = {"shard-1.safetensors": names[:10], "shard-2.safetensors": names[10:]}
    for file, keys in shards.items():
        save_file({key: weights[key] for key in keys}, copied / "transformer" / file)
    index = {"metadata": {}, "weight_map": {key: file for file, keys in shards.items() for key in keys}}
    index_file = copied / "transformer" / "diffusion_pytorch_model.safetensors.index.json"
    index_file.write_text(json.dumps(index))
    assert torch.equal(
        WanBackbone(copied).transformer.blocks[0].attn1.to_q.weight, weights["blocks.0.attn1.to_q.weight"]
    )
    (copied / "transformer" / "shard-2.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"no file .*shard-2.safetensors, which .*index.json lists"):
        _ = WanBackbone(copied).transformer


def test_damaged_configuration_is_named(copied):
    (copied / "model_index.json").write_text("{")
    with pytest.raises(CorruptFileError, match=r"model_index.json is not valid JSON"):
        WanBackbone(copied)
    (copied / "model_index.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"there is no file .*model_index.json"):
        WanBackbone(copied)


def test_unknown_names_are_refused(monkeypatch, tmp_path):
    with pytest.raises(ConfigError, match=r"micor is neither"):
        load_video_backbone("micor")
    for place in (tmp_path / "missing" / "model", "/missing", "/missing/model", "missing"):
        with pytest.raises(FileNotFoundError, match=r"there is no folder .*missing"):
            PipelineSource(place)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        FileNotFoundError, match=r"nobody/nothing is no local folder, and .* cannot be fetched"
    ):
        WanBackbone("nobody/nothing")


def test_of_a_repository_each_part_is_fetched_when_first_used(tiny_pipeline, tmp_path, monkeypatch):
    """The hub is a folder, of which only what is asked for arrives."""
    asked = []

    def fetch(repo_id, *, revision=None, allow_patterns):
        asked.append((repo_id, revision, tuple(allow_patterns)))
        for pattern in allow_patterns:
            for file in tiny_pipeline.glob(pattern):
                (tmp_path / file.relative_to(tiny_pipeline)).parent.mkdir(exist_ok=True)
                shutil.copy(file, tmp_path / file.relative_to(tiny_pipeline))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    backbone = load_video_backbone("owner/wan@v2")
    assert not list(tmp_path.rglob("*.safetensors"))
    latents, embeds = torch.randn(1, 4, 3, 8, 8), torch.randn(1, 24, 16)
    with torch.no_grad():
        velocity = backbone.velocity(latents, 0.5, embeds)
        assert torch.equal(velocity, WanBackbone(tiny_pipeline).velocity(latents, 0.5, embeds))
    assert {path.parent.name for path in tmp_path.rglob("*.safetensors")} == {"transformer"}
    backbone.encode_prompts(["a red box"])
    assert {(name, revision) for name, revision, _ in asked} == {("owner/wan", "v2")}
    assert any("text_encoder/*.safetensors" in patterns for *_, patterns in asked)
    assert not (tmp_path / "vae").exists() or not list((tmp_path / "vae").glob("*.safetensors"))
