"""The scenes of the demo's report: which samples they show, in what colours, seen by whom."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tiny_models import tiny_any4d_config
from vggrpo.backbones import LatentSpec
from vggrpo.backbones.any4d import Any4D
from vggrpo.config import TrainSettings, load_recipe
from vggrpo.evaluation import EvaluationRecords, KeyFrameTeacher
from vggrpo.io import read_video, write_video
from vggrpo.training.align import sample_video
from vggrpo.training.demo.scenes import scene_pairs

SIZE = (9, 16, 16)


@pytest.fixture
def train(tmp_path: Path) -> TrainSettings:
    changes = {"output": str(tmp_path / "run"), "lgm_path": str(tmp_path / "lgm"), "iterations": 3}
    settings = load_recipe("micro/train", TrainSettings, changes)
    rng = np.random.default_rng(0)
    for iteration in (0, 3):
        for key in (("s0", 0), ("s0", 1), ("s1", 0), ("d0", 0)):
            frames = rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
            write_video(sample_video(settings.output, iteration, key), frames, 8.0, crf=0)
    return settings


@pytest.fixture
def teacher() -> KeyFrameTeacher:
    model = Any4D(tiny_any4d_config())
    model.reset_parameters(depth=3.0, generator=torch.Generator().manual_seed(0))
    spec = LatentSpec(4, 4, 4, "tiny")
    return KeyFrameTeacher(model.requires_grad_(False).eval(), spec)


def test_the_first_prompt_of_each_kind_is_shown_before_and_after(
    train: TrainSettings, teacher: KeyFrameTeacher
) -> None:
    records = EvaluationRecords(
        {
            "prompt_id": ["s0", "s0", "s1", "d0"],
            "sample": [1, 0, 0, 0],
            "kind": ["static", "static", "static", "dynamic"],
            "prompt": ["a room", "a room", "another", "a ball rolls"],
        }
    )
    pairs = scene_pairs(train, records, teacher)
    assert [[scene.prompt for scene in pair] for pair in pairs] == [["a room"] * 2, ["a ball rolls"] * 2]
    assert [[scene.label for scene in pair] for pair in pairs] == [["Before", "After"]] * 2
    for pair, key in zip(pairs, (("s0", 0), ("d0", 0)), strict=True):
        for scene, iteration in zip(pair, (0, 3), strict=True):
            assert scene.frame_indices == (0, 4, 8)
            assert scene.times == [0.0, 0.5, 1.0]
            assert set(scene.rewards) == {"camera_motion", "reprojection"}
            frames, _ = read_video(sample_video(train.output, iteration, key))
            expected = frames[::4].reshape(3, -1, 3).mean(axis=1)
            shown = scene.colours.numpy().reshape(3, -1, 3).mean(axis=1)
            np.testing.assert_allclose(shown, expected, atol=6)
