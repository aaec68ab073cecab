"""What is measured on each clip of the world, and on each generated one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vggrpo.backbones import VideoBackbone
from vggrpo.evaluation import dis_flow, flow_jerk, flow_magnitude, pixel_statistics
from vggrpo.geometry import SceneGeometry, path_length, safe_norm, so3_log
from vggrpo.io import make_generator
from vggrpo.lgm import agreement
from vggrpo.lgm.quality import cameras_from_first, scene_scale
from vggrpo.rewards import SceneReward
from vggrpo.training.pretrain.teacher import Teacher
from vggrpo.world import WorldClips

SIGMA_BANDS = ((0.05, 0.2), (0.2, 0.4), (0.4, 0.6), (0.6, 0.8), (0.8, 1.0))
"""The first starts where samplers take their last step, at about .06 in 50 steps: towards 0 the velocity of a
denoiser that predicts clean latents, (x - x0) / sigma, has no bound."""
SOURCES = ("real", "autoencoded")
"""The world's clips as they are, and after the autoencoder, which generated clips also come through."""

Measures = dict[str, Tensor]
"""One number per clip, [B], by name; NaN where it could not be measured."""


@dataclass(frozen=True)
class Instruments:
    """The models that are measured, and that measure."""

    video: VideoBackbone
    teacher: Teacher
    rewards: Mapping[str, SceneReward]


@torch.no_grad()
def clip_measures(clips: WorldClips, indices: Sequence[int], tools: Instruments, seed: int) -> Measures:
    """Everything that is known about clips with exact geometry.

    `psnr`; the errors of `geometry_errors`; rewards "exact/<name>"; `frame_checks` as "real/<name>" and
    "autoencoded/<name>"; the losses of `velocity_losses`; `is_shaky` and `is_dynamic` as 0 or 1.

    Args:
        clips: B clips, all frames.
        indices: their numbers, which seed the noise.
        tools: the models.
        seed: of the noise.
    """
    video = tools.video
    latents = video.encode_video(clips.frames)
    decoded = video.decode_latents(latents).float().cpu().clamp(0, 1)
    scene, decoded_scene = tools.teacher(clips.frames), tools.teacher(decoded)
    truth = clips.geometry.select(video.latent_spec.view_frames(latents.shape[2]))
    return {
        "is_shaky": clips.is_shaky.float(),
        "is_dynamic": clips.is_dynamic.float(),
        "psnr": -10 * (decoded - clips.frames).square().mean((1, 2, 3, 4)).log10(),
        **geometry_errors(scene, truth),
        **{f"exact/{name}": value for name, value in reward_values(truth, tools.rewards).items()},
        **{f"real/{name}": v for name, v in frame_checks(clips.frames, scene, tools.rewards).items()},
        **{
            f"autoencoded/{name}": v
            for name, v in frame_checks(decoded, decoded_scene, tools.rewards).items()
        },
        **velocity_losses(video, latents, video.encode_prompts(clips.captions), indices, seed),
    }


def geometry_errors(scene: SceneGeometry, truth: SceneGeometry) -> Measures:
    """`agreement` with the truth, and what it has to be compared with.

    `true_rotation_deg`: the mean angle between the later cameras and the first; `true_path`: the length of
    the camera's path in median depths. On the reference pixels and later views that show true motion:
    `moving_pixels` (their number), `moving_error` and `moving_length` (the sums of the flow's error and of
    its true length there, scene units), so that a mean over many clips weighs pixels alike.
    """
    rotations, _ = cameras_from_first(truth)
    flow, true_flow = scene.scene_flow_from_ref, truth.scene_flow_from_ref
    if flow is None or true_flow is None:
        raise ValueError("the geometry model predicts no scene flow; a model of the world must (4D)")
    length = true_flow.norm(dim=-1)
    moving = length > 0
    error = (flow - true_flow).norm(dim=-1)
    pixels = (1, 2, 3)
    return {
        **agreement(scene, truth),
        "true_rotation_deg": safe_norm(so3_log(rotations)).mean(1).rad2deg(),
        "true_path": path_length(truth.camera_to_world) / scene_scale(truth),
        "moving_pixels": moving.sum(pixels).float(),
        "moving_error": torch.where(moving, error, 0.0).sum(pixels),
        "moving_length": length.sum(pixels),
    }


def frame_checks(frames: Tensor, scene: SceneGeometry, rewards: Mapping[str, SceneReward]) -> Measures:
    """Steadiness, motion amount and pixel statistics of frames, and the rewards of the scene seen in them."""
    flow = dis_flow(frames)
    return {
        "flow_jerk": flow_jerk(frames, flow=flow),
        "flow_magnitude": flow_magnitude(frames, flow=flow),
        **pixel_statistics(frames),
        **reward_values(scene, rewards),
    }


def reward_values(scene: SceneGeometry, rewards: Mapping[str, SceneReward]) -> Measures:
    """Every reward by name, NaN where it failed."""
    return {name: reward(scene).value.float().cpu() for name, reward in rewards.items()}


def velocity_losses(
    video: VideoBackbone, latents: Tensor, prompt_embeds: Tensor, indices: Sequence[int], seed: int
) -> Measures:
    """The flow-matching loss of every clip in each band of sigma, "velocity_loss/<low>-<high>".

    mean( (v - (noise - x0))^2 ) at one sigma per clip, uniform in the band. Beside it,
    "velocity_baseline/<low>-<high>": the loss of v = x (2 sigma - 1) / (sigma^2 + (1 - sigma)^2), the best
    prediction if latents were independent Gaussians. Sigma and noise depend on `seed`, the band and the
    clip's number alone.
    """
    losses = {}
    for low, high in SIGMA_BANDS:
        generators = [make_generator(seed, "velocity loss", str(low), index) for index in indices]
        sigma = torch.cat([low + (high - low) * torch.rand(1, generator=g) for g in generators])
        noise = torch.stack([torch.randn(latents.shape[1:], generator=g) for g in generators]).to(latents)
        weight = sigma.view(-1, 1, 1, 1, 1).to(latents)
        x, target = (1 - weight) * latents + weight * noise, noise - latents
        guesses = {
            "loss": video.velocity(x, sigma, prompt_embeds),
            "baseline": x * (2 * weight - 1) / (weight.square() + (1 - weight).square()),
        }
        for kind, velocity in guesses.items():
            error = (velocity - target).square().flatten(1).mean(1)
            losses[f"velocity_{kind}/{low:g}-{high:g}"] = error.cpu()
    return losses


@torch.no_grad()
def sample_measures(frames: Tensor, tools: Instruments) -> Measures:
    """`frame_checks` of generated frames [B, T, H, W, 3], through the teacher."""
    return frame_checks(frames, tools.teacher(frames), tools.rewards)
