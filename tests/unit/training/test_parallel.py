"""Weights and tokens shared out over processes: what is computed stays the same."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from pydantic import ValidationError
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from processes import in_ranks
from tiny_models import tiny_ltx
from tiny_trainer import tiny_trainer
from vggrpo.backbones import load_video_backbone
from vggrpo.config import ConfigError
from vggrpo.training import group_advantages
from vggrpo.training.parallel import spread, tokens_mesh, weights_mesh
from vggrpo.training.plan.counting import Known
from vggrpo.training.plan.plan import Phase
from vggrpo.training.plan.train import TrainPlanner
from vggrpo.training.ranks import Ranks, require_shares
from vggrpo.training.trainer import VGGRPOTrainer

CLIPS = {"group_size": 4, "kl_coef": 0.1, "grad_clip": 1e9}


def first_update(trainer: VGGRPOTrainer) -> dict[str, Any]:
    """Rewards, gradient and metrics; the base model, with which the KL is computed, is in it."""
    groups = [trainer.rollout(place, slot) for slot, place in enumerate(trainer.prompts_of_iteration())]
    scores = trainer.score(groups)
    advantages = group_advantages(scores.rewards, trainer.weights, scores.valid)
    metrics = trainer.update(groups, advantages)
    return {
        "rewards": scores.rewards["camera_motion"],
        "gradient": torch.cat([parameter.grad.flatten() for parameter in trainer.parameters]),
        "metrics": metrics,
    }


def held(trainer: VGGRPOTrainer) -> float:
    """Share of the blocks' frozen weights that this process holds between forward passes."""
    frozen = [p for p in trainer.policy.transformer.blocks.parameters() if not p.requires_grad]
    own = sum((p.to_local() if isinstance(p, DTensor) else p).numel() for p in frozen)
    return own / sum(p.numel() for p in frozen)


def each_way(ranks: Ranks, pipeline: Path, output: Path, ways: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Per way to run in parallel: the first update, and what is held."""
    os.environ["LOCAL_WORLD_SIZE"] = "2"
    answers = {}
    for name, way in ways.items():
        lockstep = way != {}
        team = Ranks(ranks.rank, ranks.size, context=way.get("context_parallel", 1), lockstep=lockstep)
        trainer = tiny_trainer(pipeline, output / name, ranks=team, **CLIPS, **way)
        answers[name] = first_update(trainer) | {"held": held(trainer)}
        if name == "fsdp":
            trainer.iteration = 1
            trainer.save_checkpoint()
            # One rank saves alone, between passes without gradients: all must still be in step.
            trainer.rollout(0)
            if ranks.is_first:
                trainer.policy.save_lora(output / "best")
            trainer.rollout(1)
    return answers


def same_as(alone: dict[str, Any], answer: dict[str, Any]) -> None:
    torch.testing.assert_close(answer["rewards"], alone["rewards"], rtol=1e-6, atol=1e-6)
    error = (answer["gradient"] - alone["gradient"]).norm() / alone["gradient"].norm()
    assert error < 1e-6
    assert answer["metrics"] == pytest.approx(alone["metrics"], rel=1e-3, abs=1e-6)


TWO = {"ddp": {}, "fsdp": {"parallel": "fsdp"}, "context": {"context_parallel": 2}}
FOUR = {"hsdp": {"parallel": "hsdp"}, "both": {"parallel": "fsdp", "context_parallel": 2}}


def test_two_processes_compute_the_same_however_they_share(tiny_pipeline: Path, tmp_path: Path) -> None:
    alone = first_update(tiny_trainer(tiny_pipeline, tmp_path / "alone", **CLIPS))
    answers = in_ranks(2, each_way, tmp_path / "ranks", tiny_pipeline, tmp_path, TWO)
    for answer in answers:
        for name in TWO:
            same_as(alone, answer[name])
        assert answer["ddp"]["held"] == answer["context"]["held"] == 1.0
        assert answer["fsdp"]["held"] == pytest.approx(0.5, abs=0.02)
        # Sharded weights are gathered, not computed with: nothing is even rounded otherwise.
        assert torch.equal(answer["fsdp"]["gradient"], answer["ddp"]["gradient"])
    resumed_alone(tiny_pipeline, tmp_path / "fsdp")


def resumed_alone(pipeline: Path, output: Path) -> None:
    """A checkpoint of two processes that share the weights goes on in one, and loads in plain diffusers."""
    trainer = tiny_trainer(pipeline, output, resume=True, **CLIPS)
    trainer.resume()
    assert trainer.iteration == 1
    checkpoint = trainer.run.latest_checkpoint().path
    policy = load_video_backbone(str(pipeline))
    policy.load_lora(checkpoint / "lora")
    for name, parameter in trainer.policy.trainable_parameters().items():
        assert torch.equal(policy.trainable_parameters()[name], parameter)
        assert torch.equal(parameter, load_file(checkpoint / "policy.safetensors")[name])
    trainer.train(until=2)
    assert trainer.run.latest_checkpoint().step == 2


def resumed_by_two(ranks: Ranks, pipeline: Path, output: Path) -> dict[str, torch.Tensor]:
    ranks = Ranks(ranks.rank, ranks.size, lockstep=True)
    trainer = tiny_trainer(pipeline, output, ranks=ranks, resume=True, parallel="fsdp", **CLIPS)
    trainer.resume()
    resumed = {name: p.detach().clone() for name, p in trainer.policy.trainable_parameters().items()}
    trainer.train(until=2)
    return resumed


def test_a_checkpoint_of_one_process_goes_on_in_two_that_share_the_weights(
    tiny_pipeline: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    tiny_trainer(tiny_pipeline, run, checkpoint_every=1, **CLIPS).train(until=1)
    gc.collect()  # the run's lock ends with its trainer
    saved = load_file(run / "checkpoints" / "step_000001" / "policy.safetensors")
    for resumed in in_ranks(2, resumed_by_two, tmp_path / "ranks", tiny_pipeline, run):
        assert resumed.keys() == saved.keys()
        assert all(torch.equal(resumed[name], weight) for name, weight in saved.items())
    assert (run / "checkpoints" / "step_000002").is_dir()


def test_four_processes_in_two_machines_or_two_teams(tiny_pipeline: Path, tmp_path: Path) -> None:
    alone = first_update(tiny_trainer(tiny_pipeline, tmp_path / "alone", **CLIPS))
    for answer in in_ranks(4, each_way, tmp_path / "ranks", tiny_pipeline, tmp_path, FOUR):
        for name in FOUR:
            same_as(alone, answer[name])
        assert answer["hsdp"]["held"] == pytest.approx(0.5, abs=0.02)
        assert answer["both"]["held"] == pytest.approx(0.25, abs=0.02)


@pytest.fixture
def sixty_four() -> Iterator[Ranks]:
    """Rank 13 of 64 on 8 machines, in this process: what is sent arrives nowhere."""
    dist.init_process_group("fake", store=FakeStore(), rank=13, world_size=64)
    yield Ranks(13, 64, context=2, lockstep=True)
    dist.destroy_process_group()


def test_the_layout_of_64_gpus(
    sixty_four: Ranks, tiny_pipeline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    mesh = weights_mesh("cpu", 64, 8)
    assert mesh.shape == (8, 8)
    assert dist.get_process_group_ranks(mesh.get_group("share")) == list(range(8, 16))
    assert dist.get_process_group_ranks(mesh.get_group("copy")) == list(range(5, 64, 8))
    tokens = tokens_mesh("cpu", sixty_four)
    assert dist.get_process_group_ranks(tokens.get_group("ulysses")) == [12, 13]

    policy = load_video_backbone(str(tiny_pipeline))
    policy.add_lora(4, 8)
    latent_shape = policy.latent_shape(5, 16, 16)
    spread(policy, sixty_four, "hsdp", latent_shape)
    frozen = policy.transformer.blocks[0].attn1.to_q.base_layer.weight
    assert isinstance(frozen, DTensor)
    assert frozen.to_local().shape == (frozen.shape[0] // 8, frozen.shape[1])
    assert not any(isinstance(parameter, DTensor) for parameter in policy.trainable_parameters().values())

    # A forward and backward pass lays out all exchanges, though nothing arrives.
    clip = torch.randn(1, *latent_shape)
    policy.velocity(clip, 0.5, torch.randn(1, 6, 16)).sum().backward()
    for parameter in policy.trainable_parameters().values():
        assert parameter.grad is not None
        assert parameter.grad.shape == parameter.shape


def test_shares_of_64_gpus(sixty_four: Ranks) -> None:
    teams = [Ranks(rank, 64, context=2).members(64, number=3) for rank in range(64)]
    assert teams[::2] == teams[1::2]
    assert sorted(k for team in teams[::2] for k in team) == list(range(64))


def test_a_plan_knows_what_each_of_64_gpus_holds_and_does(tiny_pipeline: Path, tmp_path: Path) -> None:
    clips = CLIPS | {"group_size": 64, "num_prompts": 3, "num_evaluation_prompts": 64}
    settings = tiny_trainer(tiny_pipeline, tmp_path / "run", **clips).settings

    known = Known()

    def planned(**changes: object) -> tuple[TrainPlanner, list[Phase]]:
        planner = TrainPlanner(settings.model_copy(update=changes), gpus=64)
        return planner, planner.phases(planner.costs(known))

    (plain, whole), (sharded, part), (teams, shared) = (
        planned(),
        planned(parallel="fsdp"),
        planned(context_parallel=2),
    )
    assert sharded.denoiser_bytes < plain.denoiser_bytes
    assert (plain.samples, teams.samples) == (2, 4)
    for a, b, c in zip(whole, part, shared, strict=True):
        assert a.flops == b.flops
        assert a.memory - b.memory == plain.denoiser_bytes - sharded.denoiser_bytes
        # Twice the samples, half the tokens of each; the latent geometry model is not shared out.
        assert c.flops == pytest.approx(a.flops * (2 if c.name == "LGM" else 1))


def test_what_cannot_be_shared_out_is_refused(tiny_pipeline: Path, tmp_path: Path) -> None:
    settings = tiny_trainer(tiny_pipeline, tmp_path / "run", **CLIPS).settings
    with pytest.raises(ConfigError, match="context_parallel is 2, but 3 processes cannot be divided"):
        require_shares(Ranks(0, 3), settings.model_copy(update={"context_parallel": 2}))
    with pytest.raises(ConfigError, match=r"4 samples of a group .* for 3 processes, but with parallel fsdp"):
        require_shares(Ranks(0, 3), settings.model_copy(update={"parallel": "fsdp"}))
    require_shares(Ranks(0, 8), settings.model_copy(update={"parallel": "hsdp", "context_parallel": 2}))
    held = {"off_window_coef": 0.1, "off_window_members": 2}
    require_shares(Ranks(0, 2), settings.model_copy(update={"parallel": "fsdp", **held}))
    require_shares(Ranks(0, 4), settings.model_copy(update=held))
    with pytest.raises(ConfigError, match="off_window_members is 2 for 4 processes, but with parallel fsdp"):
        require_shares(Ranks(0, 4), settings.model_copy(update={"parallel": "fsdp", **held}))
    with pytest.raises(ConfigError, match="12 processes are not a multiple of the 8 of this machine"):
        weights_mesh("cpu", 12, 8)
    offloading = {"parallel": "fsdp", "efficiency": {"offload": True}}
    with pytest.raises(ValidationError, match=r"efficiency\.offload takes the whole denoiser off the GPU"):
        type(settings).model_validate(settings.model_dump() | offloading)


def test_heads_and_tokens_that_cannot_be_divided_are_refused(
    sixty_four: Ranks, tiny_pipeline: Path, tmp_path: Path
) -> None:
    policy = load_video_backbone(str(tiny_pipeline))
    four = tokens_mesh("cpu", Ranks(13, 64, context=4))
    with pytest.raises(ConfigError, match=r"4, but a clip has 2 tokens.* use 1 or 2, or another size"):
        policy.share_tokens(four, policy.latent_shape(1, 16, 8))
    other = load_video_backbone(str(tiny_ltx(tmp_path / "ltx")))
    with pytest.raises(ConfigError, match="LTXPipeline, whose tokens cannot be shared out"):
        other.share_tokens(four, other.latent_shape(9, 32, 32))
    with pytest.raises(ConfigError, match=r"4, but the denoiser has 2 attention heads.* use 1 or 2"):
        policy.share_tokens(four, policy.latent_shape(5, 16, 16))
