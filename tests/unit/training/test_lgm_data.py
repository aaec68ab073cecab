"""Clips to distil on: the same after an interruption, and refused where something else made them."""

import pytest
import torch
from tiny_lgm import lgm_settings

from vggrpo.backbones import dpt, load_geometry_backbone, load_video_backbone
from vggrpo.config import ConfigError
from vggrpo.lgm import Connector, LatentGeometryModel, teacher_frames
from vggrpo.training.lgm import DistillationJob, make_trainable, scene_quality
from vggrpo.training.lgm_data import TEACHER, ClipMaker, clip_frames, teacher_scene, weights_fingerprint
from vggrpo.training.rewards import build_rewards
from vggrpo.training.sources import open_videos


def maker(models, cache, **changes):
    s = lgm_settings(models, **changes)
    video, geometry = load_video_backbone(s.base_model), load_geometry_backbone(s.geometry_model)
    return ClipMaker(video, geometry, s, cache)


def make(maker, kind, count, held_out=False):
    if kind == "real":
        return maker.real(count, held_out)
    return maker.generated(count, maker.settings, held_out)


def everything(cache):
    return cache.batch(range(len(cache)))


def test_a_real_clip_is_what_the_models_make_of_its_frames(lgm_models, tmp_path):
    made = maker(lgm_models, tmp_path)
    batch = everything(make(made, "real", 3))
    videos = open_videos(made.settings, 3)
    frames = torch.stack([videos.clip(index) for index in range(3)])
    torch.testing.assert_close(batch["latents"], made.video.encode_video(frames), rtol=1e-4, atol=1e-4)
    views = teacher_frames(frames, made.video.latent_spec, made.geometry.patch_size)
    assert (clip_frames(batch) - views).abs().max() <= 0.5 / 255 + 1e-6
    with torch.no_grad():
        expected = made.geometry(views).as_dict()
    cached = teacher_scene(batch).as_dict()
    assert cached.keys() == expected.keys()
    torch.testing.assert_close(cached["depth_z"], expected["depth_z"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(cached["camera_to_world"], expected["camera_to_world"], rtol=1e-4, atol=1e-4)


def test_a_generated_clip_is_the_decoded_latents(lgm_models, tmp_path):
    made = maker(lgm_models, tmp_path)
    batch = everything(make(made, "generated", 4))
    assert made.video._text_encoder is None  # released before the clips are made
    with torch.no_grad():
        frames = made.video.decode_latents(batch["latents"])
    views = teacher_frames(frames, made.video.latent_spec, made.geometry.patch_size)
    assert (clip_frames(batch) - views).abs().max() <= 0.5 / 255 + 1e-4
    assert not torch.equal(batch["latents"][0], batch["latents"][3])  # the same prompt, another noise


@pytest.mark.parametrize("kind", ["real", "generated"])
def test_clips_are_the_same_in_more_batches_and_when_asked_for_later(lgm_models, tmp_path, kind):
    at_once = everything(make(maker(lgm_models, tmp_path / "once"), kind, 5))
    make(maker(lgm_models, tmp_path / "grown"), kind, 2)
    grown = everything(make(maker(lgm_models, tmp_path / "grown", batch_size=3), kind, 5))
    assert at_once.keys() == grown.keys()
    for name, tensor in at_once.items():
        # Other batches round differently: by one level of a byte at most.
        atol = 1 if tensor.dtype == torch.uint8 else 1e-4
        torch.testing.assert_close(tensor, grown[name], rtol=1e-4, atol=atol)


@pytest.mark.parametrize("kind", ["real", "generated"])
def test_held_out_clips_are_others(lgm_models, tmp_path, kind):
    made = maker(lgm_models, tmp_path)
    training, held_out = (everything(make(made, kind, 3, held))["latents"] for held in (False, True))
    assert all(not torch.equal(ours, theirs) for ours in training for theirs in held_out)


def test_a_finished_cache_is_opened_without_making_anything(lgm_models, tmp_path):
    make(maker(lgm_models, tmp_path), "generated", 3)
    again = maker(lgm_models, tmp_path)
    make(again, "generated", 3)
    assert again.video._vae is None
    assert again.video._text_encoder is None


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"seed": 1}, "seed"),
        ({"infer_steps": 3}, "steps"),
        ({"height": 32}, "clip"),
        ({"num_prompts": 2}, "prompts"),
    ],
)
def test_clips_of_other_settings_are_refused(lgm_models, tmp_path, changes, name):
    make(maker(lgm_models, tmp_path), "generated", 2)
    with pytest.raises(
        ConfigError, match=f"made with other settings .*{name}.*choose another folder, or delete"
    ):
        make(maker(lgm_models, tmp_path, **changes), "generated", 2)


def test_fingerprint_feels_one_weight():
    first, second = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
    second.load_state_dict(first.state_dict())
    assert weights_fingerprint(first) == weights_fingerprint(second)
    with torch.no_grad():
        second.weight[1, 1] += 1e-6
    assert weights_fingerprint(first) != weights_fingerprint(second)


@pytest.fixture
def job(lgm_models, tmp_path):
    def make_job(**changes):
        made = maker(lgm_models, tmp_path / "clips", **({"lora_rank": 2, "lora_alpha": 2.0} | changes))
        s = made.settings
        # More clips than are trained on, as the layer search may want.
        training = [make(made, "real", s.real_clips + 2), make(made, "generated", s.generated_clips + 1)]
        held_out = {kind: make(made, kind, s.held_out_clips, held_out=True) for kind in ("real", "generated")}
        states = [made.block_states(cache) for cache in training] if s.block_weight else []
        point = made.geometry.stitch_point("E1")
        torch.manual_seed(0)
        connector = Connector(4, point.width, (2, 2), point.num_special_tokens)
        model = LatentGeometryModel(made.geometry, connector, "E1", made.video.latent_spec, "tiny", "tiny")
        make_trainable(model, s)
        return DistillationJob(s, model, training, held_out, states)

    return make_job


def test_an_epoch_trains_on_every_clip_once_and_on_no_other(job):
    made = job(epochs=2, batch_size=2)
    assert made.loop.steps == 5
    assert made.training == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
    loss, figures = made.loss(0)
    again, _ = made.loss(0)
    other, _ = made.loss(1)
    assert torch.equal(loss, again)
    assert not torch.equal(loss, other)
    assert all(name.startswith("lgm/") for name in figures)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_micro_batches_add_up_to_the_batch(job, size):
    made = job(batch_size=3, micro_batch=size)
    made.model.double()
    # Unequal numbers of pixels count, and every clip still counts alike.
    made.caches = [[blinded(clip, index) for index, clip in enumerate(cache)] for cache in made.caches]
    parameters = made.model.trainable_parameters()

    def gradients(parts):
        made.model.zero_grad()
        losses, figures = zip(*((backward(loss), shares) for loss, shares in parts), strict=True)
        grads = {name: p.grad.clone() for name, p in parameters.items() if p.grad is not None}
        return sum(losses), {name: sum(f[name] for f in figures) for name in figures[0]}, grads, len(losses)

    def backward(loss):
        loss.backward()
        return loss.item()

    whole, in_parts = gradients([made.loss(0)]), gradients(made.losses(0))
    assert in_parts[3] == -(-3 // size)
    assert in_parts[0] == pytest.approx(whole[0], rel=1e-10)
    assert in_parts[1] == pytest.approx(whole[1], rel=1e-10)
    assert in_parts[2].keys() == whole[2].keys()
    for name, gradient in whole[2].items():
        torch.testing.assert_close(in_parts[2][name], gradient, rtol=1e-9, atol=1e-12, msg=name)


def blinded(clip, number):
    """A clip in float64 whose teacher saw nothing in the first `number` rows."""
    clip = {name: value.double() if value.is_floating_point() else value for name, value in clip.items()}
    clip[f"{TEACHER}depth_z"] = clip[f"{TEACHER}depth_z"].clone()
    clip[f"{TEACHER}depth_z"][:, :number] = torch.inf
    return clip


def test_recomputed_blocks_and_heads_give_the_same_gradients(job, monkeypatch):
    monkeypatch.setattr(dpt, "PIXELS_AT_ONCE", 16 * 16)  # a view at once
    gradients = []
    for checkpointing in (False, True):
        made = job(batch_size=2, gradient_checkpointing=checkpointing, block_weight=0.5)
        for name, parameter in made.model.trainable_parameters().items():
            if "lora_B" in name:  # or the other factors would have no gradient
                parameter.data.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
        made.loss(0)[0].backward()
        gradients.append({name: p.grad for name, p in made.model.trainable_parameters().items()})
    assert gradients[0].keys() == gradients[1].keys()
    assert sum(gradient.abs().max() > 0 for gradient in gradients[0].values()) > 0.9 * len(gradients[0])
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_without_generated_clips_only_real_ones_are_trained_on(job):
    assert {kind for kind, _ in job(generated_clips=0).training} == {0}
    assert {kind for kind, _ in job(real_clips=0).training} == {1}


def test_learning_rates_of_connector_and_backbone(job):
    made = job(lr=1e-3, connector_lr_scale=0.1)
    (optimizer,) = made.optimizers()
    assert [group["base_lr"] for group in optimizer.param_groups] == pytest.approx([1e-4, 1e-3])


def test_a_loss_has_finite_gradients_and_falls(job):
    made = job(lr=1e-3, connector_lr_scale=1.0)
    (optimizer,) = made.optimizers()
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss, figures = made.loss(0)
        loss.backward()
        assert all(
            p.grad.isfinite().all() for p in made.model.trainable_parameters().values() if p.grad is not None
        )
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert {"lgm/depth", "lgm/points", "lgm/rotation", "lgm/translation"} <= set(figures)


def test_the_teachers_blocks_are_kept_with_the_clips_and_taught(job, tmp_path):
    made = job(block_weight=10.0, lr=1e-2, generated_clips=1, batch_size=4)
    states = made.block_states[0]
    assert (tmp_path / "clips" / "real-blocks").is_dir()
    assert len(states) == len(made.caches[0])
    assert set(states[0]) > set(made.block_names)  # the block before the stitch point is kept, but not taught
    (optimizer,) = made.optimizers()
    errors = []
    for _ in range(30):
        optimizer.zero_grad()
        loss, figures = made.loss(0)
        loss.backward()
        optimizer.step()
        errors.append(figures["lgm/blocks"])
    assert errors[-1] < 0.8 * errors[0]


def test_quality_of_the_teacher_itself_is_perfect(job):
    made = job(num_frames=9)  # three views, as the camera's acceleration needs
    teachers = [teacher for _, teacher in made._held_out_scenes(made.held_out["real"])]
    quality = scene_quality(zip(teachers, teachers, strict=True), build_rewards(made.settings.rewards))
    assert max(error for error in quality["agreement"].values() if error is not None) < 1e-3
    for values in quality["rewards"].values():
        assert values["lgm"] == values["teacher"]
