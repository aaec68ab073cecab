"""Trains an Any4D network from scratch on the world's exact geometry."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from vggrpo.backbones.any4d import (
    LAST_LAYER_STD,
    Any4D,
    Any4DConfig,
    Any4DPrediction,
    reset_parameters,
    scene_from_prediction,
)
from vggrpo.config.pretrain import GeometryArchitecture, GeometrySettings
from vggrpo.geometry import (
    SceneGeometry,
    quat_xyzw_to_matrix,
    relative_pose,
    se3_from_rt,
    so3_log,
    unproject,
)
from vggrpo.io import RunFolder, atomic_folder, make_generator
from vggrpo.lgm import agreement, distillation_loss
from vggrpo.lgm.quality import log_depth, scene_scale
from vggrpo.training.loop import Job, run_job
from vggrpo.training.muon import muon_and_adamw
from vggrpo.training.optim import parameter_group
from vggrpo.training.pretrain.guidance import GeometryGuide, mirrored
from vggrpo.training.pretrain.initial import require_same_architecture
from vggrpo.training.pretrain.pool import RENDER_BATCH
from vggrpo.training.runtime import autocast, prepare
from vggrpo.world import WorldClips, render_clips, sample_scene

VALIDATION_CLIPS = 64
WITHOUT_CAMERAS = {"rotation": 0.0, "translation": 0.0, "intrinsics": 0.0}
ROTATION_WEIGHT = TRANSLATION_WEIGHT = 3.0
CAMERA_KINK = 0.1
"""Radians, or parts of the median depth."""
RAY_WEIGHT = 1.0
MOVING_FLOW_WEIGHT = 1.0
"""More makes the flow of resting pixels noisy: those that move are few, and this is over them alone."""
CONFIDENCE_WEIGHT = 0.1
CONFIDENCE_REGULARISER = 0.1
"""The confidence that minimises error * C - a log C is a / error: about 2 at a depth error of 5 %."""


class GeometryJob(Job):
    """Key frames in; exact cameras, depth, points and scene flow out.

    Step n draws its clips from a window of the world's endless sequence that moves on by `fresh_clips` a
    step. Cameras are what a network learns slowest, and the dense heads are most of the cost, so they run in
    every `dense_every`-th step only.
    """

    name = "train geometry model"

    def __init__(self, settings: GeometrySettings, initial: Any4D | None = None) -> None:
        self.settings = settings
        torch.manual_seed(settings.seed)
        self.model = Any4D(any4d_config(settings.architecture))
        self.validation = self._render("validation", range(VALIDATION_CLIPS))
        self.window: dict[int, tuple[Tensor, SceneGeometry]] = {}
        self.model.network.float32_heads = settings.precision == "float32"
        depth = self.validation.geometry.depth_z.log().mean().exp().item()
        reset_parameters(self.model.network, depth=depth, flow_std=LAST_LAYER_STD)
        if initial is not None:
            kept = {
                name: tensor
                for name, tensor in initial.network.state_dict().items()
                if name.split(".")[0] not in settings.fresh_heads
            }
            self.model.network.load_state_dict(kept, strict=not settings.fresh_heads)
        self.guide = GeometryGuide(self.model.network, settings.matching_blocks)

    def modules(self) -> Mapping[str, nn.Module]:
        return {"geometry": self.model, "guide": self.guide}

    def optimizers(self) -> list[torch.optim.Optimizer]:
        heads = [f"network.{name}" for name in self.settings.adamw_heads]
        muon, adamw = muon_and_adamw(self.model, self.settings.muon_lr, self.settings.loop, heads)
        loop = self.settings.loop
        adamw.add_param_group(parameter_group(self.guide.parameters(), loop.lr, loop.weight_decay))
        return [muon, adamw]

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        frames, truth = self._batch(step)
        network = self.model.network
        with autocast(self.settings.precision):
            if step % self.settings.dense_every == 0:
                prediction = network.predict(frames)
                cameras = (prediction.translation, prediction.quat_vectors, prediction.log_scale)
                loss, parts = dense_loss(prediction, truth)
            else:
                cameras = network.predict_cameras(frames)
                loss, parts = torch.zeros(()), {}
        camera_part, camera_parts = camera_loss(*cameras, truth)
        attention, tokens = self.guide(truth)
        parts = camera_parts | parts | {"attention": attention.detach(), "tokens": tokens.detach()}
        settings = self.settings
        loss = loss + camera_part + settings.attention_weight * attention + settings.token_weight * tokens
        return loss, {f"geometry/{name}": value.item() for name, value in parts.items()}

    def _batch(self, step: int) -> tuple[Tensor, SceneGeometry]:
        settings = self.settings
        first, size = settings.first_clip + step * settings.fresh_clips, settings.clip_window
        generator = make_generator(settings.seed, "geometry", step)
        indices = first + torch.randperm(size, generator=generator)[: settings.loop.batch_size]
        for index in [index for index in self.window if index < first]:
            del self.window[index]
        missing = [index for index in range(first, first + size) if index not in self.window]
        for start in range(0, len(missing), RENDER_BATCH):
            batch = missing[start : start + RENDER_BATCH]
            clips = self._render("train", batch)
            for row, index in enumerate(batch):
                self.window[index] = (clips.frames[row : row + 1], clips.geometry.take(slice(row, row + 1)))
        frames, scenes = zip(*(self.window[int(index)] for index in indices), strict=True)
        drawn = torch.cat(frames), SceneGeometry.concatenate(list(scenes))
        return mirrored(*drawn) if torch.rand(1, generator=generator) < 0.5 else drawn

    def evaluate(self, step: int) -> dict[str, float]:
        frames = self.validation.frames.split(16)
        scene = SceneGeometry.concatenate([self.model(batch) for batch in frames])
        errors = agreement(scene, self.validation.geometry)
        figures = {f"geometry/validation_{name}": value.mean().item() for name, value in errors.items()}
        return figures | moving_flow_error(scene, self.validation.geometry)

    def _render(self, split: str, indices: Sequence[int]) -> WorldClips:
        clips = self.settings.clips
        return render_clips(
            [sample_scene(split, index) for index in indices],
            views="keys",
            height=clips.height,
            width=clips.width,
            num_frames=clips.num_frames,
        )


def train_geometry(settings: GeometrySettings) -> Path:
    """Trains, and writes the geometry folder `<output>/model`.

    Raises:
        ConfigError: if `init` has another architecture.
        FileNotFoundError: if `init` holds no geometry model.
    """
    initial = initial_geometry(settings)
    prepare(settings)
    run = RunFolder.start(settings.output, settings, resume=settings.resume)
    job = GeometryJob(settings, initial)
    run_job(job, run, settings.loop)
    with atomic_folder(settings.output / "model", replace=True) as folder:
        job.model.save_pretrained(folder)
    return settings.output / "model"


def initial_geometry(settings: GeometrySettings) -> Any4D | None:
    """The model in `init`, if that is set."""
    if settings.init is None:
        return None
    initial = Any4D.from_pretrained(settings.init)
    with torch.device("meta"):
        untrained = Any4D(any4d_config(settings.architecture))
    require_same_architecture(untrained.network, initial.network, settings.init)
    return initial


def any4d_config(architecture: GeometryArchitecture) -> Any4DConfig:
    """The network's configuration."""
    return Any4DConfig(**architecture.model_dump())


def camera_loss(
    translation: Tensor, quat_vectors: Tensor, log_scale: Tensor, truth: SceneGeometry
) -> tuple[Tensor, dict[str, Tensor]]:
    """Geodesic angles and distances (in median depths) of all cameras, and of the steps between consecutive
    ones.

    The network's world is to be the true one, the frame of camera 0: no gauge is left free.
    """
    rotation = quat_xyzw_to_matrix(torch.nn.functional.normalize(quat_vectors.float(), dim=-1))
    centres = translation.float() * log_scale.float().exp()[:, None, None]
    predicted = se3_from_rt(rotation, centres)
    scale = scene_scale(truth)[:, None]
    angles, distances = [], []
    for cameras, true_cameras in (
        (predicted, truth.camera_to_world),
        (
            relative_pose(predicted[:, :-1], predicted[:, 1:]),
            relative_pose(truth.camera_to_world[:, :-1], truth.camera_to_world[:, 1:]),
        ),
    ):
        error = so3_log(true_cameras[..., :3, :3].transpose(-1, -2) @ cameras[..., :3, :3])
        angles.append(pseudo_huber(error).mean())
        distances.append(
            pseudo_huber((cameras[..., :3, 3] - true_cameras[..., :3, 3]) / scale[..., None]).mean()
        )
    angle, distance = torch.stack(angles).sum(), torch.stack(distances).sum()
    loss = ROTATION_WEIGHT * angle + TRANSLATION_WEIGHT * distance
    return loss, {"rotation": angle.detach(), "translation": distance.detach()}


def pseudo_huber(x: Tensor) -> Tensor:
    """sqrt(|x|^2 + d^2) - d over the last dimension: quadratic below `CAMERA_KINK`, linear above.

    With a plain norm the cameras stay at the median, which is no motion, for thousands of steps.
    """
    return (x.square().sum(dim=-1) + CAMERA_KINK**2).sqrt() - CAMERA_KINK


def dense_loss(prediction: Any4DPrediction, truth: SceneGeometry) -> tuple[Tensor, dict[str, Tensor]]:
    """The distillation loss of everything but the cameras, with the exact scene as teacher, and three terms
    more.

    - rays: mean |r - r*| of the unit viewing rays. It replaces the loss on intrinsics: a pinhole can be
      fitted to the rays only once they fan out, which an untrained network's do not.
    - moving_flow: the scene-flow error on moving pixels, which are too few to matter in the mean over all.
    - confidence: mean error * C - a log C of the log-depth error, with the error held constant, so that the
      confidence C learns where depth is wrong (the aleatoric loss of DUSt3R and VGGT).
    """
    scene = scene_from_prediction(prediction, anchor_first_view=False)
    scene = dataclasses.replace(scene, intrinsics=truth.intrinsics)
    loss, parts = distillation_loss(scene, truth, WITHOUT_CAMERAS)
    assert scene.scene_flow_from_ref is not None
    assert truth.scene_flow_from_ref is not None

    rays = (prediction.ray_directions - true_rays(truth)).norm(dim=-1).mean()

    scale = scene_scale(truth)
    moving = truth.scene_flow_from_ref.abs().sum(-1) > 0
    flow_error = (scene.scene_flow_from_ref - truth.scene_flow_from_ref).abs().mean(-1)
    moving_flow = (flow_error / scale[:, None, None, None] * moving).sum() / moving.sum().clamp(min=1)

    depth_error = (log_depth(scene, scale) - log_depth(truth, scale)).abs().detach()
    log_confidence = prediction.confidence.log()
    confidence = (depth_error * prediction.confidence - CONFIDENCE_REGULARISER * log_confidence).mean()

    loss = loss + RAY_WEIGHT * rays + MOVING_FLOW_WEIGHT * moving_flow + CONFIDENCE_WEIGHT * confidence
    own = {"rays": rays, "moving_flow": moving_flow, "confidence": confidence}
    own_parts = {name: value.detach() for name, value in own.items()}
    kept = {name: value for name, value in parts.items() if name not in WITHOUT_CAMERAS}
    return loss, kept | own_parts


def true_rays(scene: SceneGeometry) -> Tensor:
    """Unit viewing rays [B, T, H, W, 3] of the scene's pixels in each camera's frame."""
    points = unproject(torch.ones_like(scene.depth_z), scene.intrinsics)
    return torch.nn.functional.normalize(points, dim=-1)


def moving_flow_error(scene: SceneGeometry, truth: SceneGeometry) -> dict[str, float]:
    """End-point error on moving pixels, and the true flow's mean length there, scene units."""
    assert scene.scene_flow_from_ref is not None
    assert truth.scene_flow_from_ref is not None
    length = truth.scene_flow_from_ref.norm(dim=-1)
    moving = length > 0
    error = (scene.scene_flow_from_ref - truth.scene_flow_from_ref).norm(dim=-1)
    return {
        "geometry/validation_moving_epe": error[moving].mean().item(),
        "geometry/validation_moving_length": length[moving].mean().item(),
    }
