"""`vggrpo generate` through the entry point, on a tiny pipeline with random weights."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from vggrpo.backbones.wan import WanBackbone
from vggrpo.cli.main import main


@pytest.fixture
def recipe(tiny_pipeline, tmp_path) -> Path:
    path = tmp_path / "generate.yaml"
    settings = {
        "base_model": str(tiny_pipeline),
        "num_frames": 5,
        "height": 16,
        "width": 16,
        "fps": 8.0,
        "infer_steps": 2,
        "cfg_scale": 1.0,
    }
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.fixture
def generate(recipe, tmp_path):
    def run(*words: str) -> int:
        return main(["generate", "--recipe", str(recipe), "--output", str(tmp_path / "out"), *words])

    return run


def names(tmp_path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "out").iterdir())


def test_videos_and_sidecars_appear_and_are_kept(generate, tmp_path, capsys):
    words = ("--prompts", "a red box", "a blue sphere", "--seeds", "0", "3")
    assert generate(*words) == 0
    assert "4 videos made, 0 were there already" in capsys.readouterr().out
    assert len(names(tmp_path)) == 8
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert generate(*words) == 0
    assert "0 videos made, 4 were there already" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before


def test_a_prompt_file_and_latents(generate, tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"id": "one", "prompt": "a red box"}\n')
    assert generate("--prompts", str(prompts), "--save-latents") == 0
    assert names(tmp_path) == ["one_seed0.json", "one_seed0.mp4", "one_seed0.safetensors"]


def test_lora_changes_the_video_and_is_named(generate, tmp_path, tiny_pipeline, capsys):
    backbone = WanBackbone(tiny_pipeline)
    backbone.add_lora(2, 4)
    for parameter in backbone.trainable_parameters().values():
        torch.nn.init.normal_(parameter, std=0.3)
    backbone.save_lora(tmp_path / "lora")
    words = ("--prompts", "a red box")
    assert generate(*words) == 0
    (video,) = (tmp_path / "out").glob("*.mp4")
    plain = video.read_bytes()
    assert generate(*words, "--lora", str(tmp_path / "lora")) == 2
    assert "was made with another model" in capsys.readouterr().err
    assert video.read_bytes() == plain
    assert generate(*words, "--lora", str(tmp_path / "lora"), "--overwrite") == 0
    assert video.read_bytes() != plain
    lora = json.loads(video.with_suffix(".json").read_text())["model"]["lora"]
    assert lora["scale"] == 1.0
    assert len(lora["sha256"]) == 64


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--prompts", "missing.txt"), "there is no prompt file missing.txt"),
        (("--prompts", "a", "a"), "prompt 2 is prompt 1 again"),
        (("--prompts", "a", "--num-frames", "6"), "num_frames is 6, but the autoencoder needs 4n + 1 frames"),
        (("--prompts", "a", "--height", "20"), "height is 20, but the denoiser needs a multiple of 8"),
        (("--prompts", "a", "--lora", "nowhere"), "there is no LoRA folder or file nowhere"),
        (("--prompts", "a", "--lora-scale", "2"), "there is no lora to scale"),
        (("--prompts", "a", "--base-model", "nowhere"), "nowhere"),
    ],
)
def test_bad_input_is_a_sentence_and_leaves_nothing(generate, tmp_path, capsys, words, message):
    assert generate(*words) in (1, 2)
    complaint = capsys.readouterr().err
    assert message in complaint
    assert "VGGRPO_DEBUG" not in complaint
    assert not (tmp_path / "out").exists()
