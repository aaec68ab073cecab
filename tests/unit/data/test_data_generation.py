import dataclasses
import json

import pytest
import torch

from vggrpo.backbones.wan import WanBackbone
from vggrpo.config import ConfigError
from vggrpo.data import Prompt, SamplingSettings, Steering, make_videos, order_videos, unfinished
from vggrpo.io import load_tensors, write_video
from vggrpo.rollout import (
    BestOf,
    LatentScore,
    RewardGuidance,
    SolverSettings,
    candidate_seeds,
    sample_ode,
    sample_sde,
)

SETTINGS = SamplingSettings(num_frames=5, height=16, width=24, fps=8.0, infer_steps=3, cfg_scale=2.0)
PROMPTS = [Prompt.from_text("a red box"), Prompt("two", "a blue sphere", "static")]
PROVENANCE = {"versions": {"torch": torch.__version__}}


def mean_score(latents):
    value = latents.flatten(1).mean(dim=1)
    return LatentScore(value.detach(), value, {"mean": value.detach()})


@pytest.fixture
def backbone(tiny_pipeline):
    return WanBackbone(tiny_pipeline)


def orders(backbone, folder, settings=SETTINGS, prompts=PROMPTS, seeds=(0, 7)):
    return order_videos(prompts, seeds, folder, settings, backbone.identity())


def test_videos_are_the_odes_samples(backbone, tmp_path):
    todo = orders(backbone, tmp_path)
    make_videos(backbone, todo, SETTINGS, PROVENANCE, batch_size=3, save_latents=True)
    assert backbone._text_encoder is None
    expected = sample_ode(
        backbone,
        backbone.encode_prompts([order.prompt.text for order in todo]),
        backbone.schedule(3),
        seeds=[0, 7, 0, 7],
        latent_shape=(4, 2, 4, 6),
        cfg_scale=2.0,
        negative_prompt_embeds=backbone.encode_prompts([""])[0],
    )
    assert [order.video.name for order in todo[2:]] == ["two_seed0.mp4", "two_seed7.mp4"]
    for order, latents in zip(todo, expected, strict=True):
        torch.testing.assert_close(load_tensors(order.latents)["latents"], latents, atol=1e-5, rtol=1e-5)
        with torch.no_grad():
            decoded = backbone.decode_latents(load_tensors(order.latents)["latents"][None])[0]
        write_video(tmp_path / "again.mp4", (decoded * 255).round().to(torch.uint8), fps=8.0)
        assert order.video.read_bytes() == (tmp_path / "again.mp4").read_bytes()


def test_sidecar_says_all_that_is_needed(backbone, tmp_path):
    todo = orders(backbone, tmp_path, prompts=PROMPTS[1:], seeds=[7])
    make_videos(backbone, todo, SETTINGS, PROVENANCE)
    sidecar = json.loads((tmp_path / "two_seed7.json").read_text())
    result = sidecar.pop("result")
    assert sidecar == {
        "prompt_id": "two",
        "kind": "static",
        "prompt": "a blue sphere",
        "seed": 7,
        "num_frames": 5,
        "height": 16,
        "width": 24,
        "fps": 8.0,
        "infer_steps": 3,
        "cfg_scale": 2.0,
        "negative_prompt": "",
        "solver": {"name": "euler", "transition": "flow_sde", "noise_scale": 0.7},
        "model": backbone.identity(),
        "steering": None,
        **PROVENANCE,
    }
    assert result.pop("seconds") > 0
    assert result == {"denoiser_evaluations": 6, "guided_steps": []}
    assert not todo[0].latents.exists()


@pytest.mark.parametrize("solver", ["heun", "unipc", "sde"])
def test_other_solvers_make_other_videos(backbone, tmp_path, solver):
    settings = dataclasses.replace(SETTINGS, solver=SolverSettings(solver))
    todo = orders(backbone, tmp_path, settings, PROMPTS[:1], [7])
    make_videos(backbone, todo, settings, PROVENANCE, save_latents=True)
    arguments = {
        "seeds": [7],
        "latent_shape": (4, 2, 4, 6),
        "cfg_scale": 2.0,
        "negative_prompt_embeds": backbone.encode_prompts([""])[0],
    }
    prompt, schedule = backbone.encode_prompts([PROMPTS[0].text]), backbone.schedule(3)
    if solver == "sde":
        expected = sample_sde(backbone, prompt, schedule, **arguments)
    else:
        expected = sample_ode(backbone, prompt, schedule, solver=solver, **arguments)
    torch.testing.assert_close(load_tensors(todo[0].latents)["latents"], expected[0], atol=1e-5, rtol=1e-5)
    with pytest.raises(ConfigError, match="was made with another solver"):
        unfinished(orders(backbone, tmp_path, SETTINGS, PROMPTS[:1], [7]))


def test_best_of_n_decodes_the_winner_alone_and_says_how_it_was_chosen(backbone, tmp_path, monkeypatch):
    decoded = []
    decode = backbone.decode_latents
    monkeypatch.setattr(backbone, "decode_latents", lambda z: (decoded.append(len(z)), decode(z))[1])
    todo = orders(backbone, tmp_path, prompts=PROMPTS[:1], seeds=[7])
    steering = Steering(best_of=BestOf(4, mean_score, prune_sigmas=(0.95,)), reward=mean_score)
    make_videos(backbone, todo, SETTINGS, PROVENANCE, steering=steering, batch_size=3, save_latents=True)
    result = json.loads(todo[0].sidecar.read_text())["result"]
    chosen = result["best_of"]
    assert decoded == [1]
    assert chosen["seed"] == candidate_seeds(7, 4)[chosen["candidate"]]
    assert chosen["values"][str(chosen["candidate"])] == max(chosen["values"].values())
    assert len(chosen["values"]) == 2
    # Four candidates at the first two of three steps, two at the third; guided by a prompt: twice.
    assert result["denoiser_evaluations"] == 2 * (4 * 2 + 2 * 1)
    assert result["rewards"]["mean"] == pytest.approx(max(chosen["values"].values()), abs=1e-6)
    alone = orders(backbone, tmp_path / "alone", prompts=PROMPTS[:1], seeds=[chosen["seed"]])
    make_videos(backbone, alone, SETTINGS, PROVENANCE, save_latents=True)
    latents = [load_tensors(order.latents)["latents"] for order in (todo[0], alone[0])]
    torch.testing.assert_close(*latents, atol=1e-5, rtol=1e-5)


def test_guided_steps_are_in_the_sidecar(backbone, tmp_path):
    todo = orders(backbone, tmp_path, prompts=PROMPTS[:1])
    guidance = RewardGuidance(mean_score, 1e3, interval=1)
    make_videos(backbone, todo, SETTINGS, PROVENANCE, steering=Steering(guidance), batch_size=2)
    steps = [json.loads(order.sidecar.read_text())["result"]["guided_steps"] for order in todo]
    assert [step["step"] for step in steps[0]] == [1, 2]
    assert steps[0][0]["sigma"] == pytest.approx(backbone.schedule(3).step(1)[0])
    assert steps[0][0]["reward"] != steps[1][0]["reward"]
    assert steps[0][0]["ratio"] > 0


def test_what_was_made_is_not_made_again(backbone, tmp_path):
    todo = orders(backbone, tmp_path)
    assert unfinished(todo) == todo
    make_videos(backbone, todo[:3], SETTINGS, PROVENANCE)
    assert unfinished(todo) == todo[3:]
    assert unfinished(todo[:3], save_latents=True) == todo[:3]


def test_nothing_of_an_old_video_stays_beside_the_new_one(backbone, tmp_path):
    old = orders(backbone, tmp_path)[:1]
    make_videos(backbone, old, SETTINGS, PROVENANCE, save_latents=True)
    old[0].scene.touch()
    other = dataclasses.replace(SETTINGS, infer_steps=2)
    new = orders(backbone, tmp_path, other)[:1]
    make_videos(backbone, new, other, PROVENANCE)
    assert unfinished(new) == []
    assert unfinished(new, save_latents=True) == unfinished(new, save_scene=True) == new


def test_what_lies_beside_the_same_video_stays_when_it_is_made_again(backbone, tmp_path):
    todo = orders(backbone, tmp_path)[:1]
    make_videos(backbone, todo, SETTINGS, PROVENANCE)
    todo[0].scene.touch()
    make_videos(backbone, todo, SETTINGS, PROVENANCE, save_latents=True)
    assert unfinished(todo, save_latents=True, save_scene=True) == []


def test_an_interrupted_video_is_made_again(backbone, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    todo = orders(backbone, tmp_path)[:1]
    make_videos(backbone, todo, SETTINGS, PROVENANCE)
    with monkeypatch.context() as patched:
        patched.setattr("vggrpo.data.making.write_video", interrupted)
        with pytest.raises(KeyboardInterrupt):
            make_videos(backbone, todo, SETTINGS, PROVENANCE)
    assert unfinished(todo) == todo


def test_files_made_otherwise_are_refused(backbone, tmp_path):
    make_videos(backbone, orders(backbone, tmp_path)[:1], SETTINGS, PROVENANCE)
    other = SamplingSettings(**{**vars(SETTINGS), "cfg_scale": 1.0, "infer_steps": 4})
    with pytest.raises(
        ConfigError, match=r"seed0.mp4 exists and was made with another infer_steps, cfg_scale"
    ):
        unfinished(orders(backbone, tmp_path, other))
    todo = orders(backbone, tmp_path)
    todo[0].sidecar.write_text("{")
    with pytest.raises(ConfigError, match=r"the .*_seed0.json beside it is damaged"):
        unfinished(todo)
    todo[0].sidecar.unlink()
    with pytest.raises(ConfigError, match=r"has no .*_seed0.json beside it .* --overwrite"):
        unfinished(todo)


def test_another_model_makes_other_videos(backbone, tmp_path):
    first = order_videos(PROMPTS, [0], tmp_path, SETTINGS, {**backbone.identity(), "lora": {"scale": 1.0}})
    make_videos(backbone, first[:1], SETTINGS, PROVENANCE)
    with pytest.raises(ConfigError, match=r"was made with another model"):
        unfinished(orders(backbone, tmp_path))


def test_seeds_given_twice_are_refused(backbone, tmp_path):
    with pytest.raises(ConfigError, match=r"seeds are 1, 2, 1; give each only once"):
        orders(backbone, tmp_path, seeds=(1, 2, 1))


def test_a_size_that_the_model_cannot_make_is_refused(backbone, tmp_path):
    settings = SamplingSettings(**{**vars(SETTINGS), "height": 20})
    with pytest.raises(ValueError, match=r"height is 20, but the denoiser needs a multiple of 8"):
        make_videos(backbone, orders(backbone, tmp_path, settings), settings, PROVENANCE)
    assert backbone._text_encoder is None
