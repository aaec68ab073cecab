"""Training aids of the geometry model, gone once it is trained: what a few heads and tokens must know.

A multi-view transformer learns to match views only when some head happens to look at the right place, which
takes very long on little data (docs/LOG.md). Here chosen heads are told where to look; exact geometry knows:

- head 0 of the matching blocks: from every patch to where view 0 shows the same static point;
- head 1 of the first block: from every patch of view i to the same patch of view 0;
- head 1 of the matching blocks: from patch p of view i to where view i shows the point that view 0 has at p.

Targets lie between patches, and the four around one share the attention bilinearly: its mean is the exact
place. A linear layer on the last tokens predicts what every patch shows, in every step, as the dense heads
do not.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vggrpo.backbones.any4d import Any4DNetwork
from vggrpo.backbones.vit import Block
from vggrpo.geometry import SceneGeometry, project
from vggrpo.lgm.quality import scene_scale

NEAREST_DEPTH = 0.3
"""Scene units; points nearer to a camera, or behind it, are no targets."""
OFFSET_LIMIT = 3.0
"""Longest offset to view 0, in `OFFSET_UNIT` patches, that the tokens must predict."""
OFFSET_UNIT = 2.0
STILL_WEIGHT, MOVING_WEIGHT = 0.2, 8.0
"""Of the flow at patches of view 0 that rest, or move."""


@dataclass(frozen=True)
class Targets:
    """Places on a view's grid of patches, for B sequences of L tokens.

    Attributes:
        index: [B, L, 4] numbers of the patches around each place, as tokens of the sequence.
        weight: [B, L, 4] their bilinear weights; they sum to 1.
        valid: [B, L] whether the token has a place at all.
    """

    index: Tensor
    weight: Tensor
    valid: Tensor


class GeometryGuide(nn.Module):
    """Losses on the attention and the tokens of a network in training.

    Call it after each forward pass of the network: it sees that pass through hooks.
    """

    def __init__(self, network: Any4DNetwork, matching_blocks: tuple[int, ...]) -> None:
        """`matching_blocks`: global blocks (of even number) of the multi-view transformer.

        Raises:
            ValueError: if a block does not exist, attends within views only, or has fewer than two heads.
        """
        super().__init__()
        blocks: list[Block] = list(network.multi_view.blocks)  # type: ignore[arg-type]
        for block in matching_blocks:
            if block % 2 or not 0 <= block < len(blocks):
                raise ValueError(
                    f"matching block {block} is no global block of a multi-view transformer of "
                    f"{len(blocks)} blocks: give even numbers below that"
                )
        self.patch_size, self.heads = network.patch_size, blocks[0].attention.num_heads
        if self.heads < 2:
            raise ValueError(f"multi_view_heads is {self.heads}, but two heads are guided: give 2 or more")
        self.matching_blocks = matching_blocks
        self.tokens = nn.Linear(network.multi_view.norm.normalized_shape[0], 9)
        nn.init.zeros_(self.tokens.weight)
        nn.init.zeros_(self.tokens.bias)
        self._seen: dict[int | str, Tensor] = {}
        for block in {0, *matching_blocks}:
            blocks[block].attention.qkv.register_forward_hook(self._keep(block))
        network.multi_view.register_forward_hook(self._keep_tokens)

    def forward(self, truth: SceneGeometry) -> tuple[Tensor, Tensor]:
        """The last pass' attention loss (cross-entropy, nats) and token loss (mean absolute error)."""
        patches = PatchGeometry.of(truth, self.patch_size)
        static, same, moved = patches.in_view_0(), patches.same_patch(), patches.in_own_view()
        losses = [self._attention_loss(0, 1, same)]
        for block in self.matching_blocks:
            losses += [self._attention_loss(block, 0, static), self._attention_loss(block, 1, moved)]
        targets, weights = patches.token_targets()
        error = (self.tokens(self._seen["tokens"].float()) - targets).abs() * weights
        self._seen.clear()
        return torch.stack(losses).mean(), error.mean()

    def _attention_loss(self, block: int, head: int, targets: Targets) -> Tensor:
        length, width = targets.valid.shape[1], self._seen[block].shape[-1] // 3
        # The last token of a sequence is the metric scale: it may be looked at, but has no target.
        qkv = self._seen[block].float().unflatten(-1, (3, self.heads, width // self.heads))
        query, key = qkv[:, :length, 0, head], qkv[:, :, 1, head]
        log_attention = (query @ key.mT * key.shape[-1] ** -0.5).log_softmax(dim=-1)
        cross_entropy = -(log_attention.gather(-1, targets.index) * targets.weight).sum(-1)
        return (cross_entropy * targets.valid).sum() / targets.valid.sum().clamp(min=1)

    def _keep(self, block: int) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            self._seen[block] = output

        return hook

    def _keep_tokens(
        self, module: nn.Module, inputs: tuple[Tensor, ...], output: tuple[list[Tensor], Tensor]
    ) -> None:
        self._seen["tokens"] = output[0][-1].flatten(1, 2)


@dataclass(frozen=True)
class PatchGeometry:
    """What the patches' centre pixels show: points and flow [B, T * h * w, 3], and their scene."""

    scene: SceneGeometry
    patch_size: int
    points: Tensor
    flow: Tensor

    @classmethod
    def of(cls, scene: SceneGeometry, patch_size: int) -> "PatchGeometry":
        """Samples a scene with flow, whose raster is a multiple of the patch."""
        centre = slice(patch_size // 2, None, patch_size)
        flow = scene.scene_flow_from_ref
        assert flow is not None
        points = scene.world_points[:, :, centre, centre]
        return cls(scene, patch_size, points.flatten(1, 3), flow[:, :, centre, centre].flatten(1, 3))

    @property
    def grid(self) -> tuple[int, int]:
        """Patches in a view, (h, w)."""
        return self.scene.height // self.patch_size, self.scene.width // self.patch_size

    def in_view_0(self) -> Targets:
        """Where view 0 sees the points of all views, were they static."""
        return self._targets(*self._project(self.points, views=[0] * self.scene.num_views), first_token=0)

    def in_own_view(self) -> Targets:
        """Where view i sees, at its time, the point that view 0 shows at patch p."""
        h, w = self.grid
        count, views = h * w, self.scene.num_views
        moved = self.points[:, :count].repeat(1, views, 1) + self.flow
        first = torch.arange(views).repeat_interleave(count)[:, None] * count
        return self._targets(*self._project(moved, views=range(views)), first_token=first)

    def same_patch(self) -> Targets:
        """The same patch of view 0."""
        h, w = self.grid
        batch, length = self.points.shape[:2]
        index = torch.arange(h * w).repeat(self.scene.num_views).view(1, length, 1).expand(batch, length, 4)
        return Targets(index, torch.full(index.shape, 0.25), torch.ones(batch, length, dtype=torch.bool))

    def token_targets(self) -> tuple[Tensor, Tensor]:
        """What the tokens must know [B, L, 9], and its weights.

        Offset in view 0 (x, y) and logarithm of the depth there; the point (3); the flow (3). Lengths are in
        median depths.
        """
        scale = scene_scale(self.scene)[:, None, None]
        uv, depth = self._project(self.points, views=[0] * self.scene.num_views)
        offset = (uv - self._own_pixels()) / (OFFSET_UNIT * self.patch_size)
        ahead = (depth > NEAREST_DEPTH)[..., None]
        log_depth = (depth.clamp(min=NEAREST_DEPTH)[..., None] / scale).log()
        seen_from_0 = torch.cat((offset.clamp(-OFFSET_LIMIT, OFFSET_LIMIT), log_depth), dim=-1)
        moving = self.flow.abs().sum(dim=-1, keepdim=True) > 0
        weights = (
            ahead.expand_as(self.points),
            torch.ones_like(self.points),
            torch.where(moving, MOVING_WEIGHT, STILL_WEIGHT).expand_as(self.flow),
        )
        targets = (seen_from_0, self.points / scale, self.flow / scale)
        return torch.cat(targets, dim=-1), torch.cat([w.float() for w in weights], dim=-1)

    def _project(self, points: Tensor, views: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Pixels [B, L, 2] and depths [B, L] of points in the cameras `views`, one per view of the scene."""
        h, w = self.grid
        views = list(views)
        per_view = points.unflatten(1, (self.scene.num_views, h * w))
        uv, depth = project(per_view, self.scene.intrinsics[:, views], self.scene.camera_to_world[:, views])
        return uv.flatten(1, 2), depth.flatten(1, 2)

    def _own_pixels(self) -> Tensor:
        """Centre pixels [L, 2] of the patches of all views."""
        h, w = self.grid
        first, size = self.patch_size // 2, self.patch_size
        y, x = torch.meshgrid(first + size * torch.arange(h), first + size * torch.arange(w), indexing="ij")
        return torch.stack((x, y), dim=-1).flatten(0, 1).float().repeat(self.scene.num_views, 1)

    def _targets(self, uv: Tensor, depth: Tensor, first_token: int | Tensor) -> Targets:
        h, w = self.grid
        x, y = ((uv - self.patch_size // 2) / self.patch_size).unbind(-1)
        valid = (depth > NEAREST_DEPTH) & (x > -0.5) & (x < w - 0.5) & (y > -0.5) & (y < h - 0.5)
        x, y = x.clamp(0, w - 1), y.clamp(0, h - 1)
        left, top = x.floor().clamp(max=max(w - 2, 0)), y.floor().clamp(max=max(h - 2, 0))
        fx, fy = x - left, y - top
        corners = [(dy, dx) for dy in (0, 1) for dx in (0, 1)]
        index = torch.stack([(top + dy) * w + left + dx for dy, dx in corners], dim=-1).long()
        weight = torch.stack([(fy if dy else 1 - fy) * (fx if dx else 1 - fx) for dy, dx in corners], dim=-1)
        return Targets(index + first_token, weight, valid)


def mirrored(frames: Tensor, scene: SceneGeometry) -> tuple[Tensor, SceneGeometry]:
    """Frames [B, T, H, W, 3] and their scene as seen in a mirror: x to the right becomes x to the left."""
    flip = torch.tensor([-1.0, 1.0, 1.0])
    pose_flip = torch.tensor([-1.0, 1.0, 1.0, 1.0])
    intrinsics = scene.intrinsics.clone()
    intrinsics[..., 0, 2] = scene.width - 1 - intrinsics[..., 0, 2]
    flow = scene.scene_flow_from_ref
    return frames.flip(3), dataclasses.replace(
        scene,
        camera_to_world=pose_flip[:, None] * scene.camera_to_world * pose_flip,
        intrinsics=intrinsics,
        depth_z=scene.depth_z.flip(3),
        world_points=scene.world_points.flip(3) * flip,
        confidence=None if scene.confidence is None else scene.confidence.flip(3),
        scene_flow_from_ref=None if flow is None else flow.flip(3) * flip,
        static_mask=None if scene.static_mask is None else scene.static_mask.flip(3),
    )
