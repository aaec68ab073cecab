"""Wrong prompts, recipes and sizes: a sentence, before any work."""

import shutil

import pytest

from vggrpo.config import recipe_path


@pytest.mark.parametrize("flag", ["--prompts", "--evaluation-prompts"])
def test_a_missing_prompt_file(vggrpo, train, tmp_path, flag):
    outcome = vggrpo(*train, flag, tmp_path / "none.txt")
    outcome.is_a_sentence(2, f"there is no prompt file {tmp_path / 'none.txt'}")
    assert not (tmp_path / "run").exists()


def test_an_empty_prompt_file(vggrpo, train, tmp_path):
    (tmp_path / "empty.txt").write_text("\n  \n")
    vggrpo(*train, "--prompts", tmp_path / "empty.txt").is_a_sentence(2, "empty.txt holds no prompts")
    assert not (tmp_path / "run").exists()


def test_duplicate_ids(vggrpo, train, tmp_path):
    lines = [
        '{"id": "a", "prompt": "one box"}',
        '{"id": "b", "prompt": "two"}',
        '{"id": "a", "prompt": "three"}',
    ]
    (tmp_path / "twice.jsonl").write_text("\n".join(lines))
    outcome = vggrpo(*train, "--prompts", tmp_path / "twice.jsonl")
    outcome.is_a_sentence(2, "twice.jsonl:3: the id 'a' is that of line 1 again")
    assert not (tmp_path / "run").exists()


def test_a_misspelt_setting_in_a_recipe(vggrpo, tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(recipe_path("micro/train").read_text() + "grop_size: 8\nlora_rnk: 4\n")
    outcome = vggrpo("train", "--recipe", recipe, "--output", tmp_path / "run")
    outcome.is_a_sentence(2, "2 problems", "grop_size: unknown setting; did you mean group_size?")
    assert "lora_rnk: unknown setting; did you mean lora_rank?" in outcome.err
    assert "line " in outcome.err


def test_a_misspelt_recipe(vggrpo, tmp_path):
    outcome = vggrpo("train", "--recipe", "micro/trian", "--output", tmp_path / "run")
    outcome.is_a_sentence(2, "micro/trian is neither a recipe nor a file; did you mean micro/train?")


def test_a_misspelt_model(vggrpo, train, tmp_path):
    vggrpo(*train, "--geometry-model", "mirco").is_a_sentence(2, "mirco", "did you mean micro?")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (("--num-frames", 16), "num_frames is 16, but the autoencoder needs 4n + 1 frames; use 13 or 17"),
        (("--height", 50), "height is 50"),
    ],
)
def test_a_clip_size_that_the_autoencoder_cannot_take(vggrpo, train, tmp_path, flags, part):
    outcome = vggrpo(*train, *flags)
    assert outcome.status in (1, 2)
    outcome.is_a_sentence(outcome.status, part)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["find-layer", "train-lgm"])
def test_the_same_for_clips_of_the_latent_geometry_model(vggrpo, tmp_path, command):
    outcome = vggrpo(command, "--output", tmp_path / "run", "--num-frames", 18)
    assert outcome.status in (1, 2)
    outcome.is_a_sentence(outcome.status, "num_frames is 18", "use 17 or 21")
    assert not list(tmp_path.rglob("*.safetensors"))


def test_contradicting_settings_are_all_named(vggrpo, train, tmp_path):
    outcome = vggrpo(*train, "--group-size", 3, "--updates-per-rollout", 2)
    outcome.is_a_sentence(2, "a group of 3 (group_size) cannot be split")
    outcome = vggrpo(*train, "--lr", "-1", "--group-size", 1)
    outcome.is_a_sentence(2, "2 problems", "lr: ", "group_size: ")
    assert not (tmp_path / "run").exists()


def test_autoencoder_training_of_impossible_crops(vggrpo, tmp_path):
    flags = ("--crop-frames", 8, "--crop-size", 96, "--clips.height", 50)
    outcome = vggrpo("world", "train-vae", "--output", tmp_path / "run", *flags)
    outcome.is_a_sentence(
        2, "crop_frames is 8, expected a multiple of 4 plus 1", "crop_size is 96, but a clip has 50"
    )
    assert "clips.height is 50, expected a multiple of 4" in outcome.err
    assert not (tmp_path / "run").exists()


def test_no_clips_to_train_on(vggrpo, tmp_path):
    outcome = vggrpo("train-lgm", "--output", tmp_path / "run", "--real-clips", 0, "--generated-clips", 0)
    outcome.is_a_sentence(2, "real_clips and generated_clips are both 0")
    assert not (tmp_path / "run").exists()


def test_a_run_folder_that_holds_something_else(vggrpo, train, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("years")
    vggrpo(*train).is_a_sentence(1, "is not an empty folder; choose another --output")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.txt"]
    shutil.rmtree(tmp_path / "run")
