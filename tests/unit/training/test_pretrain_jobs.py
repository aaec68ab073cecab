"""The trainings of the base models: a few real steps each, at the smallest sizes."""

import math

import pytest
import torch
from diffusers import WanPipeline

from documented_metrics import undefined
from vggrpo.backbones import load_geometry_backbone, load_video_backbone
from vggrpo.backbones.wan import load_vae
from vggrpo.config import ConfigError, GeometrySettings, VAESettings, VideoSettings
from vggrpo.geometry import matrix_to_quat_xyzw
from vggrpo.io import read_records
from vggrpo.training.pretrain.geometry import (
    GeometryJob,
    camera_loss,
    initial_geometry,
    train_geometry,
    true_rays,
)
from vggrpo.training.pretrain.pool import ClipPool, to_float, to_uint8
from vggrpo.training.pretrain.vae import VAEJob, psnr, random_crops, train_vae
from vggrpo.training.pretrain.video import VideoJob, train_video
from vggrpo.world import render_clips, sample_scene

CLIPS = {"num_frames": 5, "height": 16, "width": 16}


def loop(**changes):
    values = {"steps": 4, "batch_size": 2, "lr": 2e-3, "warmup_steps": 1, "log_every": 1}
    return values | {"evaluate_every": 4, "checkpoint_every": 2} | changes


def vae_settings(output, **changes):
    values = {
        "output": output,
        "clips": CLIPS,
        "loop": loop(),
        "architecture": {"base_dim": 4, "dim_mult": [1, 2, 2], "z_dim": 4},
        "num_clips": 4,
        "crop_frames": 5,
        "crop_size": 8,
        "full_share": 0.5,
        "full_batch_size": 1,
    }
    return VAESettings.model_validate(values | changes)


def geometry_settings(output, **changes):
    values = {
        "output": output,
        "clips": CLIPS,
        "loop": loop(),
        "clip_window": 4,
        "fresh_clips": 1,
        "dense_every": 2,
        "matching_blocks": [2],
        "architecture": {
            "encoder_dim": 16,
            "encoder_depth": 2,
            "encoder_heads": 2,
            "position_grid": 4,
            "multi_view_dim": 16,
            "multi_view_depth": 4,
            "multi_view_heads": 2,
            "multi_view_hooks": [1, 2],
            "dpt_features": 8,
            "dpt_layer_dims": [4, 8, 8, 8],
            "scale_dim": 8,
        },
    }
    return GeometrySettings.model_validate(values | changes)


def video_settings(output, vae, **changes):
    values = {
        "output": output,
        "clips": CLIPS,
        "vae": vae,
        "num_clips": 4,
        "loop": loop(ema_decay=0.9),
        "architecture": {
            "num_attention_heads": 2,
            "attention_head_dim": 12,
            "num_layers": 1,
            "ffn_dim": 16,
            "text_dim": 16,
            "text_layers": 1,
        },
    }
    return VideoSettings.model_validate(values | changes)


@pytest.fixture(scope="module")
def vae_run(tmp_path_factory):
    output = tmp_path_factory.mktemp("vae") / "run"
    return output, train_vae(vae_settings(output))


def names_of(records):
    return {name for record in records for name in record} - {"step"}


def losses_of_repeated_step(job, steps, number=0):
    """The loss of one step's batch while training on nothing else; asserts that no gradient is NaN."""
    optimizers, losses = job.optimizers(), []
    for _ in range(steps):
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss, _ = job.loss(number)
        loss.backward()
        gradients = [
            p.grad for module in job.modules().values() for p in module.parameters() if p.grad is not None
        ]
        assert gradients
        assert all(gradient.isfinite().all() for gradient in gradients)
        for optimizer in optimizers:
            optimizer.step()
        losses.append(loss.item())
    return losses


def test_vae_folder_loads_with_measured_statistics(vae_run):
    output, folder = vae_run
    vae = load_vae(folder)
    mean, std = torch.tensor(vae.config.latents_mean), torch.tensor(vae.config.latents_std)
    frames = ClipPool("train", 4, vae_settings(output).clips).frames
    latents = vae.encode((to_float(frames) * 2 - 1).movedim(-1, 1)).latent_dist.mode()
    torch.testing.assert_close(latents.mean(dim=(0, 2, 3, 4)), mean, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(latents.std(dim=(0, 2, 3, 4)), std, rtol=1e-3, atol=1e-4)


def test_vae_metrics(vae_run):
    records = read_records(vae_run[0] / "metrics.jsonl")
    assert {"loss", "vae/l1", "vae/kl", "vae/psnr_train"} <= set(records[0])
    assert [r["step"] for r in records if "vae/psnr" in r] == [4]
    assert all(math.isfinite(r["loss"]) for r in records if "loss" in r)
    assert undefined(names_of(records)) == []


def test_vae_loss_falls(tmp_path):
    losses = losses_of_repeated_step(VAEJob(vae_settings(tmp_path)), 30)
    assert losses[-1] < 0.8 * losses[0]


def test_vae_kl_is_per_latent_number(tmp_path):
    job = VAEJob(vae_settings(tmp_path))
    with torch.no_grad():
        posterior = job.vae.encode(job._batch(1)).latent_dist
        _, logged = job.loss(1)
    terms = posterior.mean.square() + posterior.var - 1 - posterior.logvar
    assert logged["vae/kl"] == pytest.approx(0.5 * terms.mean().item(), rel=1e-4)


def test_vae_steps_see_crops_and_then_whole_clips(tmp_path):
    job = VAEJob(vae_settings(tmp_path))
    assert [tuple(job._batch(step).shape) for step in (1, 2)] == [(2, 3, 5, 8, 8), (1, 3, 5, 16, 16)]
    assert torch.equal(job._batch(1), job._batch(1))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"crop_frames": 4}, "crop_frames is 4, expected a multiple of 4 plus 1"),
        ({"crop_frames": 9}, "crop_frames is 9, but a clip has 5"),
        ({"crop_size": 20}, "crop_size is 20, but a clip has 16"),
        ({"crop_size": 6}, "crop_size is 6, expected a multiple of 4"),
        ({"clips": CLIPS | {"num_frames": 8}}, "clips.num_frames is 8, expected a multiple of 4 plus 1"),
    ],
)
def test_vae_sizes_that_do_not_fit_are_named_before_any_work(tmp_path, changes, sentence):
    with pytest.raises(ConfigError, match=sentence):
        train_vae(vae_settings(tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


def test_random_crops_are_parts_of_their_clips():
    frames = torch.arange(2 * 5 * 6 * 7 * 3).view(2, 5, 6, 7, 3)
    crops = random_crops(frames, 2, 3, torch.Generator().manual_seed(0))
    for clip, crop in zip(frames, crops, strict=True):
        first = int(crop[0, 0, 0, 0]) - int(clip[0, 0, 0, 0])
        t, y, x = first // 126, first % 126 // 21, first % 21 // 3
        assert torch.equal(crop, clip[t : t + 2, y : y + 3, x : x + 3])


def test_psnr_of_a_known_error():
    assert float(psnr(torch.tensor(4.0))) == 0.0
    assert float(psnr(torch.tensor(4e-3))) == pytest.approx(30.0)


def test_pool_holds_the_worlds_clips(tmp_path):
    pool = ClipPool("train", 3, vae_settings(tmp_path).clips)
    clips = render_clips([sample_scene("train", i) for i in range(3)], **CLIPS)
    assert torch.equal(pool.frames, to_uint8(clips.frames))
    assert pool.captions == list(clips.captions)
    assert torch.equal(pool.draw(8, "seed", 1), pool.draw(8, "seed", 1))
    assert pool.draw(100, "seed", 2).unique().tolist() == [0, 1, 2]


def test_video_model_trains_and_is_a_complete_pipeline(vae_run, tmp_path):
    folder = train_video(video_settings(tmp_path / "run", vae_run[1]))
    records = read_records(tmp_path / "run" / "metrics.jsonl")
    assert [r["step"] for r in records if "video/validation_loss" in r] == [4]
    assert undefined(names_of(records)) == []
    WanPipeline.from_pretrained(folder)
    backbone = load_video_backbone(folder)
    embeds = backbone.encode_prompts(["a red box"])
    latents = torch.zeros(1, *backbone.latent_shape(5, 16, 16))
    assert backbone.velocity(latents, 0.5, embeds).isfinite().all()


def test_a_missing_autoencoder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="none"):
        train_video(video_settings(tmp_path / "run", tmp_path / "none"))
    assert not (tmp_path / "run").exists()


def test_geometry_model_trains_and_its_folder_loads(tmp_path):
    folder = train_geometry(geometry_settings(tmp_path / "run"))
    records = read_records(tmp_path / "run" / "metrics.jsonl")
    (evaluation,) = [r for r in records if "geometry/validation_depth_abs_rel" in r]
    assert {"geometry/validation_rotation_deg", "geometry/validation_moving_epe"} <= set(evaluation)
    dense = [r["step"] for r in records if "geometry/rays" in r]
    assert dense == [1, 3]
    assert {"geometry/attention", "geometry/confidence"} <= names_of(records)
    assert undefined(names_of(records)) == []
    scene = load_geometry_backbone(folder)(torch.rand(1, 2, 16, 16, 3))
    assert scene.depth_z.shape == (1, 2, 16, 16)


def test_geometry_loss_falls(tmp_path):
    losses = losses_of_repeated_step(GeometryJob(geometry_settings(tmp_path)), 20)
    assert losses[-1] < 0.9 * losses[0]


def test_geometry_batches_do_not_depend_on_what_was_asked_before(tmp_path):
    walked, jumped = (GeometryJob(geometry_settings(tmp_path)) for _ in range(2))
    for step in range(3):
        walked._batch(step)
    frames, scene = walked._batch(3)
    jumped_frames, jumped_scene = jumped._batch(3)
    assert torch.equal(frames, jumped_frames)
    assert torch.equal(scene.depth_z, jumped_scene.depth_z)
    assert sorted(walked.window) == [3, 4, 5, 6]


def test_true_cameras_have_no_camera_loss():
    clips = render_clips([sample_scene("validation", i) for i in range(3)], views="keys", **CLIPS)
    truth = clips.geometry
    rotations = truth.camera_to_world[..., :3, :3]
    exact = (truth.camera_to_world[..., :3, 3], matrix_to_quat_xyzw(rotations), torch.zeros(3))
    loss, _ = camera_loss(*exact, truth)
    moved, parts = camera_loss(exact[0] + torch.tensor([0.5, 0, 0]), exact[1], exact[2], truth)
    assert loss < 1e-2
    assert moved > loss + 0.05
    assert parts["translation"] > parts["rotation"]


def test_rays_hit_the_points():
    truth = render_clips([sample_scene("validation", 0)], views="keys", **CLIPS).geometry
    rays = true_rays(truth)
    torch.testing.assert_close(rays.norm(dim=-1), torch.ones(rays.shape[:-1]))
    in_camera = torch.linalg.inv(truth.camera_to_world)[:, :, None, None]
    points = (in_camera[..., :3, :3] @ truth.world_points[..., None])[..., 0] + in_camera[..., :3, 3]
    seen = truth.depth_z > 0
    directions = torch.nn.functional.normalize(points, dim=-1)
    torch.testing.assert_close(directions[seen], rays[seen], rtol=1e-3, atol=1e-3)


def test_a_training_may_start_from_a_model(tmp_path, vae_run):
    settings = vae_settings(tmp_path / "again", init=vae_run[1], loop=loop(steps=1, lr=1e-9), muon_lr=1e-9)
    started, scratch = load_vae(train_vae(settings)), VAEJob(vae_settings(tmp_path / "scratch")).vae
    for name, weight in load_vae(vae_run[1]).state_dict().items():
        torch.testing.assert_close(started.state_dict()[name], weight, rtol=0, atol=1e-6)
    assert any(
        not torch.allclose(weight, started.state_dict()[name])
        for name, weight in scratch.state_dict().items()
    )


def test_a_start_of_other_dimensions_leaves_no_run(tmp_path, vae_run):
    architecture = {"base_dim": 4, "dim_mult": [1, 2, 2], "z_dim": 6}
    with pytest.raises(ConfigError, match=r"init is .* differs from the settings' architecture in"):
        train_vae(vae_settings(tmp_path / "run", init=vae_run[1], architecture=architecture))
    assert not (tmp_path / "run").exists()


def test_geometry_and_video_may_start_from_a_model(tmp_path, vae_run):
    folder = train_geometry(geometry_settings(tmp_path / "first"))
    slow = {"loop": loop(steps=1, lr=1e-9), "muon_lr": 1e-9}
    again = train_geometry(geometry_settings(tmp_path / "again", init=folder, first_clip=40, **slow))
    frames = torch.rand(1, 2, 16, 16, 3)
    first, second = (load_geometry_backbone(model)(frames).depth_z for model in (folder, again))
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-4)
    wider = geometry_settings(tmp_path).architecture.model_dump() | {"scale_dim": 12}
    other = geometry_settings(tmp_path / "wider", init=folder, architecture=wider)
    with pytest.raises(ConfigError, match="differs from the settings' architecture"):
        train_geometry(other)

    pipeline = train_video(video_settings(tmp_path / "video", vae_run[1]))
    slow["loop"] = loop(steps=1, lr=1e-9, ema_decay=0.9)
    longer = train_video(video_settings(tmp_path / "longer", vae_run[1], init=pipeline, **slow))
    one, two = (load_video_backbone(model).transformer.state_dict() for model in (pipeline, longer))
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=0, atol=1e-3)
    clean = video_settings(tmp_path / "clean", vae_run[1], init=pipeline, prediction="clean")
    with pytest.raises(ConfigError, match="has learnt to predict the velocity, but prediction is clean"):
        train_video(clean)


def test_a_dead_head_may_start_anew(tmp_path):
    folder = train_geometry(geometry_settings(tmp_path / "first"))
    first = load_geometry_backbone(folder)
    settings = geometry_settings(tmp_path / "again", init=folder, fresh_heads=["scene_flow_head"])
    again = GeometryJob(settings, initial_geometry(settings)).model
    renewed = again.network.state_dict()
    for name, weight in first.network.state_dict().items():
        is_bias = weight.ndim == 1
        if name.startswith("scene_flow_head.") and not is_bias:
            assert not torch.equal(renewed[name], weight)
        elif not name.startswith("scene_flow_head."):
            torch.testing.assert_close(renewed[name], weight)
    assert again.network.scene_flow_head.regressor.out.weight.abs().max() > 0
    with pytest.raises(ValueError, match="fresh_heads is set, but init is not"):
        geometry_settings(tmp_path, fresh_heads=["pose_head"])


def test_a_training_may_stop_before_its_schedule_ends(tmp_path):
    train_vae(vae_settings(tmp_path / "run", loop=loop(steps=6, stop_after=2)))
    assert read_records(tmp_path / "run" / "metrics.jsonl")[-1]["step"] == 2
    with pytest.raises(ValueError, match="stop_after is 7, but there are only 6 steps"):
        vae_settings(tmp_path, loop=loop(steps=6, stop_after=7))


def test_pictures_come_before_clips(tmp_path, vae_run):
    settings = video_settings(tmp_path, vae_run[1], image_steps=2, image_batch_size=3)
    job = VideoJob(settings, load_vae(vae_run[1]), tmp_path / "cache", tmp_path / "samples")
    seen = []
    job.transformer.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape))
    for step in range(3):
        job.loss(step)
    assert [(shape[0], shape[2]) for shape in seen] == [(3, 1), (3, 1), (2, 2)]
    with pytest.raises(ValueError, match="image_steps is 4, but the training has 4 steps"):
        video_settings(tmp_path, vae_run[1], image_steps=4)


def test_a_denoiser_of_clean_latents_says_so(tmp_path, vae_run):
    settings = video_settings(tmp_path / "run", vae_run[1], prediction="clean")
    job = VideoJob(settings, load_vae(vae_run[1]), tmp_path / "cache", tmp_path / "samples")
    losses = losses_of_repeated_step(job, 30)
    assert losses[-1] < 0.8 * losses[0]
    assert load_video_backbone(train_video(settings)).predicts_clean


def test_heads_are_trained_by_the_optimizer_that_the_settings_name(tmp_path):
    job = GeometryJob(geometry_settings(tmp_path, adamw_heads=["pose_head"]))
    muon, adamw = ({id(p) for group in o.param_groups for p in group["params"]} for o in job.optimizers())
    assert id(job.model.network.pose_head.fc1.weight) in adamw
    assert id(job.model.network.scene_flow_head.regressor.conv2.weight) in muon
    assert id(job.guide.tokens.weight) in adamw


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"matching_blocks": [1]}, "matching_blocks names 1, but the global blocks"),
        ({"matching_blocks": [2, 4]}, "even numbers below 4"),
    ],
)
def test_heads_to_guide_are_checked_with_the_settings(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        geometry_settings(tmp_path, **changes)
