"""A latent geometry model that is a formula, and rewards of what it sees."""

import torch
from torch import Tensor, nn

from vggrpo.backbones import LatentSpec
from vggrpo.geometry import SceneGeometry, intrinsics_from_fov, unproject
from vggrpo.rewards import SceneReward


class LatentsAsCameras(nn.Module):
    """Camera i stands where the means of latent frame i's first three channels say, and sees a wall."""

    def __init__(self, latent_spec: LatentSpec) -> None:
        super().__init__()
        self.latent_spec = latent_spec

    def check_latents(self, latent_spec: LatentSpec, video_model: str) -> None:
        assert latent_spec == self.latent_spec

    def forward(self, latents: Tensor) -> SceneGeometry:
        centres = latents.mean(dim=(3, 4)).movedim(1, 2)[..., :3]
        batch, views, _ = centres.shape
        camera_to_world = torch.eye(4).repeat(batch, views, 1, 1)
        camera_to_world[..., :3, 3] = centres
        intrinsics = intrinsics_from_fov(torch.tensor(1.0), 2, 2).expand(batch, views, 3, 3)
        depth = torch.ones(batch, views, 2, 2)
        return SceneGeometry(
            camera_to_world, intrinsics, depth, unproject(depth, intrinsics, camera_to_world)
        )


class StandsRight(SceneReward):
    """The mean x of the cameras: how far it is from the base model's is the gain."""

    def score(self, scene):
        value = scene.camera_to_world[..., 0, 3].mean(dim=1)
        return value, torch.ones_like(value, dtype=torch.bool), {}


class AlwaysOne(SceneReward):
    """Nothing to learn from."""

    def score(self, scene):
        value = torch.ones(scene.batch_size)
        return value, value > 0, {}


class FailsBehind(StandsRight):
    """As `StandsRight`, but invalid where the cameras stand left of 0."""

    def score(self, scene):
        value, _, parts = super().score(scene)
        return value, value > 0, parts
