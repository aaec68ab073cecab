"""Device, threads and autocast."""

import pytest
import torch

from vggrpo.config import ConfigError, LoopSettings, RewardSettings
from vggrpo.config.pretrain import PretrainSettings
from vggrpo.rewards import CameraMotionReward, ReprojectionReward
from vggrpo.training.rewards import build_rewards
from vggrpo.training.runtime import autocast, choose_device, prepare, set_aside


def test_auto_is_a_device_that_exists():
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert choose_device("auto").type == expected
    assert choose_device("cpu") == torch.device("cpu")


def test_an_unknown_device_is_named():
    with pytest.raises(ConfigError, match="device is 'gpu', expected auto, cpu, cuda or cuda:N"):
        choose_device("gpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_device_names_the_remedy():
    with pytest.raises(ConfigError, match="PyTorch sees 0 CUDA devices here; use another, cpu or auto"):
        choose_device("cuda:1")


def test_threads_are_set_only_if_asked_for(tmp_path):
    before = torch.get_num_threads()
    loop = LoopSettings(steps=1, batch_size=1, lr=1)
    try:
        prepare(PretrainSettings(output=tmp_path, loop=loop))
        assert torch.get_num_threads() == before
        prepare(PretrainSettings(output=tmp_path, loop=loop, threads=before + 1))
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_autocast_is_off_in_float32():
    a = torch.ones(2, 2)
    with autocast("float32"):
        assert (a @ a).dtype == torch.float32
    with autocast("bfloat16"):
        assert (a @ a).dtype == torch.bfloat16


def test_a_model_set_aside_leaves_its_device_and_comes_back_without_gradients():
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    model = torch.nn.Linear(2, 2).to(device)
    before = model.weight.detach().clone()
    model(torch.ones(1, 2, device=device)).sum().backward()
    with set_aside(model):
        assert model.weight.device.type == "cpu"
        assert model.weight.grad is None
    assert model.weight.device == device
    assert torch.equal(model.weight, before)


def test_rewards_have_the_settings_options():
    settings = RewardSettings.model_validate(
        {
            "camera_motion": {"order": "jerk", "translation_floor": 0.5},
            "reprojection": {"relative": True, "worst_k": 2, "compare": "subpixel"},
        }
    )
    rewards = build_rewards(settings)
    motion, reprojection = rewards["camera_motion"], rewards["reprojection"]
    assert isinstance(motion, CameraMotionReward)
    assert isinstance(reprojection, ReprojectionReward)
    assert (motion.order, motion.translation_floor) == ("jerk", 0.5)
    assert (reprojection.relative, reprojection.worst_k, reprojection.compare) == (True, 2, "subpixel")
