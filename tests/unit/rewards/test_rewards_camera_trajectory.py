"""The camera-trajectory reward on an exact room."""

import math

import pytest
import torch

from vggrpo.geometry import dolly, median_depth, orbit, so3_exp
from vggrpo.rewards import CameraTrajectoryReward


def test_on_the_target_it_is_one_in_any_world_and_unit(room_scene):
    path = dolly(4, 1.2)
    scene = room_scene(path[:, :3, 3])
    unit = float(median_depth(scene.depth_z)[0])
    relative = path.clone()
    relative[:, :3, 3] /= unit
    for reward in (CameraTrajectoryReward(relative), CameraTrajectoryReward(path, relative=False)):
        scored = reward(scene)
        assert scored.value.item() == pytest.approx(1.0, abs=1e-5)
        assert scored.parts["trajectory_error"].item() == pytest.approx(0.0, abs=1e-5)
    turn = torch.eye(4)
    turn[:3, :3] = so3_exp(torch.tensor([0.2, -0.4, 0.1]))
    turn[:3, 3] = torch.tensor([3.0, 1.0, -2.0])
    assert CameraTrajectoryReward(turn @ relative)(scene).value.item() == pytest.approx(1.0, abs=1e-5)


def test_errors_are_those_of_a_known_deviation(room_scene):
    """The camera stands still; the target trucks 0.3, 0.6 and pans 0.1, 0.2 rad."""
    target = torch.eye(4).repeat(3, 1, 1)
    target[:, 0, 3] = torch.tensor([0.0, 0.3, 0.6])
    target[:, :3, :3] = so3_exp(torch.tensor([[0.0, 0, 0], [0, 0.1, 0], [0, 0.2, 0]]))
    scored = CameraTrajectoryReward(target, relative=False)(room_scene(torch.zeros(3, 3)))
    e_trans, e_rot = 0.45 / (0.45 + 0.05), 0.15 / (0.15 + 0.05)
    assert scored.parts["e_trans"].item() == pytest.approx(e_trans, abs=1e-5)
    assert scored.parts["e_rot"].item() == pytest.approx(e_rot, abs=1e-5)
    assert scored.parts["trajectory_error"].item() == pytest.approx(math.sqrt((0.09 + 0.36) / 2), abs=1e-5)
    assert scored.parts["rotation_error"].item() == pytest.approx(0.15, abs=1e-5)
    assert scored.value.item() == pytest.approx(0.5 * (1 / (1 + e_trans) + 1 / (1 + e_rot)), abs=1e-5)


def test_going_further_along_the_target_scores_higher(room_scene):
    target = dolly(4, 1.0)
    reward = CameraTrajectoryReward(target, relative=False)
    shares = (-0.5, 0.0, 0.5, 1.0, 1.5)
    values = [reward(room_scene(share * target[:, :3, 3])).value.item() for share in shares]
    assert values[:4] == sorted(values[:4])
    assert values[4] < values[3]


def test_its_gradient_is_finite_everywhere_and_leads_to_the_target(room_scene):
    target = orbit(4, 20.0, radius=2.0)
    reward = CameraTrajectoryReward(target, relative=False)
    centres = torch.zeros(4, 3, dtype=torch.float64, requires_grad=True)
    for _ in range(60):
        scene = room_scene(centres)
        (gradient,) = torch.autograd.grad(reward(scene).value.sum(), centres)
        assert gradient.isfinite().all()
        centres = (centres + 0.05 * gradient / gradient.norm().clamp_min(1e-9)).detach().requires_grad_()
    before = (target[:, :3, 3] - target[0, :3, 3]).norm(dim=1).mean()
    after = (target[:, :3, 3] - (centres - centres[0])).norm(dim=1).mean()
    assert after < 0.3 * before
    exact = room_scene(target[:, :3, 3].double())
    exact = exact.__class__(**{**exact.as_dict(), "camera_to_world": target.double()[None].requires_grad_()})
    (gradient,) = torch.autograd.grad(reward(exact).value.sum(), exact.camera_to_world)
    assert gradient.isfinite().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": torch.eye(4)}, r"target has shape \[4, 4\]"),
        ({"target": torch.full((3, 4, 4), torch.nan)}, "not finite"),
        ({"translation_floor": 0.0}, "translation_floor is 0.0"),
        ({"rotation_floor": -1.0}, "rotation_floor is -1.0"),
    ],
)
def test_bad_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        CameraTrajectoryReward(**{"target": dolly(3, 1.0), **change})


def test_another_number_of_views_is_refused(sliding_room):
    with pytest.raises(ValueError, match="scene has 5 views, but the target path has 3"):
        CameraTrajectoryReward(dolly(3, 1.0))(sliding_room)
