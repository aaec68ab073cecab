"""VideoReward on a tiny random Qwen2-VL in the published layout."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize

from tiny_video_reward import (
    CHAT_TOKENS,
    NORMALISATION,
    REWARD_TOKENS,
    TEMPLATE,
    TinyVideoReward,
    make_video_reward,
    model_config,
    write_tokenizer,
)
from vggrpo.config import ConfigError
from vggrpo.config.errors import CorruptFileError
from vggrpo.evaluation.videoreward import (
    VIDEO_REWARD_VALUES,
    VideoRewardMetric,
    load_network,
    locate_video_reward,
    open_video_reward,
)
from vggrpo.evaluation.videoreward.inputs import (
    InstructionTokens,
    SampledFrames,
    frame_numbers,
    frame_size,
    patchify,
)
from vggrpo.evaluation.videoreward.source import read_config
from vggrpo.evaluation.videoreward.template import PUBLISHED_URL, find_template, read_template
from vggrpo.evaluation.videos import Clip, Video

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyVideoReward:
    return make_video_reward(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def metric(tiny: TinyVideoReward) -> VideoRewardMetric:
    opened = open_video_reward(tiny.folder, CPU, base=tiny.base, batch_size=3)
    opened.open()
    return opened


def clip(prompt: str | None, name: str = "a.mp4") -> Clip:
    return Clip(name, Path(name), prompt=prompt)


def frames(seed: int, count: int = 4, height: int = 56, width: int = 84) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def expected_values(tiny: TinyVideoReward, shown: np.ndarray, prompt: str) -> dict[str, float]:
    """Scores by the network of peft, patches cut one by one, and the published constants."""
    grid = torch.tensor([[len(shown) // 2, shown.shape[1] // 14, shown.shape[2] // 14]])
    patches = torch.stack(straightforward_patches(shown))
    chat = (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>"
        + "<|video_pad|>" * (len(patches) // 4)
        + "<|vision_end|>"
        + TEMPLATE.replace("{text_prompt}", prompt)
        + "<|im_end|>\n<|im_start|>assistant\n"
    )
    ids = torch.tensor(tiny.tokenizer.encode(chat, add_special_tokens=False).ids)
    with torch.no_grad():
        raw = tiny.reference(ids, patches, grid).tolist()
    vq = (raw[0] - NORMALISATION["VQ_mean"]) / NORMALISATION["VQ_std"]
    mq = (raw[1] - NORMALISATION["MQ_mean"]) / NORMALISATION["MQ_std"]
    ta = (raw[2] - NORMALISATION["TA_mean"]) / NORMALISATION["TA_std"]
    return dict(zip(VIDEO_REWARD_VALUES, (vq, mq, ta, vq + mq + ta), strict=True))


def straightforward_patches(shown: np.ndarray) -> list[torch.Tensor]:
    mean, std = np.array([0.48145466, 0.4578275, 0.40821073]), np.array([0.26862954, 0.26130258, 0.27577711])
    pixels = (shown / 255 - mean) / std
    patches = []
    for t in range(0, len(shown), 2):
        for y in range(0, shown.shape[1], 28):
            for x in range(0, shown.shape[2], 28):
                for dy, dx in ((0, 0), (0, 14), (14, 0), (14, 14)):
                    block = pixels[t : t + 2, y + dy : y + dy + 14, x + dx : x + dx + 14]
                    patches.append(torch.from_numpy(block.transpose(3, 0, 1, 2).reshape(-1)).float())
    return patches


def test_scores_are_those_of_the_network_that_was_saved(
    tiny: TinyVideoReward, metric: VideoRewardMetric
) -> None:
    # Prompts of different lengths: shorter ones are padded, which must change nothing.
    prompts = ["a red ball", "a much longer prompt about {braces} and a lamp, über alles", "x"]
    shown = [frames(seed) for seed in range(3)]
    found = metric.compute(np.stack(shown), [clip(prompt) for prompt in prompts])
    for measured, frame, prompt in zip(found, shown, prompts, strict=True):
        assert measured.notes == ()
        assert measured.values == pytest.approx(expected_values(tiny, frame, prompt), abs=2e-4)
    spread = np.ptp([measured.values["videoreward_overall"] for measured in found])
    assert spread > 0.05, "the tiny network must tell the clips apart, or this test shows nothing"


def test_lora_matters_to_the_scores(tiny: TinyVideoReward, metric: VideoRewardMetric) -> None:
    scores = metric.compute(frames(0)[None], [clip("a red ball")])[0].values
    with tiny.peft_model.disable_adapter():  # type: ignore[operator]
        without = expected_values(tiny, frames(0), "a red ball")
    assert abs(scores["videoreward_vq"] - without["videoreward_vq"]) > 0.01


def test_three_outputs_are_read_along_the_diagonal(tmp_path: Path) -> None:
    tiny = make_video_reward(tmp_path, output_dim=3)
    metric = open_video_reward(tiny.folder, CPU, base=tiny.base)
    metric.open()
    found = metric.compute(frames(5)[None], [clip("a lamp")])[0]
    assert found.values == pytest.approx(expected_values(tiny, frames(5), "a lamp"), abs=2e-4)


def test_without_a_prompt_the_qualities_are_the_same_and_alignment_is_missing(
    metric: VideoRewardMetric,
) -> None:
    found = metric.compute(np.stack([frames(1)] * 3), [clip("a red ball"), clip(None), clip("<|MQ_reward|>")])
    whole, silent, hostile = (measured.values for measured in found)
    for values in (silent, hostile):
        assert values["videoreward_vq"] == pytest.approx(whole["videoreward_vq"], abs=1e-5)
        assert values["videoreward_mq"] == pytest.approx(whole["videoreward_mq"], abs=1e-5)
        assert np.isnan([values["videoreward_ta"], values["videoreward_overall"]]).all()
    assert found[1].notes == ("there is no prompt, so text alignment and the sum are missing",)
    assert "<|MQ_reward|>" in found[2].notes[0]


def test_without_constants_scores_are_raw(
    tiny: TinyVideoReward, metric: VideoRewardMetric, tmp_path: Path
) -> None:
    path = tmp_path / "model_config.json"
    config = model_config()
    del config["inference_config"]
    path.write_text(json.dumps(config))
    assert read_config(path).normalisation is None
    assert metric.normalised([3.6757 + 2.2476, 1.1646, 2.8105 - 2 * 2.5121]) == pytest.approx([1, 0, -2])


def test_scores_that_are_not_finite_are_missing(tiny: TinyVideoReward) -> None:
    metric = open_video_reward(tiny.folder, CPU, base=tiny.base)
    metric.open()
    assert metric.network is not None
    metric.network.head.weight[0, 0] = float("nan")
    (found,) = metric.compute(frames(0)[None], [clip("a")])
    assert np.isnan(list(found.values.values())).all()
    assert "not finite" in found.notes[0]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"base_model.model.rm_head.weight": None}, "head.weight is missing"),
        (
            {"base_model.model.rm_head.weight": torch.zeros(2, 32)},
            r"head.weight is \[2, 32\] where \[1, 32\]",
        ),
        ({"base_model.model.value_head.weight": torch.zeros(1)}, "value_head.weight, which is no part"),
        ({"base_model.model.model.layers.9.mlp.up_proj.weight": torch.zeros(1)}, "layers.9.*unknown"),
        (
            {"base_model.model.model.layers.0.mlp.up_proj.lora_B.default.weight": None},
            "lora_B.default.weight is missing",
        ),
        ({"base_model.model.model.embed_tokens.weight": None}, "no embedding"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    tiny: TinyVideoReward, tmp_path: Path, change: dict[str, torch.Tensor | None], complaint: str
) -> None:
    state = {key: value for key, value in (tiny.state() | change).items() if value is not None}
    source = locate_video_reward(tiny.folder, tiny.base)
    damaged = tmp_path / "model.pth"
    torch.save(state, damaged)
    with pytest.raises(CorruptFileError, match=complaint):
        load_network(type(source)(**{**vars(source), "weights": damaged}), torch.float32)


def test_bfloat16_gives_nearly_the_same(tiny: TinyVideoReward, metric: VideoRewardMetric) -> None:
    expected = metric.compute(frames(2)[None], [clip("a lamp")])[0].values
    half = open_video_reward(tiny.folder, CPU, base=tiny.base)
    half.dtype = torch.bfloat16
    half.open()
    assert half.network is not None
    assert {value.dtype for value in half.network.state_dict().values()} == {torch.bfloat16}
    found = half.compute(frames(2)[None], [clip("a lamp")])[0].values
    assert found == pytest.approx(expected, abs=0.05)
    assert found["videoreward_vq"] != expected["videoreward_vq"]


def test_names_of_transformers_5_are_read_too(tiny: TinyVideoReward, tmp_path: Path) -> None:
    source = locate_video_reward(tiny.folder, tiny.base)
    renamed = tmp_path / "model.pth"
    torch.save(tiny.peft_model.state_dict(), renamed)
    assert "base_model.model.model.language_model.norm.weight" in tiny.peft_model.state_dict()
    ours, theirs = (
        load_network(type(source)(**{**vars(source), "weights": path}), torch.float32).state_dict()
        for path in (tiny.weights, renamed)
    )
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_code_in_a_checkpoint_is_not_run(tiny: TinyVideoReward, tmp_path: Path) -> None:
    source = locate_video_reward(tiny.folder, tiny.base)
    hostile = tmp_path / "model.pth"
    torch.save({"weight": torch.zeros(1), "code": _Touch(tmp_path / "ran")}, hostile)
    with pytest.raises(CorruptFileError):
        load_network(type(source)(**{**vars(source), "weights": hostile}), torch.float32)
    assert not (tmp_path / "ran").exists()


class _Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_the_latest_checkpoint_and_its_own_tokenizer_are_taken(tmp_path: Path) -> None:
    tiny = make_video_reward(tmp_path)
    for step in ("checkpoint-3", "checkpoint-100", "checkpoint-best"):
        (tiny.folder / step).mkdir()
    (tiny.folder / "checkpoint-3" / "model.pth").touch()
    (tiny.folder / "checkpoint-best" / "model.pth").touch()
    source = locate_video_reward(tiny.folder, tiny.base)
    assert source.weights == tiny.weights
    assert source.tokenizer == tiny.folder / "checkpoint-20/tokenizer/tokenizer.json"
    source.tokenizer.unlink()
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json"):
        locate_video_reward(tiny.folder, tiny.base)
    # The base model's lacks the reward tokens; they get the numbers that training gave them.
    write_tokenizer(tiny.base / "tokenizer.json", CHAT_TOKENS)
    fallback = locate_video_reward(tiny.folder, tiny.base)
    tokens = InstructionTokens(fallback.tokenizer, fallback.template)
    assert tokens.reward_ids == [tiny.tokenizer.token_to_id(token) for token in REWARD_TOKENS]


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    tiny = make_video_reward(tmp_path)
    path = tiny.folder / "checkpoint-20/tokenizer/tokenizer.json"
    write_tokenizer(path, CHAT_TOKENS + tuple(f"<|extra{i}|>" for i in range(300)))
    metric = open_video_reward(tiny.folder, CPU, base=tiny.base)
    with pytest.raises(CorruptFileError, match="do not belong together"):
        metric.open()
    write_tokenizer(path, REWARD_TOKENS)
    with pytest.raises(CorruptFileError, match="it is not Qwen2-VL's"):
        open_video_reward(tiny.folder, CPU, base=tiny.base)
    path.write_text("{")
    with pytest.raises(CorruptFileError, match="no tokenizer"):
        open_video_reward(tiny.folder, CPU, base=tiny.base)


def test_unsupported_checkpoints_say_every_reason(tmp_path: Path) -> None:
    path = tmp_path / "model_config.json"
    config = model_config()
    config["data_config"]["prompt_template_type"] = "simple"
    config["model_config"]["use_special_tokens"] = False
    path.write_text(json.dumps(config))
    with pytest.raises(ConfigError) as caught:
        read_config(path)
    text = str(caught.value)
    assert "data_config.prompt_template_type" in text
    assert "model_config.use_special_tokens" in text


@pytest.mark.parametrize("name", ["no/such/folder/at/all", "nothing"])
def test_no_such_place(name: str) -> None:
    with pytest.raises(ConfigError, match="neither a folder nor a Hugging Face repository"):
        locate_video_reward(name)


def test_a_folder_without_weights(tmp_path: Path) -> None:
    (tmp_path / "model_config.json").write_text(json.dumps(model_config()))
    with pytest.raises(FileNotFoundError, match=r"holds no checkpoint-<step>/model\.pth"):
        locate_video_reward(tmp_path)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("DETAILED_PROMPT_WITH_SPECIAL_TOKEN = ", "no Python file"),
        ("OTHER = 'text'", "defines no text"),
        (
            f"DETAILED_PROMPT_WITH_SPECIAL_TOKEN = {TEMPLATE.replace('{text_prompt}', 'it')!r}",
            "does not hold",
        ),
        (f"DETAILED_PROMPT_WITH_SPECIAL_TOKEN = {TEMPLATE + '<|VQ_reward|>'!r}", "once each"),
        (f"DETAILED_PROMPT_WITH_SPECIAL_TOKEN = {'{text_prompt}' + TEMPLATE!r}", "once each"),
        (f"DETAILED_PROMPT_WITH_SPECIAL_TOKEN = {TEMPLATE + '{more}'!r}", "braces"),
    ],
)
def test_templates_that_cannot_be_used(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "prompt_template.py"
    path.write_text(text)
    with pytest.raises(CorruptFileError, match=complaint):
        read_template(path)


def test_a_template_that_cannot_be_fetched_says_where_to_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VGGRPO_CACHE", str(tmp_path / "cache"))
    # A proxy on a closed port: no request leaves this machine.
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(ConfigError) as caught:
        find_template(tmp_path)
    assert PUBLISHED_URL in str(caught.value)
    assert str(tmp_path / "prompt_template.py") in str(caught.value)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("count", "fps", "expected"),
    [
        (17, 24.0, [0, 5, 11, 16]),
        (81, 16.0, [0, 9, 18, 27, 36, 44, 53, 62, 71, 80]),
        (3, 8.0, [0, 2]),
        (2, 30.0, [0, 1]),
    ],
)
def test_frames_are_even_in_number_and_reach_both_ends(count: int, fps: float, expected: list[int]) -> None:
    assert frame_numbers(count, fps, 2.0) == expected


@pytest.mark.parametrize("size", [(480, 832), (1080, 1920), (64, 96), (704, 1280), (100, 2000), (448, 448)])
def test_sizes_are_those_of_qwen(size: tuple[int, int]) -> None:
    assert frame_size(*size, 200704) == smart_resize(*size, 28, 128 * 28 * 28, 200704)


def test_a_size_by_hand() -> None:
    # sqrt(480 * 832 / 200704) = 1.4106; 480 / 1.4106 / 28 = 12.15 and 832 / 1.4106 / 28 = 21.06.
    assert frame_size(480, 832, 200704) == (12 * 28, 21 * 28)
    with pytest.raises(ValueError, match="200 times"):
        frame_size(10, 2010, 200704)


def test_patches_are_those_of_transformers() -> None:
    picture = frames(3, count=1)
    patches, grid = patchify(torch.from_numpy(np.repeat(picture, 2, axis=0)[None]), (2, 14, 2))
    processor = Qwen2VLImageProcessorPil(do_resize=False)
    expected = processor(images=[picture[0]], return_tensors="pt")
    assert grid.tolist() == expected["image_grid_thw"].tolist()
    torch.testing.assert_close(patches, expected["pixel_values"], atol=1e-5, rtol=0)


def test_prepared_frames() -> None:
    sample = SampledFrames(2.0, 200704)
    flat = np.full((9, 90, 160, 3), (10, 200, 30), np.uint8)
    shown = sample(Video(flat, 8.0), clip("a"))
    assert shown.shape == (4, *frame_size(90, 160, 200704), 3)
    assert shown.dtype == np.uint8
    assert (shown == (10, 200, 30)).all()
    with pytest.raises(ValueError, match="frame rate"):
        sample(Video(flat, 0.0), clip("a"))
    with pytest.raises(ValueError, match="2 are needed"):
        sample(Video(flat[:1], 8.0), clip("a"))


def test_what_scores_depend_on_is_in_the_fingerprint(tiny: TinyVideoReward, tmp_path: Path) -> None:
    first = open_video_reward(tiny.folder, CPU, base=tiny.base)
    again = open_video_reward(tiny.folder, CPU, base=tiny.base, batch_size=8)
    assert first.fingerprint == again.fingerprint
    other = make_video_reward(tmp_path)
    template = other.folder / "prompt_template.py"
    template.write_text(template.read_text().replace("looks", "seems"))
    changed = open_video_reward(other.folder, CPU, base=other.base)
    assert changed.settings()["template"] != first.settings()["template"]
