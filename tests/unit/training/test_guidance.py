"""Training aids of the geometry model: exact targets, and heads that learn to look where they are told."""

import dataclasses

import pytest
import torch

from vggrpo.backbones.any4d import Any4D, Any4DConfig
from vggrpo.geometry import project
from vggrpo.training.pretrain.guidance import GeometryGuide, PatchGeometry, mirrored
from vggrpo.world import render_clips, sample_scene

PATCH = 8


@pytest.fixture(scope="module")
def clips():
    specs = [sample_scene("train", i) for i in range(12)]
    return render_clips(specs, views="keys", num_frames=9, height=48, width=64)


@pytest.fixture
def patches(clips):
    return PatchGeometry.of(clips.geometry, PATCH)


def place(targets, grid, first=0):
    """The mean of each token's target, in patches (x, y)."""
    index = targets.index - first
    x, y = index % grid[1], index // grid[1]
    return torch.stack(((x * targets.weight).sum(-1), (y * targets.weight).sum(-1)), dim=-1)


def test_patches_of_view_0_see_themselves(patches):
    h, w = patches.grid
    own = torch.stack((torch.arange(h * w) % w, torch.arange(h * w) // w), dim=-1).float()
    for targets in (patches.in_view_0(), patches.in_own_view(), patches.same_patch()):
        assert targets.valid[:, : h * w].all()
        torch.testing.assert_close(
            place(targets, (h, w))[:, : h * w], own.expand(12, -1, -1), atol=1e-4, rtol=0
        )


def test_targets_share_attention_so_that_its_mean_is_the_projection(clips, patches):
    scene = clips.geometry
    uv, _ = project(
        scene.world_points[:, 2, PATCH // 2 :: PATCH, PATCH // 2 :: PATCH].flatten(1, 2)[:, None],
        scene.intrinsics[:, :1],
        scene.camera_to_world[:, :1],
    )
    expected = (uv[:, 0] - PATCH // 2) / PATCH
    h, w = patches.grid
    targets = patches.in_view_0()
    third_view = slice(2 * h * w, None)
    inside = targets.valid[:, third_view] & (
        (expected >= 0) & (expected <= torch.tensor([w - 1, h - 1]))
    ).all(-1)
    assert inside.float().mean() > 0.3
    torch.testing.assert_close(
        place(targets, (h, w))[:, third_view][inside], expected[inside], atol=1e-3, rtol=0
    )


def test_moving_points_are_sought_where_they_went(clips, patches):
    scene, (h, w) = clips.geometry, patches.grid
    moving = (scene.scene_flow_from_ref[:, 1].norm(dim=-1) > 0.3)[:, PATCH // 2 :: PATCH, PATCH // 2 :: PATCH]
    assert moving.sum() > 5
    view = slice(h * w, 2 * h * w)
    with_flow = patches.in_own_view()
    still = dataclasses.replace(scene, scene_flow_from_ref=torch.zeros_like(scene.scene_flow_from_ref))
    without = PatchGeometry.of(still, PATCH).in_own_view()
    away = (place(with_flow, (h, w), h * w) - place(without, (h, w), h * w))[:, view].norm(dim=-1)
    both = (with_flow.valid & without.valid)[:, view]
    assert away[both & moving.flatten(1)].median() > 0.1
    assert away[both & ~moving.flatten(1)].median() == 0
    # Every target lies in the token's own view.
    assert (with_flow.index[:, view] // (h * w) == 1).all()


def test_the_mirror_image_is_a_scene_too(clips):
    frames, scene = mirrored(clips.frames, clips.geometry)
    uv, depth = project(scene.world_points.flatten(2, 3), scene.intrinsics, scene.camera_to_world)
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(64.0), indexing="ij")
    pixels = torch.stack((x, y), dim=-1).flatten(0, 1).expand_as(uv)
    torch.testing.assert_close(uv, pixels, atol=1e-3, rtol=0)
    torch.testing.assert_close(depth, scene.depth_z.flatten(2), atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(torch.linalg.det(scene.camera_to_world[..., :3, :3]), torch.ones(12, 3))
    again_frames, again = mirrored(frames, scene)
    assert torch.equal(again_frames, clips.frames)
    torch.testing.assert_close(again.camera_to_world, clips.geometry.camera_to_world)
    torch.testing.assert_close(again.scene_flow_from_ref, clips.geometry.scene_flow_from_ref)


def config(**changes):
    values = {
        "patch_size": PATCH,
        "encoder_dim": 32,
        "encoder_depth": 1,
        "encoder_heads": 2,
        "position_grid": 8,
        "multi_view_dim": 32,
        "multi_view_depth": 4,
        "multi_view_heads": 2,
        "multi_view_hooks": (1, 2),
        "dpt_features": 8,
        "dpt_layer_dims": (8, 8, 8, 8),
        "scale_dim": 8,
    }
    return Any4DConfig(**(values | changes))


def test_guided_heads_learn_where_to_look(clips):
    torch.manual_seed(0)
    model = Any4D(config())
    model.reset_parameters(depth=3.0)
    guide = GeometryGuide(model.network, (2,))
    optimizer = torch.optim.Adam([*model.parameters(), *guide.parameters()], lr=3e-3)
    losses = []
    for _ in range(40):
        model.network.predict_cameras(clips.frames[:4])
        attention, tokens = guide(clips.geometry.take(slice(0, 4)))
        optimizer.zero_grad()
        (attention + tokens).backward()
        optimizer.step()
        losses.append((attention.item(), tokens.item()))
    assert losses[-1][0] < losses[0][0] - 0.7
    assert losses[-1][1] < 0.9 * losses[0][1]


@pytest.mark.parametrize(
    ("blocks", "changes", "message"),
    [
        ((1,), {}, "matching block 1 is no global block"),
        ((4,), {}, "matching block 4 is no global block of a multi-view transformer of 4 blocks"),
        ((2,), {"multi_view_heads": 1}, "multi_view_heads is 1, but two heads are guided"),
    ],
)
def test_heads_that_do_not_exist_cannot_be_guided(blocks, changes, message):
    with pytest.raises(ValueError, match=message):
        GeometryGuide(Any4D(config(**changes)).network, blocks)
