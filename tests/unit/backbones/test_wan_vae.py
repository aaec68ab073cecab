import json
import shutil

import pytest
import torch
from diffusers import WanPipeline

from vggrpo.backbones.wan import (
    WanBackbone,
    denormalise_latents,
    load_vae,
    normalise_latents,
    read_latent_spec,
)


@pytest.fixture(scope="module")
def backbone(tiny_pipeline):
    return WanBackbone(tiny_pipeline)


def test_latent_spec_describes_the_autoencoder(backbone):
    spec = backbone.latent_spec
    assert (spec.channels, spec.spatial_stride, spec.temporal_stride) == (4, 4, 4)
    assert spec.latent_shape(17, 48, 64) == (4, 5, 12, 16)
    assert spec.view_frames(5) == [0, 4, 8, 12, 16]
    frames = torch.rand(2, 9, 16, 24, 3)
    assert backbone.encode_video(frames).shape == (2, *spec.latent_shape(9, 16, 24))


def test_decoding_follows_the_pipelines_convention(backbone, tiny_pipeline):
    latents = torch.randn(1, 4, 3, 4, 6)
    pipeline = WanPipeline.from_pretrained(tiny_pipeline)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = _Identity()
    expected = pipeline(
        "a red box",
        height=16,
        width=32,
        num_frames=9,
        num_inference_steps=1,
        latents=latents,
        guidance_scale=1.0,
    ).frames
    frames = backbone.decode_latents(latents)
    assert frames.shape == (1, 9, 16, 24, 3)
    torch.testing.assert_close(frames, torch.from_numpy(expected), atol=1e-5, rtol=0)


class _Identity:
    """A scheduler whose only step leaves the latents as they are, so that the pipeline just decodes."""

    order = 1

    class config:  # noqa: N801
        num_train_timesteps = 1000

    def set_timesteps(self, num_steps, device=None):
        self.timesteps = torch.tensor([500.0])
        self.sigmas = torch.tensor([0.5, 0.0])

    def set_begin_index(self, index):
        pass

    def step(self, velocity, timestep, latents, return_dict):
        return (latents,)


def test_encoding_is_the_normalised_mode_of_the_posterior(backbone):
    frames = torch.rand(1, 5, 16, 16, 3)
    raw = backbone.vae.encode(frames.movedim(-1, 1) * 2 - 1).latent_dist.mode()
    mean, std = torch.tensor([0.5, -0.25, 0.0, 1.0]), torch.tensor([2.0, 0.5, 1.0, 1.5])
    expected = (raw - mean.view(1, 4, 1, 1, 1)) / std.view(1, 4, 1, 1, 1)
    torch.testing.assert_close(backbone.encode_video(frames), expected)


def test_normalisation_is_inverted(backbone):
    latents = torch.randn(2, 4, 2, 3, 3)
    torch.testing.assert_close(
        denormalise_latents(normalise_latents(latents, backbone.vae), backbone.vae), latents
    )


def test_samples_of_a_batch_are_independent(backbone):
    frames = torch.rand(3, 5, 16, 16, 3)
    alone = torch.cat([backbone.encode_video(frames[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(backbone.encode_video(frames), alone, atol=1e-5, rtol=1e-5)


def test_frame_zero_alone_makes_latent_zero(backbone):
    frames = torch.rand(1, 9, 16, 16, 3)
    changed = frames.clone()
    changed[:, 5:] = 0.0
    first, second = backbone.encode_video(frames), backbone.encode_video(changed)
    torch.testing.assert_close(first[:, :, :2], second[:, :, :2])
    assert not torch.allclose(first[:, :, 2], second[:, :, 2])
    torch.testing.assert_close(backbone.encode_video(frames[:, :1]), first[:, :, :1], atol=1e-5, rtol=1e-5)


def test_decoding_is_differentiable_where_asked(backbone):
    latents = torch.randn(1, 4, 2, 4, 4, requires_grad=True)
    backbone.decode_latents(latents).mean().backward()
    assert latents.grad is not None
    assert latents.grad.abs().sum() > 0
    assert not backbone.decode_latents(latents.detach()).requires_grad


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 16, 16, 16, 3), r"num_frames is 16, but the autoencoder needs 4n \+ 1 frames; use 13 or 17"),
        ((1, 17, 18, 16, 3), "height is 18, but the autoencoder needs a multiple of 4"),
        ((1, 17, 16, 15, 3), "width is 15, but the autoencoder needs a multiple of 4"),
        ((17, 16, 16, 3), r"expected floats in \[0, 1\] of shape \[B, T, H, W, 3\]"),
        ((1, 3, 17, 16, 16), r"expected floats in \[0, 1\]"),
    ],
)
def test_wrong_frames_are_refused_before_anything_is_loaded(tiny_pipeline, shape, message):
    backbone = WanBackbone(tiny_pipeline)
    with pytest.raises(ValueError, match=message):
        backbone.encode_video(torch.rand(shape))
    assert backbone._vae is None


def test_uint8_frames_are_refused(backbone):
    with pytest.raises(ValueError, match=r"frames are torch.uint8"):
        backbone.encode_video(torch.zeros(1, 5, 16, 16, 3, dtype=torch.uint8))


def test_latents_of_other_channels_are_refused(backbone):
    with pytest.raises(ValueError, match=r"expected \[B, 4, T, H, W\]"):
        backbone.decode_latents(torch.zeros(1, 16, 5, 4, 4))


def test_fingerprint_follows_weights_and_statistics_not_the_place(tiny_pipeline, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(tiny_pipeline, copy)
    fingerprint = WanBackbone(tiny_pipeline).latent_spec.fingerprint
    assert WanBackbone(copy).latent_spec.fingerprint == fingerprint
    config = json.loads((copy / "vae" / "config.json").read_text())
    config["latents_mean"][0] += 0.1
    (copy / "vae" / "config.json").write_text(json.dumps(config))
    assert WanBackbone(copy).latent_spec.fingerprint != fingerprint


def test_strides_that_older_configurations_leave_out_are_wan21s(tiny_pipeline, tmp_path):
    shutil.copytree(tiny_pipeline / "vae", tmp_path / "vae")
    file = tmp_path / "vae" / "config.json"
    config = {k: v for k, v in json.loads(file.read_text()).items() if not k.startswith("scale_factor")}
    file.write_text(json.dumps(config))
    spec = read_latent_spec(tmp_path / "vae")
    vae = load_vae(tmp_path / "vae")
    assert (spec.spatial_stride, spec.temporal_stride) == (8, 4)
    assert (vae.config.scale_factor_spatial, vae.config.scale_factor_temporal) == (8, 4)
