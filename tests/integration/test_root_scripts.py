"""The two command lines of the method's write-up, by the scripts at the root."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from commands import captured

ROOT = Path(__file__).resolve().parents[2]
TRAIN_LGM = (
    *("--geometry-model", "any4d", "--base-model", "wan2.2-5b", "--lr", "2e-4", "--epochs", "20"),
    *("--lora-rank", "64", "--lora-alpha", "32", "--grad-clip", "1.0"),
)
TRAIN = (
    *("--base-model", "wan2.2-5b", "--lgm-path", "lgm", "--lora-rank", "32", "--lora-alpha", "64"),
    *("--lr", "1e-4", "--group-size", "64", "--train-steps", "10", "--infer-steps", "50"),
    *("--clip-eps", "1e-3", "--kl-beta", "0.004", "--grad-clip", "1.0"),
)


def run_script(name, *words, folder):
    """The script, in this process and from `folder`."""

    def run():
        arguments, sys.argv = sys.argv, [name, *map(str, words)]
        try:
            with pytest.raises(SystemExit) as exit_:
                runpy.run_path(str(ROOT / name), run_name="__main__")
        finally:
            sys.argv = arguments
        return exit_.value.code or 0

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return captured(run)


@pytest.mark.parametrize(
    ("script", "command", "flags"),
    [("train_lgm.py", "train-lgm", "--geometry-model"), ("train_vggrpo.py", "train", "--kl-coef")],
)
def test_help_is_the_commands(script, command, flags):
    result = subprocess.run(
        [sys.executable, ROOT / script, "--help"], capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    assert f"vggrpo {command}" in result.stdout
    assert flags in result.stdout


@pytest.fixture
def prompts(tmp_path):
    (tmp_path / "p.txt").write_text("a red box\na blue ball\n")
    return ("--prompts", tmp_path / "p.txt")


def test_train_lgm_ends_at_weights_that_cannot_be_fetched(tmp_path, prompts):
    flags = (*TRAIN_LGM, *prompts, "--real-videos", "world")
    outcome = run_script("train_lgm.py", *flags, folder=tmp_path)
    assert outcome.status == 1
    assert "Wan-AI/Wan2.2-TI2V-5B-Diffusers is no local folder" in outcome.err
    assert "cannot be fetched" in outcome.err
    assert "check the path, or the network and the access rights" in outcome.err


def test_train_ends_at_weights_that_cannot_be_fetched(tmp_path, prompts):
    held_out = tmp_path / "held-out.txt"
    held_out.write_text("a prompt that is not trained on\n")
    flags = (*TRAIN, *prompts, "--evaluation-prompts", str(held_out))
    outcome = run_script("train_vggrpo.py", *flags, folder=tmp_path)
    assert outcome.status == 1
    assert "Wan-AI/Wan2.2-TI2V-5B-Diffusers is no local folder" in outcome.err
    assert not (tmp_path / "runs").exists()


def test_train_lgm_without_videos_names_the_folder_to_supply(tmp_path):
    outcome = run_script("train_lgm.py", *TRAIN_LGM, folder=tmp_path)
    assert outcome.status == 2
    assert "there is no video folder videos; name yours with --real-videos" in outcome.err


def test_train_without_prompts_names_the_file_to_supply(tmp_path):
    outcome = run_script("train_vggrpo.py", *TRAIN, folder=tmp_path)
    assert outcome.status == 2
    assert "there is no prompt file prompts/train.txt" in outcome.err
