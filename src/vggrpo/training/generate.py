"""Videos from prompts: the models are opened and checked, what is missing is made."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from vggrpo.backbones import VideoBackbone, load_video_backbone
from vggrpo.backbones.pipelines import lora_file
from vggrpo.config import ConfigError, CorruptFileError, GenerateSettings
from vggrpo.data import (
    SamplingSettings,
    Steering,
    VideoOrder,
    make_videos,
    order_videos,
    read_camera_path,
    read_prompts,
    unfinished,
)
from vggrpo.geometry import SceneGeometry
from vggrpo.io import check_video_writing, file_sha256
from vggrpo.io.manifest import MANIFEST_NAME
from vggrpo.lgm import LatentGeometryModel
from vggrpo.rewards import CameraTrajectoryReward, SceneReward
from vggrpo.rewards.camera_motion import MIN_VIEWS
from vggrpo.rollout import BestOf, LatentReward, LatentScore, RewardGuidance, SolverSettings
from vggrpo.training.generated_scene import SceneSaver
from vggrpo.training.rewards import CAMERA_MOTION, build_rewards

CAMERA_TRAJECTORY = "camera_trajectory"
LIBRARIES = ("vggrpo", "torch", "diffusers", "transformers", "av")
NOT_OF_A_VIDEO = {"prompts", "seeds", "output", "overwrite"}
"""Settings that are the command's; with its prompt, its seed and the others a video can be made again."""


@dataclass(frozen=True)
class Generated:
    """What a command did."""

    made: int
    kept: int
    """Videos that were there already."""


def generate(settings: GenerateSettings) -> Generated:
    """Makes the videos that are not there yet.

    Under torchrun each process makes its share, on its own GPU; a video is the same whichever makes it.

    Raises:
        ConfigError: for prompts, sizes, LoRAs, a latent geometry model or steps that do not fit, before
            anything is loaded; for videos that are there but were made otherwise.
        FileNotFoundError, CorruptFileError: if a model's files are missing or damaged.
    """
    prompts = read_prompts(settings.prompts)
    check_video_writing(settings.height, settings.width)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    backbone = load_video_backbone(
        settings.base_model,
        device=_device(),
        precision=settings.precision,
        gradient_checkpointing=settings.gradient_checkpointing,
        flow_shift=settings.flow_shift,
        efficiency=settings.efficiency,
    )
    views = _check_models(settings, backbone)
    rewards = steering_rewards(settings, views)
    sampling = SamplingSettings(
        num_frames=settings.num_frames,
        height=settings.height,
        width=settings.width,
        fps=settings.fps,
        infer_steps=settings.infer_steps,
        cfg_scale=settings.cfg_scale,
        # Without classifier-free guidance it has no effect, and must make no difference.
        negative_prompt=settings.negative_prompt if settings.cfg_scale != 1 else "",
        solver=SolverSettings(settings.solver, settings.transition, settings.noise_scale),
    )
    check_steps(settings, backbone)
    orders = order_videos(
        prompts,
        settings.seeds,
        settings.output,
        sampling,
        _model_identity(settings, backbone),
        _steering_identity(settings, rewards) if settings.lgm_path is not None else None,
    )
    own = orders[int(os.environ.get("RANK", "0")) :: int(os.environ.get("WORLD_SIZE", "1"))]
    missing = own if settings.overwrite else unfinished(own, settings.save_latents, settings.save_scene)
    if missing:
        if settings.lora:
            backbone.load_loras(list(zip(settings.lora, settings.lora_scales, strict=True)))
        lgm = None
        if settings.lgm_path is not None:
            lgm = LatentGeometryModel.from_pretrained(settings.lgm_path).to(backbone.device)
            if settings.gradient_checkpointing:
                lgm.enable_gradient_checkpointing()
        make_videos(
            backbone,
            missing,
            sampling,
            {
                "settings": settings.model_dump(mode="json", exclude=NOT_OF_A_VIDEO),
                "versions": {name: version(name) for name in LIBRARIES},
            },
            steering=open_steering(settings, rewards, lgm),
            batch_size=settings.batch_size,
            save_latents=settings.save_latents,
            on_video=_scene_writer(settings, rewards, lgm),
        )
    return Generated(len(missing), len(own) - len(missing))


def steering_rewards(settings: GenerateSettings, views: int) -> dict[str, SceneReward]:
    """The rewards that have a weight, by name.

    Raises:
        ConfigError: if the clip has too few views for one of them, or the camera path is no path.
    """
    if settings.lgm_path is None:
        return {}
    weights = settings.reward_weights.model_dump()
    rewards = {name: reward for name, reward in build_rewards(settings.rewards).items() if weights[name] > 0}
    if settings.camera_path is not None:
        if views < 2:
            raise ConfigError(f"camera_path needs 2 views; num_frames {settings.num_frames} gives {views}")
        path = read_camera_path(settings.camera_path, settings.camera_amount, views)
        if weights[CAMERA_TRAJECTORY] > 0:
            rewards[CAMERA_TRAJECTORY] = CameraTrajectoryReward(path, settings.camera_path_unit == "depths")
    needed = MIN_VIEWS[settings.rewards.camera_motion.order]
    if CAMERA_MOTION in rewards and views < needed:
        raise ConfigError(
            f"num_frames is {settings.num_frames}, in which the latent geometry model sees {views} "
            f"views, but the camera-motion reward needs {needed}: use more frames, or "
            "--reward-weights.camera-motion 0"
        )
    return rewards


def check_steps(settings: GenerateSettings, backbone: VideoBackbone) -> None:
    """Makes sure that guidance and pruning have steps to happen at.

    Raises:
        ConfigError: if not.
    """
    shape = backbone.latent_shape(settings.num_frames, settings.height, settings.width)
    schedule = backbone.schedule(settings.infer_steps, shape)
    guidance = _guidance(settings, _unopened)
    if guidance is not None and not guidance.steps(schedule):
        raise ConfigError(
            f"reward_guidance would guide no step: of {settings.infer_steps} steps, every "
            f"{guidance.interval}th at noise levels from {guidance.start_sigma:g} to "
            f"{guidance.stop_sigma:g} is none; lower the interval, or widen the levels"
        )
    try:
        BestOf(settings.best_of, _unopened, settings.prune_sigmas).prune_steps(schedule)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def open_steering(
    settings: GenerateSettings, rewards: dict[str, SceneReward], lgm: LatentGeometryModel | None
) -> Steering:
    """Guidance and best-of-N with the models that they need."""
    if lgm is None or not rewards:
        return Steering()
    reward = LatentReward(lgm, rewards, settings.reward_weights.model_dump())
    best_of = BestOf(settings.best_of, reward, settings.prune_sigmas) if settings.best_of > 1 else None
    return Steering(_guidance(settings, reward), best_of, reward)


def _guidance(settings: GenerateSettings, reward: Callable[[Tensor], LatentScore]) -> RewardGuidance | None:
    if settings.reward_guidance.scale == 0:
        return None
    return RewardGuidance(reward, **settings.reward_guidance.model_dump())


def _unopened(latents: Tensor) -> LatentScore:
    raise AssertionError("the reward is not open yet")


def _check_models(settings: GenerateSettings, backbone: VideoBackbone) -> int:
    """The number of views of a clip, if the models can make it and fit each other; loads none of them.

    Raises:
        ConfigError: if not.
    """
    try:
        shape = backbone.latent_shape(settings.num_frames, settings.height, settings.width)
        if settings.lgm_path is not None:
            LatentGeometryModel.check_saved(settings.lgm_path, backbone.latent_spec, settings.base_model)
    except CorruptFileError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from error
    for folder in settings.lora:
        backbone.check_lora(folder)
    return shape[1]


def _model_identity(settings: GenerateSettings, backbone: VideoBackbone) -> dict[str, Any]:
    """What determines the model, for JSON."""
    model: dict[str, Any] = dict(backbone.identity())
    if settings.lora:
        model["lora"] = [
            {"sha256": file_sha256(lora_file(folder)), "scale": scale}
            for folder, scale in zip(settings.lora, settings.lora_scales, strict=True)
        ]
    return model


def _steering_identity(settings: GenerateSettings, rewards: dict[str, SceneReward]) -> dict[str, Any]:
    """What determines rewards and scenes, and the rewards' effect on the samples, for JSON."""
    assert settings.lgm_path is not None
    weights = settings.reward_weights.model_dump()
    options = settings.rewards.model_dump(mode="json")
    return {
        "lgm": file_sha256(settings.lgm_path / MANIFEST_NAME),
        "weights": {name: weights[name] for name in rewards},
        "rewards": {name: options[name] for name in rewards if name in options},
        "reward_guidance": settings.reward_guidance.model_dump() if settings.reward_guidance.scale else None,
        "best_of": settings.best_of,
        "prune_sigmas": list(settings.prune_sigmas),
        "camera_path": None if CAMERA_TRAJECTORY not in rewards else _path_identity(rewards),
    }


def _path_identity(rewards: dict[str, SceneReward]) -> dict[str, Any]:
    reward = rewards[CAMERA_TRAJECTORY]
    assert isinstance(reward, CameraTrajectoryReward)
    return {
        "unit": "depths" if reward.relative else "scene",
        "camera_to_world": [[round(x, 6) for x in row] for row in reward.target.flatten(1).tolist()],
    }


def _scene_writer(
    settings: GenerateSettings, rewards: dict[str, SceneReward], lgm: LatentGeometryModel | None
) -> Callable[[VideoOrder, Tensor, Tensor], None] | None:
    if not settings.save_scene:
        return None
    assert lgm is not None
    flow = settings.rewards.reprojection
    geometry: Callable[[Tensor], SceneGeometry] = lgm
    return SceneSaver(
        geometry, rewards, lgm.latent_spec, settings.fps, flow.flow_threshold, relative=flow.relative
    )


def _device() -> torch.device:
    """The process' own GPU, if there are any."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
