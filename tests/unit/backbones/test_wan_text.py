import pytest
import torch
from diffusers import WanPipeline
from diffusers.pipelines.wan.pipeline_wan import prompt_clean

from vggrpo.backbones.pipelines import load_tokenizer
from vggrpo.backbones.pipelines.tokens import check_token_ids
from vggrpo.backbones.wan import WanBackbone, clean_prompt
from vggrpo.config import CorruptFileError
from vggrpo.world import VOCABULARY

PROMPTS = [
    "a red box in a blue room, the camera orbits left",
    "",
    "A  Green\tsphere &amp;amp; a box ",
    "a box " * 40,
]


@pytest.fixture(scope="module")
def backbone(tiny_pipeline):
    return WanBackbone(tiny_pipeline)


@pytest.mark.parametrize(
    "prompt", ["  two \n lines\t", "caf\u00c3\u00a9", "a &amp;lt; b", "\u201cquoted\u201d", "\u00a0x", ""]
)
def test_prompts_are_cleaned_as_the_pipeline_does(prompt):
    assert clean_prompt(prompt) == prompt_clean(prompt)


def test_embeddings_equal_the_pipelines(backbone, tiny_pipeline):
    pipeline = WanPipeline.from_pretrained(tiny_pipeline)
    expected, _ = pipeline.encode_prompt(PROMPTS, do_classifier_free_guidance=False, max_sequence_length=24)
    embeds = backbone.encode_prompts(PROMPTS)
    assert embeds.dtype == torch.float32
    assert embeds.shape == (4, 24, 16)
    torch.testing.assert_close(embeds, expected, atol=1e-6, rtol=1e-5)


def test_embeddings_are_zero_past_the_end_token_only(backbone):
    embeds = backbone.encode_prompts(["a red box", ""])
    assert embeds[0, :4].abs().sum(-1).gt(0).all()
    assert embeds[0, 4:].eq(0).all()
    assert embeds[1, 0].abs().sum() > 0
    assert embeds[1, 1:].eq(0).all()


def test_embeddings_do_not_depend_on_the_batch(backbone):
    prompts = [f"a {color} box" for color in ("red", "blue", "green")] * 4
    together = backbone.encode_prompts(prompts)
    alone = torch.cat([backbone.encode_prompts([prompt]) for prompt in prompts])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_token_ids_are_the_vocabularys_order(tiny_pipeline):
    tokenizer = load_tokenizer(tiny_pipeline / "tokenizer")
    words = ["a", "red", "box", ",", "camera"]
    expected = [3 + VOCABULARY.index(word) for word in words]
    assert tokenizer("A red box,camera")["input_ids"] == [*expected, 1]
    assert tokenizer("zeppelin")["input_ids"] == [2, 1]
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, len(tokenizer)) == (0, 1, 3 + len(VOCABULARY))
    assert WanPipeline.from_pretrained(tiny_pipeline).tokenizer("a red box")["input_ids"] == [
        *expected[:3],
        1,
    ]


def test_a_tokenizer_of_another_model_is_refused(backbone, tiny_pipeline):
    tokenizer = load_tokenizer(tiny_pipeline / "tokenizer")
    tokenizer.add_tokens(["more"])
    with pytest.raises(CorruptFileError, match=r"belong to different models"):
        check_token_ids(tokenizer, backbone.text_encoder)
    tokenizer = load_tokenizer(tiny_pipeline / "tokenizer")
    tokenizer.eos_token = "a"
    with pytest.raises(CorruptFileError, match=r"end id is 4, but the text encoder's is 1"):
        check_token_ids(tokenizer, backbone.text_encoder)


def test_bad_prompts_are_refused(backbone):
    with pytest.raises(TypeError, match=r"expected a list of prompts"):
        backbone.encode_prompts("a red box")
    with pytest.raises(ValueError, match=r"prompts is empty"):
        backbone.encode_prompts([])


def test_missing_and_damaged_tokenizer_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*tokenizer.json"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{ broken")
    with pytest.raises(CorruptFileError, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path)
