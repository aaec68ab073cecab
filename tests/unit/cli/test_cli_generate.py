"""`vggrpo generate` through the entry point, on a tiny pipeline with random weights."""

import dataclasses
import io
import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from tiny_models import tiny_latent_geometry
from vggrpo.backbones.wan import WanBackbone
from vggrpo.cli.main import main
from vggrpo.geometry import truck
from vggrpo.io import load_tensors, read_video
from vggrpo.lgm import LatentGeometryModel
from vggrpo.viewer import load_scene


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
    (lora,) = json.loads(video.with_suffix(".json").read_text())["model"]["lora"]
    assert lora["scale"] == 1.0
    assert len(lora["sha256"]) == 64


def latents_of(tmp_path):
    (file,) = (tmp_path / "out").glob("*_seed0.safetensors")
    return load_tensors(file)["latents"]


def test_several_loras_add_up_by_their_scales(generate, tmp_path, tiny_pipeline):
    """Half of a LoRA twice is the LoRA, one against its own negative is the base model."""
    backbone = WanBackbone(tiny_pipeline)
    backbone.add_lora(2, 4)
    for parameter in backbone.trainable_parameters().values():
        torch.nn.init.normal_(parameter, std=0.3)
    for name in ("one", "other"):
        backbone.save_lora(tmp_path / name)
    one, other = str(tmp_path / "one"), str(tmp_path / "other")
    words = ("--prompts", "a red box", "--save-latents", "--overwrite")
    found = {}
    for name, lora in {
        "base": (),
        "one": ("--lora", one),
        "halves": ("--lora", one, other, "--lora-scale", "0.5", "0.5"),
        "opposed": ("--lora", one, other, "--lora-scale", "1", "-1"),
    }.items():
        assert generate(*words, *lora) == 0
        found[name] = latents_of(tmp_path)
    assert (found["one"] - found["base"]).abs().max() > 1e-2
    torch.testing.assert_close(found["halves"], found["one"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found["opposed"], found["base"], atol=1e-5, rtol=1e-5)


def test_a_lora_of_another_model_is_named_before_anything_is_loaded(
    generate, tmp_path, tiny_pipeline, capsys, monkeypatch
):
    deeper = tmp_path / "deeper"
    shutil.copytree(tiny_pipeline, deeper)
    config = deeper / "transformer" / "config.json"
    own = json.loads(config.read_text())
    changes = {"which is not there": {"num_layers": 1}, "inputs": {"num_attention_heads": 3}}
    for complaint, change in changes.items():
        config.write_text(json.dumps(own | change))
        backbone = WanBackbone(tiny_pipeline)
        backbone.add_lora(2, 4)
        backbone.save_lora(tmp_path / "lora")
        with monkeypatch.context() as patch:
            patch.setattr("vggrpo.backbones.pipelines.backbone.load_module", None)
            words = ("--prompts", "a", "--base-model", str(deeper), "--lora", str(tmp_path / "lora"))
            assert generate(*words) == 2
        error = capsys.readouterr().err
        assert "is the LoRA of another model" in error
        assert complaint in error


def test_processes_and_batches_make_the_same_videos(generate, tmp_path, monkeypatch):
    words = ("--prompts", "a red box", "a blue sphere", "a cone", "--seeds", "0", "1")
    assert generate(*words) == 0
    whole = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.mp4")}
    assert len(whole) == 6
    shutil.rmtree(tmp_path / "out")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, count in (("1", 3), ("0", 6)):
        monkeypatch.setenv("RANK", rank)
        assert generate(*words) == 0
        assert len(list((tmp_path / "out").glob("*.mp4"))) == count
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.mp4")} == whole
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.setenv("RANK", "0")
    kept = tmp_path / "kept"
    (tmp_path / "out").rename(kept)
    assert generate(*words, "--batch-size", "4") == 0
    for name in whole:
        frames, others = (read_video(folder / name)[0].astype(int) for folder in (kept, tmp_path / "out"))
        assert abs(frames - others).max() <= 2, "rounding of the denoiser's batches"


def test_prompts_from_standard_input(generate, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("a red box\n\n  a cone \n"))
    assert generate("--prompts", "-") == 0
    assert len(list((tmp_path / "out").glob("*.mp4"))) == 2
    monkeypatch.setattr("sys.stdin", io.StringIO('\n{"id": "one", "prompt": "a red box"}\n'))
    assert generate("--prompts", "-") == 0
    assert (tmp_path / "out" / "one_seed0.mp4").is_file()
    complaints = {"\n": "standard input holds no prompts", "a\na\n": "standard input:2: the prompt"}
    for text, message in complaints.items():
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        assert generate("--prompts", "-") == 2
        assert message in capsys.readouterr().err


@pytest.fixture
def lgm(tiny_pipeline, tmp_path) -> str:
    """The folder of a latent geometry model of the pipeline."""
    tiny_latent_geometry(WanBackbone(tiny_pipeline).latent_spec).save_pretrained(tmp_path / "lgm")
    return str(tmp_path / "lgm")


def test_guidance_raises_the_reward_and_says_what_it_did(generate, tmp_path, lgm):
    words = ("--prompts", "a red box", "--num-frames", "9", "--infer-steps", "12", "--lgm-path", lgm)
    guided = ("--reward-guidance.scale", "1e6", "--reward-guidance.interval", "2")
    guided += ("--reward-guidance.norm-cap", "0.2", "--reward-guidance.start-sigma", "0.7")
    results = []
    for flags in ((), guided):
        assert generate(*words, "--overwrite", "--reward-weights.reprojection", "0", *flags) == 0
        (sidecar,) = (tmp_path / "out").glob("*.json")
        results.append(json.loads(sidecar.read_text()))
    assert results[0]["steering"]["reward_guidance"] is None
    assert results[0]["steering"]["lgm"] == results[1]["steering"]["lgm"]
    assert results[1]["steering"]["reward_guidance"]["interval"] == 2
    before, after = (content["result"]["rewards"]["camera_motion"] for content in results)
    assert after > before
    assert [step["step"] for step in results[1]["result"]["guided_steps"]] == [8, 10]


def test_a_video_is_made_again_from_its_sidecar_alone(generate, tmp_path, lgm):
    words = (
        "--prompts",
        "a red box",
        "--seeds",
        "7",
        "--num-frames",
        "9",
        "--solver",
        "sde",
        "--lgm-path",
        lgm,
    )
    assert (
        generate(*words, "--noise-scale", "0.3", "--best-of", "2", "--reward-weights.reprojection", "0") == 0
    )
    (video,) = (tmp_path / "out").glob("*.mp4")
    sidecar = json.loads(video.with_suffix(".json").read_text())
    recipe = tmp_path / "again.yaml"
    recipe.write_text(yaml.safe_dump(sidecar["settings"]))
    again = (
        "--prompts",
        sidecar["prompt"],
        "--seeds",
        str(sidecar["seed"]),
        "--output",
        str(tmp_path / "again"),
    )
    assert main(["generate", "--recipe", str(recipe), *again]) == 0
    assert (tmp_path / "again" / video.name).read_bytes() == video.read_bytes()


def test_another_latent_geometry_model_or_weight_is_another_video(generate, tmp_path, lgm, capsys):
    words = ("--prompts", "a red box", "--num-frames", "9", "--lgm-path", lgm, "--save-scene")
    assert generate(*words) == 0
    assert generate(*words, "--reward-weights.reprojection", "0") == 2
    assert "was made with another steering" in capsys.readouterr().err


def test_a_negative_prompt_without_guidance_makes_no_difference(generate, tmp_path, capsys):
    assert generate("--prompts", "a red box") == 0
    assert generate("--prompts", "a red box", "--negative-prompt", "blurry") == 0
    assert "0 videos made, 1 were there already" in capsys.readouterr().out


def test_a_camera_path_steers_the_camera(generate, tmp_path, lgm):
    words = ("--prompts", "a red box", "--num-frames", "9", "--infer-steps", "8", "--lgm-path", lgm)
    words += ("--reward-weights.camera-motion", "0", "--reward-weights.reprojection", "0")
    guided = ("--reward-guidance.scale", "1e6", "--reward-guidance.interval", "1")
    path = ("--camera-path", "truck", "--camera-amount", "0.2")
    values = []
    for flags in ((), guided):
        assert generate(*words, *path, "--overwrite", *flags) == 0
        (sidecar,) = (tmp_path / "out").glob("*.json")
        content = json.loads(sidecar.read_text())
        values.append(content["result"]["rewards"]["camera_trajectory"])
    assert values[1] > values[0]
    cameras = torch.tensor(content["steering"]["camera_path"]["camera_to_world"]).view(3, 4, 4)
    torch.testing.assert_close(cameras, truck(3, 0.2))


def test_best_of_and_scene(generate, tmp_path, lgm):
    words = ("--prompts", "a red box", "--num-frames", "9", "--lgm-path", lgm)
    words += ("--save-scene", "--save-latents")
    assert generate(*words, "--best-of", "3", "--prune-sigmas", "0.9") == 0
    (scene_file,) = (tmp_path / "out").glob("*.scene.safetensors")
    (sidecar,) = (tmp_path / "out").glob("*.json")
    content = json.loads(sidecar.read_text())
    assert len(content["result"]["best_of"]["values"]) == 2
    scene = load_scene(scene_file)
    latents = load_tensors(scene_file.with_name(scene_file.name.replace(".scene", "")))["latents"]
    with torch.no_grad():
        expected = LatentGeometryModel.from_pretrained(lgm)(latents[None])
    torch.testing.assert_close(scene.geometry.depth_z, expected.depth_z, atol=1e-5, rtol=1e-5)
    assert scene.frame_indices == (0, 4, 8)
    assert scene.prompt == "a red box"
    assert scene.rewards["camera_motion"].value == pytest.approx(
        content["result"]["rewards"]["camera_motion"], abs=1e-5
    )
    scene_file.unlink()
    assert generate(*words, "--best-of", "3", "--prune-sigmas", "0.9") == 0
    assert scene_file.is_file()


BAD_INPUT = [
    (("--prompts", "missing.txt"), "there is no prompt file missing.txt"),
    (("--prompts", "EMPTY"), "empty.txt holds no prompts"),
    (("--prompts", "a", "a"), "prompt 2 is prompt 1 again"),
    (("--prompts", "a", "--num-frames", "6"), "the autoencoder needs 4n + 1 frames; use 5 or 9"),
    (("--prompts", "a", "--height", "20"), "the denoiser needs a multiple of 8; use 16 or 24"),
    (("--prompts", "a", "--lora", "nowhere"), "there is no LoRA folder or file nowhere"),
    (("--prompts", "a", "--lora-scale", "2"), "there is no lora to scale"),
    (("--prompts", "a", "--lora", "x", "y", "--lora-scale", "2"), "1 values for 2 LoRAs"),
    (("--prompts", "a", "--base-model", "nowhere"), "nowhere"),
    (("--prompts", "a", "--noise-scale", "0.3"), "only the solver sde has noise"),
    (("--prompts", "a", "--best-of", "4"), "best_of needs a latent geometry model"),
    (("--prompts", "a", "--reward-guidance.scale", "1"), "reward_guidance.scale needs a latent"),
    (("--prompts", "a", "--save-scene"), "save_scene needs a latent geometry model"),
    (("--prompts", "a", "--lgm-path", "nowhere"), "nowhere holds no latent geometry model"),
    (("--prompts", "a", "--lgm-path", "LGM"), "use more frames"),
    (("--prompts", "a", "--lgm-path", "OTHER"), "has another autoencoder"),
    (("--prompts", "a", "--prune-sigmas", "0.5"), "best_of 1 can be halved 0 times"),
    (("--prompts", "a", "--lgm-path", "LGM", "--camera-path", "orbit"), "needs camera_amount, in degrees"),
    (("--prompts", "a", "--lgm-path", "LGM", "--camera-path", "spiral"), "expected orbit, dolly, truck, pan"),
    (("--prompts", "a", "--lgm-path", "LGM", "--camera-path", "no.json"), "there is no camera path no.json"),
    (("--prompts", "a", "--camera-amount", "3"), "there is no camera_path"),
    (("--prompts", "a", "--camera-path-unit", "scene"), "only the path of a file has lengths"),
    (("--prompts", "a", "--reward-weights.reprojection", "0"), "reward_weights need a latent geometry model"),
    (
        ("--prompts", "a", "--num-frames", "9", "--lgm-path", "LGM", "--reward-guidance.scale", "1"),
        "reward_guidance would guide no step: of 2 steps, every 20th",
    ),
    (
        (
            "--prompts",
            "a",
            "--num-frames",
            "9",
            "--lgm-path",
            "LGM",
            "--best-of",
            "8",
            "--prune-sigmas",
            "0.1",
        ),
        "each needs its own",
    ),
]


@pytest.mark.parametrize(("words", "message"), BAD_INPUT)
def test_bad_input_is_a_sentence_before_anything_is_loaded(
    generate, tmp_path, capsys, words, message, lgm, tiny_pipeline, monkeypatch
):
    other = tmp_path / "other"
    tiny_latent_geometry(
        dataclasses.replace(WanBackbone(tiny_pipeline).latent_spec, fingerprint="1" * 64)
    ).save_pretrained(other)
    (tmp_path / "empty.txt").write_text("\n")
    places = {"LGM": lgm, "OTHER": str(other), "EMPTY": str(tmp_path / "empty.txt")}
    monkeypatch.setattr("vggrpo.backbones.pipelines.backbone.load_module", None)
    monkeypatch.setattr("vggrpo.lgm.model.load_geometry_backbone", None)
    assert generate(*(places.get(word, word) for word in words)) in (1, 2)
    complaint = capsys.readouterr().err
    assert message in complaint
    assert "VGGRPO_DEBUG" not in complaint
    assert not (tmp_path / "out").exists()


def test_a_missing_encoder_is_a_sentence(generate, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("vggrpo.io.video.ENCODER", "libx265000")
    assert generate("--prompts", "a") == 2
    assert "has no encoder libx265000" in capsys.readouterr().err
