"""Muon: orthogonal updates, against torch's own implementation."""

import pytest
import torch
from torch import nn

from vggrpo.config import LoopSettings
from vggrpo.training.muon import Muon, muon_and_adamw, orthogonalise


@pytest.mark.parametrize("shape", [(8, 8), (6, 20), (20, 6)])
def test_singular_values_are_about_one_and_vectors_are_kept(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 100
    left, _, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    result = orthogonalise(matrix).double()
    in_its_basis = left.T @ result @ right.T
    singular = in_its_basis.diagonal()
    assert singular.min() > 0.3  # the smallest value of a square random matrix needs more iterations
    assert singular.max() < 1.25
    torch.testing.assert_close(in_its_basis, singular.diag(), rtol=0, atol=1e-4)


def test_scale_of_the_gradient_does_not_matter():
    matrix = torch.randn(5, 9, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(orthogonalise(1000 * matrix), orthogonalise(matrix), rtol=1e-3, atol=1e-4)


def test_zero_gradient_moves_nothing():
    parameter = nn.Parameter(torch.ones(4, 4))
    parameter.grad = torch.zeros(4, 4)
    Muon([parameter], lr=0.1).step()
    assert torch.equal(parameter, torch.ones(4, 4))


@pytest.mark.parametrize("shape", [(6, 10), (10, 6)])
def test_equals_torchs_muon_up_to_its_bfloat16(shape):
    generator = torch.Generator().manual_seed(2)
    start = torch.randn(shape, generator=generator)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    options = {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.1}
    optimizers = [Muon([ours], **options), torch.optim.Muon([theirs], nesterov=True, **options)]
    for _ in range(4):
        gradient = torch.randn(shape, generator=generator)
        for parameter, optimizer in zip((ours, theirs), optimizers, strict=True):
            parameter.grad = gradient.clone()
            optimizer.step()
    moved = (theirs - start).norm()
    assert (ours - theirs).norm() < 0.03 * moved


def test_a_convolution_is_the_matrix_of_its_flattened_kernels():
    generator = torch.Generator().manual_seed(3)
    start, gradient = torch.randn(2, 8, 4, 3, 3, generator=generator)
    convolution, matrix = nn.Parameter(start.clone()), nn.Parameter(start.flatten(1).clone())
    convolution.grad, matrix.grad = gradient, gradient.flatten(1)
    for parameter in (convolution, matrix):
        Muon([parameter], lr=0.1).step()
    assert torch.equal(convolution.flatten(1), matrix)


def test_a_vector_is_refused():
    with pytest.raises(ValueError, match=r"shape \(3,\); it needs matrices or convolutions"):
        Muon([nn.Parameter(torch.zeros(3))], lr=0.1)


def test_parameters_are_shared_out_once_each():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3), nn.GroupNorm(2, 8), nn.Linear(8, 3))
    optimizers = muon_and_adamw(model, 0.02, LoopSettings(steps=1, batch_size=1, lr=1e-3, weight_decay=0.1))
    shares = [[p for group in o.param_groups for p in group["params"]] for o in optimizers]
    assert [id(p) for p in shares[0]] == [id(model[1].weight)]
    assert len(shares[1]) == 7
    assert {id(p) for share in shares for p in share} == {id(p) for p in model.parameters()}
    assert [group["base_lr"] for o in optimizers for group in o.param_groups] == [0.02, 1e-3]


def test_it_trains():
    generator = torch.Generator().manual_seed(4)
    inputs, truth = torch.randn(64, 8, generator=generator), torch.randn(8, 8, generator=generator)
    layer = nn.Linear(8, 8, bias=False)
    optimizer = Muon(layer.parameters(), lr=0.05)
    losses = []
    for _ in range(100):
        optimizer.zero_grad()
        loss = (layer(inputs) - inputs @ truth).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.02 * losses[0]


def test_half_precision_iterations_stay_close():
    matrix = torch.randn(24, 60, generator=torch.Generator().manual_seed(0))
    exact, half = orthogonalise(matrix), orthogonalise(matrix, dtype=torch.bfloat16)
    assert half.dtype == torch.float32
    assert not torch.equal(exact, half)
    assert (exact - half).norm() < 0.1 * exact.norm()
