"""The shipped prompt sets, and a VBench suite, as prompts."""

import json
import re
from itertools import combinations, product

import pytest

from vggrpo.config import ConfigError
from vggrpo.data import load_prompt_set, load_prompts, load_vbench_prompts, prompt_set_names, read_prompts
from vggrpo.data.prompt import ID_PATTERN
from vggrpo.data.prompt_sets import KINDS, SPLITS
from vggrpo.training.sources import open_prompts, require_disjoint

SIZES = {"train": 200, "validation": 40, "test": 40}
FRAMING = {
    *("a", "an", "the", "of", "and", "to", "in", "on", "at", "with", "is", "it", "its", "by", "from", "as"),
    *("over", "for", "into", "up", "out", "one", "two", "then", "past", "through", "along", "while", "that"),
    *("this", "are", "camera", "view", "shot", "lens", "viewpoint", "slowly", "slow", "moves"),
}
"""Words that say nothing about what is seen."""


def content(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower())) - FRAMING


def overlap(one: set[str], other: set[str]) -> float:
    return len(one & other) / len(one | other)


@pytest.mark.parametrize(("kind", "split"), list(product(KINDS, SPLITS)))
def test_every_set_has_its_size_its_kind_and_plain_captions(kind, split):
    prompts = load_prompt_set(f"{kind}-{split}")
    assert len(prompts) == SIZES[split]
    assert {prompt.kind for prompt in prompts} == {kind}
    assert [prompt.id for prompt in prompts] == [f"{kind}-{split}-{n:03}" for n in range(1, len(prompts) + 1)]
    for prompt in prompts:
        assert ID_PATTERN.fullmatch(prompt.id)
        assert 15 <= len(prompt.text.split()) <= 60, prompt
        assert prompt.text[0].isupper(), prompt
        assert prompt.text.endswith("."), prompt
        assert prompt.text.isascii(), prompt
        assert "  " not in prompt.text, prompt


def test_no_caption_is_like_another_in_any_set():
    prompts = [p for kind, split in product(KINDS, SPLITS) for p in load_prompt_set(f"{kind}-{split}")]
    assert len(prompts) == 560
    words = {prompt.id: content(prompt.text) for prompt in prompts}
    nearest = max(combinations(words, 2), key=lambda pair: overlap(words[pair[0]], words[pair[1]]))
    assert overlap(words[nearest[0]], words[nearest[1]]) < 0.3, nearest


def test_the_measure_of_likeness_sees_a_reworded_caption():
    caption = load_prompt_set("static-test")[0].text
    reworded = caption.replace("A camera glides", "The shot moves slowly").replace("turns", "goes")
    assert overlap(content(caption), content(reworded)) > 0.7


def test_openings_are_not_a_template():
    prompts = [
        *load_prompt_set("all-train"),
        *load_prompt_set("all-validation"),
        *load_prompt_set("all-test"),
    ]
    openings = [" ".join(prompt.text.split()[:3]) for prompt in prompts]
    assert max(map(openings.count, set(openings))) <= 0.03 * len(prompts)


def test_sets_are_named_wherever_prompts_are():
    test = load_prompts("static-test")
    assert read_prompts(["static-test"]) == open_prompts("static-test", "train") == test
    assert open_prompts("static-test", "train", 3) == test[:3]
    both = load_prompt_set("all-test")
    assert both == [*test, *load_prompts("dynamic-test")]
    require_disjoint(load_prompts("all-train"), both)
    assert "all-validation" in prompt_set_names()
    with pytest.raises(ConfigError, match=r"41 prompts are asked for, but static-test holds 40"):
        open_prompts("static-test", "train", 41)
    with pytest.raises(
        ConfigError, match=r"no prompt file static-tst; .* sets static-train, static-validation"
    ):
        open_prompts("static-tst", "train")
    with pytest.raises(ConfigError, match="there is no prompt set static"):
        load_prompt_set("static")


def test_a_vbench_suite_gives_each_prompt_once(tmp_path):
    suite = tmp_path / "VBench_full_info.json"
    entries = [
        {"prompt_en": "In a still frame, a stop sign", "dimension": ["temporal_flickering"]},
        {
            "prompt_en": "a bird and a cat",
            "dimension": ["multiple_objects"],
            "auxiliary_info": {"multiple_objects": {"object": "bird and cat"}},
        },
        {"prompt_en": "In a still frame,  a stop sign ", "dimension": ["scene"]},
    ]
    suite.write_text(json.dumps(entries))
    prompts = load_vbench_prompts(suite)
    assert [prompt.text for prompt in prompts] == ["In a still frame, a stop sign", "a bird and a cat"]
    assert read_prompts([str(suite)]) == open_prompts(str(suite), "train") == prompts
    assert len({prompt.id for prompt in prompts}) == 2
    assert all(ID_PATTERN.fullmatch(prompt.id) and not prompt.kind for prompt in prompts)


@pytest.mark.parametrize(
    ("content_of_file", "message"),
    [
        ("{", "is not valid JSON"),
        ("{}", "is no prompt suite: expected a list"),
        ("[]", "is no prompt suite"),
        ('[{"prompt_en": "a"}, {"prompt": "b"}]', "entry 1 has no prompt"),
        ('["a"]', "entry 0 has no prompt"),
    ],
)
def test_another_json_file_is_no_suite(tmp_path, content_of_file, message):
    path = tmp_path / "suite.json"
    path.write_text(content_of_file)
    with pytest.raises(ConfigError, match=message):
        load_prompts(path)
