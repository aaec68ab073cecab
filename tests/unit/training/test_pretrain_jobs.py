"""The trainings of the base models: a few real steps each, at the smallest sizes."""

import math

import pytest
import torch
from diffusers import WanPipeline

from vggrpo.backbones import load_geometry_backbone, load_video_backbone
from vggrpo.backbones.wan import load_vae
from vggrpo.config import ConfigError, GeometrySettings, VAESettings, VideoSettings
from vggrpo.geometry import matrix_to_quat_xyzw
from vggrpo.io import read_records
from vggrpo.training.pretrain.geometry import GeometryJob, camera_loss, train_geometry, true_rays
from vggrpo.training.pretrain.pool import ClipPool, to_float, to_uint8
from vggrpo.training.pretrain.vae import VAEJob, psnr, random_crops, train_vae
from vggrpo.training.pretrain.video import train_video
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


def test_vae_loss_falls(tmp_path):
    losses = losses_of_repeated_step(VAEJob(vae_settings(tmp_path)), 30)
    assert losses[-1] < 0.8 * losses[0]


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
