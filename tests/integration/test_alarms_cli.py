"""A training of the packaged micro family that earns its reward the wrong way is told apart, end to end."""

import json

import pytest
from commands import vggrpo

REPROJECTION_ALONE = ("--reward-weights.camera-motion", 0, "--reward-weights.reprojection", 1)
"""Scenes without objects reproject best, so objects vanish."""


@pytest.mark.slow
def test_objects_that_vanish_for_reprojection_stop_the_training(tmp_path):
    run = tmp_path / "run"
    words = ("train", "--recipe", "micro/train", "--lgm-path", "micro", "--output", run, "--eval-every", 4)
    outcome = vggrpo(*words, "--stop-on-alarm", *REPROJECTION_ALONE)
    assert outcome.status == 3, outcome.err
    alarms = json.loads((run / "alarms.json").read_text())
    assert "pixel_drift" in {alarm["name"] for alarm in alarms}
    assert any("object_presence" in alarm["sentence"] for alarm in alarms)
    assert max(alarm["iteration"] for alarm in alarms) < 24
    assert not (run / "lora").exists()
