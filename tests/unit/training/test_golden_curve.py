"""A short training must draw the curve that is kept in tests/assets/golden.

A change that is meant to change the numbers records it anew, and the new file shows by how much:

    VGGRPO_RECORD_GOLDEN=1 python -m pytest tests/unit/training/test_golden_curve.py
"""

import os
from pathlib import Path

import pytest

from tiny_models import tiny_latent_geometry
from tiny_trainer import tiny_trainer
from vggrpo.config import RewardSettings
from vggrpo.io import read_json, write_json
from vggrpo.training.rewards import build_rewards

GOLDEN = Path(__file__).resolve().parents[2] / "assets" / "golden" / "train_loss.json"
RECORD = "VGGRPO_RECORD_GOLDEN"
ITERATIONS = 3
CURVES = {
    "policy/loss": 2e-7,
    "policy/kl": 1e-9,
    "policy/grad_norm": 1e-9,
    "policy/clip_frac": 0.05,
    "reward/camera_motion/mean": 0.0,
    "reward/reprojection/mean": 0.0,
    "cost/denoiser_forwards": 0.0,
    "cost/denoiser_backwards": 0.0,
}
"""Absolute tolerances. A loss is the small difference of large terms; one of 48 steps that falls on the other
side of the clip range is .02."""
RELATIVE = 2e-4
"""Rounding in other batches moves the curves by 3e-6 (the loss by 2e-8), a KL weight of .06 in place of .05
by 5e-2 (the loss by 6e-6)."""


def curve(pipeline: Path, output: Path, **changes: object) -> dict[str, list[float]]:
    """The metrics of each iteration, with the objective and rewards of the micro recipe at tiny sizes."""
    settings = {
        "num_frames": 9,
        "group_size": 8,
        "updates_per_rollout": 2,
        "iterations": ITERATIONS,
        "lr": 2e-3,
        "train_steps": 5,
        "sde_window_length": 3,
        "noise_scale": 0.3,
        "clip_eps": 1e-5,
        "kl_coef": 0.05,
    }
    trainer = tiny_trainer(pipeline, output, **(settings | changes))
    trainer.lgm = tiny_latent_geometry(trainer.policy.latent_spec)
    trainer.weights = {"camera_motion": 0.5, "reprojection": 0.5}
    options = {"relative": True, "exclude_own": True, "compare": "subpixel"}
    trainer.rewards = build_rewards(RewardSettings.model_validate({"reprojection": options}))
    trainer.train(until=ITERATIONS)
    records = trainer.run.read_metrics()
    return {name: [record[name] for record in records] for name in CURVES}


def test_a_short_training_draws_the_golden_curve(tiny_pipeline, tmp_path):
    drawn = curve(tiny_pipeline, tmp_path / "run")
    if os.environ.get(RECORD):
        write_json(GOLDEN, drawn)
        pytest.skip(f"recorded {GOLDEN}")
    golden = read_json(GOLDEN)
    assert golden.keys() == drawn.keys()
    for name, values in golden.items():
        assert drawn[name] == pytest.approx(values, rel=RELATIVE, abs=CURVES[name]), name
