from typing import Any

import pytest

from vggrpo.config import (
    ConfigError,
    FindLayerSettings,
    GenerateSettings,
    GeometrySettings,
    LGMSettings,
    Settings,
    TrainSettings,
    TuneNoiseSettings,
    VAESettings,
    VideoSettings,
    validate,
)

CLIP = {"num_frames": 17, "height": 48, "width": 64}
TRAIN = {
    "output": "runs/a",
    "base_model": "micro",
    "geometry_model": "micro",
    "lgm_path": "runs/lgm",
    "prompts": "world",
    "evaluation_prompts": "world",
    "cfg_scale": 3,
    **CLIP,
}


def train(**changes: Any) -> TrainSettings:
    return validate(TrainSettings, {**TRAIN, **changes}, "a test")


def test_defaults_of_training_are_the_papers() -> None:
    settings = train()
    assert (settings.lr, settings.weight_decay, settings.grad_clip) == (1e-4, 1e-4, 1.0)
    assert (settings.lora_rank, settings.lora_alpha) == (32, 64)
    assert (settings.group_size, settings.clip_eps, settings.kl_coef) == (64, 1e-3, 0.004)
    assert (settings.train_steps, settings.infer_steps) == (10, 50)


def test_defaults_of_the_lgm_are_the_papers() -> None:
    values = {
        "output": "a",
        "base_model": "m",
        "geometry_model": "m",
        "real_videos": "world",
        "prompts": "world",
    }
    settings = validate(LGMSettings, {**values, **CLIP, "cfg_scale": 3}, "a test")
    assert (settings.lr, settings.weight_decay, settings.grad_clip) == (2e-4, 0.0, 1.0)
    assert (settings.lora_rank, settings.lora_alpha, settings.epochs, settings.warmup_steps) == (
        64,
        32,
        20,
        100,
    )


@pytest.mark.parametrize(
    ("changes", "window"),
    [
        ({}, range(9)),
        ({"sde_window_start": 2}, range(2, 9)),
        ({"sde_window_start": 1, "sde_window_length": 4}, range(1, 5)),
        ({"sde_window_length": 9}, range(9)),
        ({"train_steps": 2}, range(1)),
    ],
)
def test_window_never_includes_the_last_step(changes: dict[str, Any], window: range) -> None:
    assert train(**changes).sde_window == window


def test_a_window_that_moves_has_somewhere_to_go() -> None:
    anywhere = train(sde_window_moves="random", sde_window_length=4)
    assert (anywhere.window_places, anywhere.trained_steps) == (range(6), range(9))
    early = train(sde_window_moves="random", sde_window_length=2, sde_window_start=1, sde_window_stop=5)
    assert (early.window_places, early.trained_steps) == (range(1, 4), range(1, 5))
    fixed = train(sde_window_start=2, sde_window_length=3)
    assert (fixed.window_places, fixed.trained_steps) == (range(2, 3), range(2, 5))
    with pytest.raises(ConfigError, match=r"a window of 9 steps has less than two places in .* \[0, 9\)"):
        train(sde_window_moves="slides")
    with pytest.raises(ConfigError, match=r"a window of 2 steps has less than two places in .* \[3, 5\)"):
        train(sde_window_moves="random", sde_window_start=3, sde_window_length=2, sde_window_stop=5)
    with pytest.raises(ConfigError, match=r"sde_window_stop is 10, but of 10 train_steps only \[0, 9\) can"):
        train(sde_window_moves="slides", sde_window_length=2, sde_window_stop=10)
    with pytest.raises(ConfigError, match="sde_window_stop is 5, but sde_window_moves is never"):
        train(sde_window_length=2, sde_window_stop=5)


def test_no_more_members_are_held_than_an_update_has() -> None:
    changes = {"group_size": 16, "updates_per_rollout": 2}
    assert train(**changes, off_window_members=8).off_window_members == 8
    with pytest.raises(ConfigError, match="off_window_members is 9, but an update has 8 members of a group"):
        train(**changes, off_window_members=9)


def test_batches_may_differ_in_bfloat16_where_all_members_are_scored_in_one_pass() -> None:
    changes = {"precision": "bfloat16", "group_size": 16, "updates_per_rollout": 1, "update_batch": 16}
    assert train(**changes, sde_window_length=1, shared_noise=True).update_batch == 16
    for other in ({"sde_window_length": 2, "shared_noise": True}, {"sde_window_length": 1}):
        with pytest.raises(ConfigError, match="rollout_batch is 8, update_batch 16, but in bfloat16"):
            train(**changes, **other)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"sde_window_length": 10},
            r"steps \[0, 10\), but of 10 train_steps only \[0, 9\) can be stochastic",
        ),
        ({"sde_window_start": 9}, r"steps \[9, 9\)"),
        ({"sde_window_start": 20}, r"steps \[20, 9\)"),
        ({"train_steps": 1}, "train_steps: is 1; should be greater than or equal to 2"),
        ({"group_size": 1}, "group_size: is 1; should be greater than or equal to 2"),
        ({"group_size": 6, "updates_per_rollout": 4}, "updates_per_rollout is 4, but a group of 6"),
        ({"cfg_scale": 0.5}, "cfg_scale: is 0.5; should be greater than or equal to 1"),
        ({"reward_weights": {"camera_motion": 0, "reprojection": 0}}, "reward_weights are all 0"),
    ],
)
def test_impossible_combinations(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        train(**changes)


@pytest.mark.parametrize(
    "model",
    [
        TrainSettings,
        LGMSettings,
        FindLayerSettings,
        GenerateSettings,
        TuneNoiseSettings,
        VAESettings,
        GeometrySettings,
        VideoSettings,
    ],
)
def test_guidance_and_output_are_always_stated(model: type[Settings]) -> None:
    assert model.model_fields["output"].is_required()
    if "cfg_scale" in model.model_fields:
        assert model.model_fields["cfg_scale"].is_required()
