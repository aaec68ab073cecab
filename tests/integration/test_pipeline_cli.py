"""Layer search, latent geometry model, post-training and generation, by their commands in turn."""

import json
import math

import pytest
import torch
from commands import vggrpo
from diffusers import WanPipeline
from safetensors import safe_open

from vggrpo.backbones import load_video_backbone
from vggrpo.config import resolve_model
from vggrpo.evaluation import EvaluationRecords, LGMGate
from vggrpo.io import load_tensors, read_records, read_video, verify_manifest
from vggrpo.lgm import LatentGeometryModel
from vggrpo.training.lgm_data import weights_fingerprint
from vggrpo.viewer import load_scene

SAMPLES = 2


def test_find_layer_writes_table_plot_and_figures(pipeline):
    assert pipeline.find_layer.status == 0, pipeline.find_layer.err
    folder = pipeline.folder / "layers"
    search = json.loads((folder / "layer_search.json").read_text())
    assert (folder / "layer_search.png").read_bytes().startswith(b"\x89PNG")
    assert {"E0", "E1"} <= set(json.dumps(search).split('"'))
    assert all(name in pipeline.find_layer.out for name in ("E0", "E1", str(folder)))


def test_stages_share_the_clips(pipeline):
    assert "real clips: 6 clips to do" in pipeline.find_layer.err
    assert pipeline.train_lgm.status == 0, pipeline.train_lgm.err
    assert not any(line.startswith("real clips: 6") for line in pipeline.train_lgm.err.splitlines())
    kinds = {"real", "real-held-out", "real-blocks", "generated", "generated-held-out", "generated-blocks"}
    assert {path.name for path in (pipeline.folder / "clips").iterdir()} == {*kinds, "text"}


def test_the_lgm_loads_and_fits_the_video_model(pipeline):
    assert pipeline.train_lgm.status == 0, pipeline.train_lgm.err
    model = LatentGeometryModel.from_pretrained(pipeline.folder / "lgm" / "model")
    backbone = load_video_backbone("micro")
    model.check_latents(backbone.latent_spec)
    assert model.stitch_point == "E1"
    assert model.adaptation == {"trainable": "lora", "rank": 2, "alpha": 32}
    scene = model(torch.randn(1, *backbone.latent_shape(17, 48, 64)))
    assert scene.depth_z.shape == (1, 5, 48, 64)
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_the_lgms_quality_is_measured_before_and_after(pipeline):
    before, after = (
        json.loads((pipeline.folder / "lgm" / name).read_text())
        for name in ("untrained_quality.json", "quality.json")
    )
    assert before.keys() == after.keys() == {"real", "generated"}
    assert before != after
    for quality in after.values():
        assert quality["agreement"]["depth_abs_rel"] > 0
        assert quality["spearman"].keys() == {"camera_motion", "reprojection"}
    records = read_records(pipeline.folder / "lgm" / "metrics.jsonl")
    assert [r["step"] for r in records if "lgm/generated/depth_abs_rel" in r] == [3, 5]
    assert {"loss", "grad_norm", "lgm/depth", "lgm/rotation"} <= set(records[-2])
    assert all(math.isfinite(r["loss"]) for r in records if "loss" in r)


def test_the_gate_is_measured_and_printed_by_train(pipeline):
    run = pipeline.folder / "lgm"
    gate = LGMGate.load(run / "model")
    assert gate.weights == weights_fingerprint(LatentGeometryModel.from_pretrained(run / "model"))
    assert (run / "gate.json").read_bytes() == (run / "model" / "gate.json").read_bytes()
    assert (run / "gate.png").read_bytes().startswith(b"\x89PNG")
    for quality in (gate.generated, gate.real):
        for agreement in quality.rewards.values():
            assert agreement.share.count + agreement.share.missing == 3
    assert pipeline.train.status == 0, pipeline.train.err
    assert pipeline.train.out.startswith(f"gate of the latent geometry model in {run / 'model'}")
    assert "ceiling" in pipeline.train.out


def test_training_steps_are_clips_times_epochs_over_batch(pipeline):
    assert (pipeline.folder / "lgm" / "checkpoints" / "step_000005").is_dir()


def test_train_starts_on_policy_and_at_the_base_model(pipeline):
    assert pipeline.train.status == 0, pipeline.train.err
    records = read_records(pipeline.folder / "train" / "metrics.jsonl")
    updates = [record for record in records if "policy/loss" in record]
    assert [record["step"] for record in updates] == [1, 2, 3]
    assert updates[-1]["policy/kl"] > 0
    for record in updates:
        assert {
            *("reward/camera_motion/mean", "reward/camera_motion/std", "reward/reprojection/mean"),
            *("group/frac_zero_std", "group/frac_invalid", "policy/ratio_mean", "policy/clip_frac"),
            *("time/rollout", "time/score", "time/update"),
        } <= set(record)


def test_the_first_iteration_alone_is_exactly_on_policy(pipeline, tmp_path):
    flags = (*pipeline.train_flags, "--iterations", 1, "--updates-per-rollout", 1)
    assert vggrpo("train", "--output", tmp_path / "one", *flags).status == 0
    first = next(r for r in read_records(tmp_path / "one" / "metrics.jsonl") if "policy/kl" in r)
    assert first["policy/ratio_deviation"] <= 1e-6
    assert first["policy/kl"] == 0.0


def test_evaluations_are_there_at_the_start_and_at_the_end(pipeline):
    run = pipeline.folder / "train"
    assert [path.name for path in sorted((run / "evaluations").iterdir())] == [
        f"step_{iteration:06d}.json" for iteration in (0, 2, 3)
    ]
    start, end = (EvaluationRecords.load(run / "evaluations" / f"step_00000{i}.json") for i in (0, 3))
    assert len(start) == len(end) == SAMPLES
    assert start.keys == end.keys
    assert (start.values("flow_magnitude") != end.values("flow_magnitude")).any()
    assert {"lgm/camera_motion", "teacher/reprojection", "flow_jerk", "diversity"} <= set(start.metrics)
    logged = [r["step"] for r in read_records(run / "metrics.jsonl") if "evaluation/lgm/camera_motion" in r]
    assert logged == [0, 2, 3]
    videos = sorted((run / "samples" / "step_000003").iterdir())
    assert len(videos) == SAMPLES
    assert read_video(videos[0])[0].shape == (17, 48, 64, 3)


def test_the_newest_checkpoints_are_kept_whole(pipeline):
    checkpoints = sorted((pipeline.folder / "train" / "checkpoints").iterdir())
    assert [path.name for path in checkpoints] == ["step_000002", "step_000003"]
    for checkpoint in checkpoints:
        verify_manifest(checkpoint)
    final = pipeline.folder / "train" / "lora" / "pytorch_lora_weights.safetensors"
    ours, theirs = load_tensors(final), load_tensors(checkpoints[-1] / "lora" / final.name)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_plain_diffusers_gives_our_policy(pipeline):
    folder = pipeline.folder / "train" / "lora"
    pipe = WanPipeline.from_pretrained(resolve_model("micro", "video").folder)
    pipe.load_lora_weights(folder)
    policy = load_video_backbone("micro")
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn((2, *policy.latent_shape(17, 48, 64)), generator=generator)
    embeds = policy.encode_prompts(["a red box", "a blue ball"])
    with torch.no_grad():
        clean = pipe.transformer(latents, torch.full((2,), 700.0), embeds, return_dict=False)[0]
        theirs = (latents - clean) / 0.7  # the micro denoiser predicts clean latents
        base = policy.velocity(latents, 0.7, embeds)
        policy.load_lora(folder)
        ours = policy.velocity(latents, 0.7, embeds)
    torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-5)
    assert (ours - base).abs().max() > 100 * (ours - theirs).abs().max()
    assert (ours - base).abs().max() > 1e-4
    with safe_open(folder / "pytorch_lora_weights.safetensors", "pt") as file:
        assert "lora_alpha" in json.dumps(file.metadata())


def test_generate_uses_the_lora(pipeline):
    command = ("generate", "--prompts", "a red box", "--infer-steps", 2, "--save-latents")
    aligned = vggrpo(
        *command, "--output", pipeline.folder / "aligned", "--lora", pipeline.folder / "train" / "lora"
    )
    base = vggrpo(*command, "--output", pipeline.folder / "base")
    assert (aligned.status, base.status) == (0, 0), aligned.err + base.err
    latents, sidecars = [], []
    for name in ("aligned", "base"):
        (video,) = (pipeline.folder / name).glob("*.mp4")
        assert read_video(video)[0].shape == (17, 48, 64, 3)
        latents.append(load_tensors(video.with_suffix(".safetensors"))["latents"])
        sidecars.append(json.loads(video.with_suffix(".json").read_text()))
    assert not torch.equal(latents[0], latents[1])
    assert "lora" in sidecars[0]["model"]
    assert "lora" not in sidecars[1]["model"]


def test_reconstruct_sees_the_scene_that_generate_saves(pipeline, tmp_path):
    lgm = ("--lgm-path", pipeline.folder / "lgm" / "model")
    made = vggrpo(
        *("generate", "--prompts", "a red box", "--infer-steps", 2, "--output", tmp_path / "videos", *lgm),
        *("--save-latents", "--save-scene"),
    )
    assert made.status == 0, made.err
    (video,) = (tmp_path / "videos").glob("*.mp4")
    latents, scene = video.with_suffix(".safetensors"), load_scene(video.with_suffix(".scene.safetensors"))
    outcome = vggrpo("reconstruct", latents, "--output", tmp_path / "scene", *lgm, "--export", "ply", "depth")
    assert outcome.status == 0, outcome.err
    again = load_scene(tmp_path / "scene" / "scene.safetensors")
    for name, tensor in scene.geometry.as_dict().items():
        torch.testing.assert_close(again.geometry.as_dict()[name], tensor, equal_nan=True, msg=name)
    assert (again.colours.int() - scene.colours.int()).abs().max() <= 1
    assert (again.prompt, again.fps, again.frame_indices) == ("a red box", 8.0, (0, 4, 8, 12, 16))
    assert again.rewards.keys() == {"camera_motion", "reprojection"}
    assert (tmp_path / "scene" / "points.ply").read_bytes().startswith(b"ply")


@pytest.mark.parametrize("command", ["find-layer", "train-lgm", "train"])
def test_a_run_is_refused_the_second_time(pipeline, command):
    run = {"find-layer": "layers", "train-lgm": "lgm", "train": "train"}[command]
    before = (pipeline.folder / run / "config.yaml").read_bytes()
    flags = {"find-layer": pipeline.clips, "train-lgm": pipeline.lgm_flags, "train": pipeline.train_flags}
    outcome = vggrpo(command, "--output", pipeline.folder / run, *flags[command])
    assert outcome.status == 1
    assert "already holds a run; add --resume to continue it" in outcome.err
    assert (pipeline.folder / run / "config.yaml").read_bytes() == before


def test_train_lgm_goes_on_from_a_model_it_made(pipeline, tmp_path):
    first = pipeline.folder / "lgm"
    outcome = vggrpo(
        "train-lgm", "--output", tmp_path / "more", *pipeline.lgm_flags, "--init", first / "model"
    )
    assert outcome.status == 0, outcome.err
    assert not (tmp_path / "more" / "layer_search.json").exists()
    begins = json.loads((tmp_path / "more" / "untrained_quality.json").read_text())["real"]["agreement"]
    ended = json.loads((first / "quality.json").read_text())["real"]["agreement"]
    assert begins == pytest.approx(ended, rel=1e-3)
    assert (tmp_path / "more" / "model" / "manifest.json").is_file()


def test_train_lgm_goes_on_at_the_same_stitch_point_only(pipeline, tmp_path):
    flags = [*pipeline.lgm_flags, "--init", pipeline.folder / "lgm" / "model", "--stitch-point", "E0"]
    outcome = vggrpo("train-lgm", "--output", tmp_path / "more", *flags)
    assert outcome.status == 2
    assert "stitch_point is E0, but init" in outcome.err
    assert not (tmp_path / "more").exists()
