"""The optimizer's schedule, and its state on disk."""

import math

import pytest
import torch
from torch import nn

from vggrpo.config import LoopSettings
from vggrpo.io import load_tensors, save_tensors
from vggrpo.training.muon import Muon
from vggrpo.training.optim import (
    adamw,
    gradient_norm,
    load_optimizer_tensors,
    optimizer_tensors,
    parameter_group,
    set_learning_rate,
    warmup_cosine,
)


def test_warm_up_is_linear_and_trains_from_the_first_step():
    assert [warmup_cosine(step, 10, 4) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]


def test_cosine_falls_from_one_to_the_floor():
    factors = [warmup_cosine(step, 24, 4, floor=0.1) for step in range(4, 25)]
    assert factors[0] == 1.0
    assert factors == sorted(factors, reverse=True)
    assert math.isclose(factors[10], 0.55)
    assert math.isclose(factors[-1], 0.1)


def test_schedule_does_not_rise_again_past_its_end():
    assert warmup_cosine(31, 30, 10) == warmup_cosine(50, 30, 10) == 0.0


def test_schedule_of_one_step_without_room_for_a_cosine():
    assert warmup_cosine(0, 1, 1) == 1.0


def test_learning_rate_is_each_groups_own_base_times_the_factor():
    first, second = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    optimizer = torch.optim.AdamW([parameter_group([first], 1e-3), parameter_group([second], 1e-5, 0.1)])
    set_learning_rate(optimizer, 0.5)
    set_learning_rate(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25e-3, 0.25e-5]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.0, 0.1]


def test_gradient_norm_is_euclidean_over_all_parameters_with_a_gradient():
    parameters = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(3))]
    parameters[0].grad = torch.tensor([1.0, 2.0])
    parameters[1].grad = torch.tensor([[2.0, 4.0], [4.0, 0.0]])
    assert float(gradient_norm(parameters)) == pytest.approx(math.sqrt(1 + 4 + 4 + 16 + 16))


def weights():
    generator = torch.Generator().manual_seed(3)
    return [
        nn.Parameter(torch.randn(5, 4, generator=generator)),
        nn.Parameter(torch.randn(4, generator=generator)),
    ]


def optimizers(parameters):
    loop = LoopSettings(steps=10, batch_size=1, lr=0.01, weight_decay=0.1)
    return [
        Muon([parameter_group(parameters[:1], 0.02)], lr=0.02),
        adamw([parameter_group(parameters[1:], loop.lr, loop.weight_decay)], loop),
    ]


def train(parameters, some, steps):
    for step in steps:
        set_to = torch.Generator().manual_seed(step)
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=set_to)
        for optimizer in some:
            optimizer.step()


def test_state_through_a_file_continues_bit_for_bit(tmp_path):
    straight = weights()
    train(straight, optimizers(straight), range(8))

    first = weights()
    interrupted = optimizers(first)
    train(first, interrupted, range(5))
    for index, optimizer in enumerate(interrupted):
        save_tensors(tmp_path / f"{index}.safetensors", optimizer_tensors(optimizer))
    second = [nn.Parameter(parameter.detach().clone()) for parameter in first]
    resumed = optimizers(second)
    for index, optimizer in enumerate(resumed):
        load_optimizer_tensors(optimizer, load_tensors(tmp_path / f"{index}.safetensors"))
    train(second, resumed, range(5, 8))

    for expected, parameter in zip(straight, second, strict=True):
        assert torch.equal(expected, parameter)


def test_restoring_keeps_the_new_optimizers_learning_rate():
    parameters = weights()
    old, new = optimizers(parameters)[1], optimizers(parameters)[1]
    train(parameters, [old], range(1))
    set_learning_rate(new, 0.5)
    load_optimizer_tensors(new, optimizer_tensors(old))
    assert new.param_groups[0]["lr"] == 0.005
    assert new.param_groups[0]["base_lr"] == 0.01


def test_a_state_of_more_parameters_is_refused():
    with pytest.raises(ValueError, match="state for parameter 4, but this one has 1 parameters"):
        load_optimizer_tensors(optimizers(weights())[1], {"4.exp_avg": torch.zeros(4)})


def test_a_moment_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"0.exp_avg has shape \(5,\), but its parameter has \(4,\)"):
        load_optimizer_tensors(optimizers(weights())[1], {"0.exp_avg": torch.zeros(5)})
