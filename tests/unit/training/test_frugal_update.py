"""What training costs: passes that are not needed are not made, and pieces and storage change nothing."""

import pytest
import torch

from formula_lgm import AlwaysOne, StandsRight
from vggrpo.config import TrainSettings
from vggrpo.io import RunFolder
from vggrpo.training import policy_gradient
from vggrpo.training.advantages import teaches

ADVANTAGES = torch.tensor([[1.0, -2.0, 0.5, 0.5], [0.0, 3.0, -1.0, -2.0]])
FLAT = torch.tensor([[0.0, 0.0, 1e-9, 0.0], [0.0, 3.0, -1.0, -2.0]])


class Passes:
    """Counts the samples that go forward and backward through a denoiser."""

    def __init__(self, trainer):
        self.forwards = self.backwards = 0
        trainer.policy.transformer.register_forward_hook(self._forward)

    def _forward(self, module, inputs, outputs):
        self.forwards += len(inputs[0])
        if outputs[0].requires_grad:
            outputs[0].register_hook(self._backward)

    def _backward(self, gradient):
        self.backwards += len(gradient)


def rollouts(trainer):
    return [trainer.rollout(place, slot) for slot, place in enumerate(trainer.prompts_of_iteration())]


def gradient_of(trainer, groups, advantages):
    metrics = trainer.update(groups, advantages)
    return torch.cat([parameter.grad.flatten() for parameter in trainer.parameters]), metrics


def without_times(records):
    return [{k: v for k, v in record.items() if not k.startswith("time/")} for record in records]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"kl_coef": 0.0, "cfg_scale": 2.0},
        {"train_steps": 6, "sde_window_start": 2, "sde_window_length": 2, "shared_noise": True},
        {"train_steps": 6, "sde_window_length": 2, "ode_solver": "heun", "updates_per_rollout": 2},
        {"train_steps": 6, "sde_window_length": 2, "ode_solver": "unipc", "ode_stride": 2},
        {"train_steps": 6, "sde_window_length": 2, "off_window_coef": 0.1, "updates_per_rollout": 2},
        {"train_steps": 6, "sde_window_length": 1, "shared_noise": True, "cfg_scale": 2.0},
        {"train_steps": 6, "sde_window_length": 1, "off_window_coef": 0.1, "off_window_members": 3},
    ],
)
def test_the_cost_of_an_iteration_is_what_is_counted_at_the_denoiser(make_trainer, changes):
    trainer = make_trainer(rollout_batch=3, update_batch=2, **changes)
    passes = Passes(trainer)
    metrics = trainer.step()
    assert metrics["cost/denoiser_forwards"] == passes.forwards
    assert metrics["cost/denoiser_backwards"] == passes.backwards


def test_the_paper_s_iteration_costs_what_its_formula_says(make_trainer):
    """Per sample N rollout steps; per stochastic step the policy forward and backward, and the reference."""
    trainer = make_trainer()
    metrics = trainer.step()
    samples, steps = 2 * 4, 3
    assert metrics["cost/denoiser_forwards"] == samples * (steps + 2 * (steps - 1))
    assert metrics["cost/denoiser_backwards"] == samples * (steps - 1)
    without_kl = make_trainer(name="without", kl_coef=0.0).step()
    assert without_kl["cost/denoiser_forwards"] == samples * (steps + (steps - 1))


def test_members_that_part_in_the_only_trained_step_cost_one_backward_pass_a_batch(make_trainer):
    trainer = make_trainer(train_steps=6, sde_window_length=1, shared_noise=True, kl_coef=0.0)
    metrics = trainer.step()
    groups, members, behind = 2, 4, 5
    assert metrics["cost/denoiser_forwards"] == groups * (1 + members * behind + 1)
    assert metrics["cost/denoiser_backwards"] == groups


def test_a_group_without_advantages_makes_no_pass(make_trainer):
    skipping, all_groups = (
        make_trainer(kl_coef=0.0),
        make_trainer(name="all", kl_coef=0.0, skip_flat_groups=False),
    )
    gradients = []
    for trainer, expected in ((skipping, 1), (all_groups, 2)):
        groups, passes = rollouts(trainer), Passes(trainer)
        gradient, metrics = gradient_of(trainer, groups, FLAT)
        assert passes.forwards == passes.backwards == expected * 4 * 2
        assert metrics["policy/ratio_mean"] == pytest.approx(1.0, abs=1e-6)
        gradients.append(gradient)
    error = (gradients[0] - gradients[1]).norm() / gradients[1].norm()
    assert error < 1e-6  # the 1e-9 that was taken for nothing, and the sums' rounding


def test_without_any_advantage_the_update_costs_nothing(make_trainer):
    trainer = make_trainer(AlwaysOne(), weight_decay=0.0)
    before = [parameter.detach().clone() for parameter in trainer.parameters]
    passes = Passes(trainer)
    metrics = trainer.step()
    assert passes.forwards == 2 * 4 * 3  # the rollouts
    assert passes.backwards == 0
    assert metrics["policy/grad_norm"] == 0.0
    assert "policy/ratio_mean" not in metrics
    assert all(torch.equal(old, new) for old, new in zip(before, trainer.parameters, strict=True))


def test_which_groups_teach():
    assert teaches(FLAT).tolist() == [False, True]
    assert teaches(torch.zeros(1, 3)).tolist() == [False]
    assert teaches(torch.tensor([[0.0, -1.0]])).tolist() == [True]


def test_one_by_one_is_all_at_once(make_trainer, monkeypatch):
    """Eight pieces of one sample and one of eight, in float64: the gradients differ by 4e-16."""
    # The group was drawn in float32.
    monkeypatch.setattr(policy_gradient, "check_on_policy", lambda loss, iteration: None)
    gradients = []
    for size in (1, 8):
        trainer = make_trainer(
            name=f"of-{size}",
            group_size=8,
            prompts_per_rollout=1,
            rollout_batch=8,
            update_batch=size,
            kl_coef=0.1,
            grad_clip=1e9,
        )
        groups = rollouts(trainer)
        trainer.policy.transformer.double().register_forward_pre_hook(
            lambda module, inputs: tuple(each.double() for each in inputs)
        )
        advantages = torch.linspace(-1.5, 1.5, 8)[None]
        gradients.append(gradient_of(trainer, groups, advantages)[0])
    assert gradients[0].dtype == torch.float64
    error = (gradients[0] - gradients[1]).norm() / gradients[1].norm()
    assert error < 1e-12


@pytest.mark.parametrize("storage", ["cpu", "disk"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_first_ratio_is_exactly_one_whatever_is_stored(make_trainer, storage, dtype):
    metrics = make_trainer(
        trajectory_storage=storage, trajectory_dtype=dtype, rollout_batch=2, update_batch=2
    ).step()
    assert metrics["policy/ratio_deviation"] == 0.0
    assert metrics["policy/kl"] == 0.0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_trajectories_on_disk_change_nothing_and_leave_nothing(make_trainer, dtype):
    runs = []
    for storage in ("cpu", "disk"):
        kept = dtype == "float32"  # either way
        trainer = make_trainer(
            name=storage, trajectory_storage=storage, trajectory_dtype=dtype, keep_rollouts=kept
        )
        trainer.train(until=2)
        assert not trainer.scratch.exists()
        assert not trainer.pending.exists()
        runs.append(trainer)
    memory, disk = runs
    assert without_times(disk.run.read_metrics()) == without_times(memory.run.read_metrics())
    for ours, theirs in zip(disk.parameters, memory.parameters, strict=True):
        assert torch.equal(ours, theirs)


def test_trajectories_on_disk_go_when_an_iteration_fails_or_was_killed(make_trainer):
    class Fails(StandsRight):
        def score(self, scene):
            assert any(trainer.scratch.rglob("*.safetensors"))
            raise FloatingPointError("the reward failed")

    trainer = make_trainer(Fails(), trajectory_storage="disk", keep_rollouts=False)
    with pytest.raises(FloatingPointError, match="the reward failed"):
        trainer.step()
    assert not trainer.scratch.exists()
    trainer.rollout(0)  # and now the process is killed
    assert trainer.scratch.exists()
    settings = trainer.settings.model_copy(update={"trajectory_storage": "cpu"})
    RunFolder.open(trainer.run.path, settings)  # where they are kept is free to change
    assert not trainer.scratch.exists()


@pytest.mark.parametrize(("name", "value"), [("ode_solver", "unipc"), ("ode_stride", 2)])
def test_settings_of_the_ode_without_ode_steps_are_refused(make_trainer, name, value):
    values = make_trainer().settings.model_dump()
    with pytest.raises(ValueError, match=f"{name} is {value}, but the window leaves no step but the last"):
        TrainSettings.model_validate(values | {name: value})
