import shutil

import pytest
import torch

from vggrpo.backbones.wan import WanBackbone
from vggrpo.config import CorruptFileError
from vggrpo.data import TextEmbeddingCache

PROMPTS = ["a red box", "", "a green sphere in a blue room"]


def test_embeddings_are_those_of_the_backbone(tiny_pipeline, tmp_path):
    backbone = WanBackbone(tiny_pipeline)
    embeds = TextEmbeddingCache(tmp_path, backbone).embed([*PROMPTS, PROMPTS[0]])
    assert embeds.dtype == torch.float32
    assert torch.equal(embeds, backbone.encode_prompts(PROMPTS)[[0, 1, 2, 0]])


def test_a_second_run_needs_no_text_encoder(tiny_pipeline, tmp_path):
    first = TextEmbeddingCache(tmp_path, WanBackbone(tiny_pipeline)).embed(PROMPTS)
    backbone = WanBackbone(tiny_pipeline)
    again = TextEmbeddingCache(tmp_path, backbone).embed(PROMPTS[::-1])
    assert torch.equal(again, first.flip(0))
    assert backbone._text_encoder is None


def test_only_what_is_missing_is_encoded(tiny_pipeline, tmp_path, monkeypatch):
    backbone = WanBackbone(tiny_pipeline)
    cache = TextEmbeddingCache(tmp_path, backbone)
    cache.embed(PROMPTS[:1])
    asked = []
    encode = backbone.encode_prompts
    monkeypatch.setattr(backbone, "encode_prompts", lambda prompts: asked.append(prompts) or encode(prompts))
    cache.embed([*PROMPTS, *PROMPTS])
    assert asked == [PROMPTS[1:]]


def test_another_text_encoder_finds_nothing(tiny_pipeline, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(tiny_pipeline, copy)
    cache = TextEmbeddingCache(tmp_path / "cache", WanBackbone(tiny_pipeline))
    cache.embed(PROMPTS)
    tokenizer = copy / "tokenizer" / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace('"box"', '"fox"'))
    other = TextEmbeddingCache(tmp_path / "cache", WanBackbone(copy))
    assert not other.file(PROMPTS[0]).is_file()
    assert not torch.equal(other.embed(PROMPTS[:1]), cache.embed(PROMPTS[:1]))


def test_padding_is_not_stored(tiny_pipeline, tmp_path):
    backbone = WanBackbone(tiny_pipeline)
    cache = TextEmbeddingCache(tmp_path, backbone)
    cache.embed([""])
    assert cache.file("").stat().st_size < backbone.encode_prompts([""])[0].numel() * 4 / 2


def test_a_damaged_file_is_named_with_the_remedy(tiny_pipeline, tmp_path):
    cache = TextEmbeddingCache(tmp_path, WanBackbone(tiny_pipeline))
    cache.embed(PROMPTS)
    file = cache.file(PROMPTS[0])
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(CorruptFileError, match=rf"delete .*{file.name} and it is made again"):
        cache.embed(PROMPTS)
    file.unlink()
    cache.embed(PROMPTS)
    with pytest.raises(ValueError, match=r"prompts is empty"):
        cache.embed([])
