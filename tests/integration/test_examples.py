"""The examples, run as they stand on tiny models; and what the pipeline of one of them promises."""

import json
import runpy
import shutil
import sys
from pathlib import Path

import pytest
import torch
from diffusers import WanPipeline

from tiny_models import tiny_latent_geometry, tiny_wan
from vggrpo.backbones.wan import WanBackbone
from vggrpo.io import read_video, save_tensors
from vggrpo.rewards import CameraMotionReward
from vggrpo.rollout import LatentReward, LatentScore, RewardGuidance, sample_ode
from vggrpo.rollout.pipeline import VGGRPOPipeline

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CALL = {"num_frames": 9, "height": 32, "width": 48, "num_inference_steps": 4, "output_type": "latent"}
SIZE = ("--num-frames", "9", "--height", "32", "--width", "48", "--steps", "4")
SHAPE = (16, 3, 4, 6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny Wan2.1 pipeline in "video", and a latent geometry model of its latents in "lgm"."""
    folder = tmp_path_factory.mktemp("examples")
    tiny_wan(folder / "video", "wan2.1")
    tiny_latent_geometry(WanBackbone(folder / "video").latent_spec).save_pretrained(folder / "lgm")
    return folder


@pytest.fixture
def pipeline(folder):
    pipeline = VGGRPOPipeline.from_pretrained(folder / "video")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def run(monkeypatch, name, *words):
    monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")


def test_reward_guidance_writes_a_video(folder, tmp_path, monkeypatch):
    videos = []
    for scale in ("0", "1e6"):
        video = tmp_path / f"{scale}.mp4"
        words = ("--lgm", folder / "lgm", "--model", folder / "video", *SIZE, "--output", video)
        run(monkeypatch, "reward_guidance.py", *words, "--scale", scale, "--interval", "1")
        videos.append(read_video(video)[0])
    assert videos[0].shape == (9, 32, 48, 3)
    assert (videos[0] != videos[1]).any()


def test_latent_geometry_prints_a_scene(folder, tmp_path, monkeypatch, capsys):
    save_tensors(tmp_path / "latents.safetensors", {"latents": torch.randn(*SHAPE)})
    run(monkeypatch, "latent_geometry.py", folder / "lgm", tmp_path / "latents.safetensors")
    assert "depth torch.Size([1, 3, 8, 12])" in capsys.readouterr().out


def mean_score(latents):
    value = latents.flatten(1).mean(dim=1)
    return LatentScore(value.detach(), value, {})


def call(pipeline, **changes):
    arguments = {**CALL, "generator": torch.Generator().manual_seed(0), "guidance_scale": 1.0, **changes}
    return pipeline("a red box", **arguments).frames


def test_without_guidance_it_is_the_wan_pipeline(folder, pipeline):
    plain = WanPipeline.from_pretrained(folder / "video")
    plain.set_progress_bar_config(disable=True)
    for guidance_scale in (1.0, 4.0):
        expected = call(plain, guidance_scale=guidance_scale)
        for guidance in (None, RewardGuidance(mean_score, 0.0, interval=1)):
            actual = call(pipeline, guidance_scale=guidance_scale, reward_guidance=guidance)
            assert torch.equal(actual, expected)
    call(pipeline, reward_guidance=RewardGuidance(mean_score, 1e3, interval=1))
    assert torch.equal(call(pipeline), call(plain)), "guidance leaves the scheduler as it was"


@pytest.mark.parametrize(
    ("kind", "prediction", "through", "guidance_scale"),
    [
        ("wan2.1", "flow_prediction", "x0_pred", 1.0),
        ("wan2.1", "flow_prediction", "denoiser", 4.0),
        ("wan2.1", "sample", "x0_pred", 1.0),
        ("wan2.1", "sample", "denoiser", 4.0),
        ("wan2.2", "flow_prediction", "denoiser", 4.0),
    ],
)
def test_it_guides_as_the_sampler_does(
    folder, tmp_path, kind, prediction, through, guidance_scale, monkeypatch
):
    """On the pipeline's grid with float timesteps, which diffusers cuts to integers; one of Wan2.2-5B's kind
    gives its denoiser a timestep for each token."""
    model = tmp_path / "video"
    if kind == "wan2.1":
        shutil.copytree(folder / "video", model)
    else:
        tiny_wan(model, kind)
    config = model / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"prediction_type": prediction}))
    pipeline = VGGRPOPipeline.from_pretrained(model)
    pipeline.set_progress_bar_config(disable=True)
    set_timesteps = pipeline.scheduler.set_timesteps

    def with_float_timesteps(*args, **kwargs):
        set_timesteps(*args, **kwargs)
        pipeline.scheduler.timesteps = 1000 * pipeline.scheduler.sigmas[:-1]

    monkeypatch.setattr(pipeline.scheduler, "set_timesteps", with_float_timesteps)
    timesteps = []
    pipeline.transformer.register_forward_pre_hook(
        lambda _, args, kwargs: timesteps.append(kwargs.get("timestep", args[1] if args[1:] else None)),
        with_kwargs=True,
    )
    backbone = WanBackbone(model)
    lgm = tiny_latent_geometry(backbone.latent_spec)
    reward = LatentReward(lgm, {"camera_motion": CameraMotionReward()}, {"camera_motion": 1.0})
    guidance = RewardGuidance(reward, 20.0, interval=2, through=through, norm_cap=None)
    shape = (backbone.latent_spec.channels, *SHAPE[1:])
    noises = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    expected = {
        guided: sample_ode(
            backbone,
            backbone.encode_prompts(["a red box"]),
            backbone.schedule(4),
            noises=noises,
            cfg_scale=guidance_scale,
            negative_prompt_embeds=backbone.encode_prompts([""])[0],
            solver="unipc",
            guidance=guidance if guided else None,
        )
        for guided in (True, False)
    }
    actual = call(
        pipeline,
        latents=noises,
        guidance_scale=guidance_scale,
        reward_guidance=guidance,
        max_sequence_length=backbone.encode_prompts([""]).shape[1],
        **({"height": 64, "width": 96} if kind == "wan2.2" else {}),
    )
    assert timesteps[0].ndim == (2 if kind == "wan2.2" else 1)
    assert (expected[True] - expected[False]).abs().max() > 1e-3
    torch.testing.assert_close(actual, expected[True], rtol=1e-3, atol=1e-4)


def test_schedulers_of_no_flow_and_two_denoisers_are_refused(pipeline):
    pipeline.register_to_config(boundary_ratio=0.5)
    with pytest.raises(ValueError, match="two denoisers"):
        call(pipeline, reward_guidance=RewardGuidance(mean_score, 1.0, through="denoiser"))
    pipeline.register_to_config(boundary_ratio=None)
    pipeline.scheduler.register_to_config(prediction_type="epsilon")
    with pytest.raises(ValueError, match="needs a rectified flow"):
        call(pipeline, reward_guidance=RewardGuidance(mean_score, 1.0))
