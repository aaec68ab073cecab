"""Several processes compute what one computes: advantages, gradients, weights."""

import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from processes import in_ranks
from tiny_trainer import tiny_trainer
from vggrpo.config import ConfigError
from vggrpo.training import group_advantages
from vggrpo.training import trainer as trainer_module
from vggrpo.training.ranks import Ranks, open_ranks, require_shares
from vggrpo.training.rendezvous import agree_on_name


@pytest.mark.parametrize(("group_size", "size"), [(4, 2), (5, 2), (7, 3), (64, 5)])
def test_every_member_has_one_rank_and_shares_even_out(group_size: int, size: int) -> None:
    ranks = [Ranks(rank, size) for rank in range(size)]
    counts = [0] * size
    for slot in range(size):
        shares = [each.members(group_size, slot) for each in ranks]
        assert sorted(k for share in shares for k in share) == list(range(group_size))
        counts = [count + len(share) for count, share in zip(counts, shares, strict=True)]
    assert set(counts) == {group_size}


def exchange(ranks: Ranks, file: Path) -> dict[str, Any]:
    tensors = [torch.full((2, 2), float(ranks.rank)), torch.full((3,), 2.0**ranks.rank, dtype=torch.float64)]
    ranks.sum_(tensors)
    with ranks.first_before_others():
        found = file.exists()
        file.touch()
    return {
        "found": found,
        "sums": tensors,
        "figures": ranks.sum_figures({"both": 1.0} | ({"second": 5.0} if ranks.rank else {})),
        "first": ranks.of_first(f"of {ranks.rank}"),
        "any": ranks.any(ranks.rank == 1),
    }


def test_exchanges(tmp_path: Path) -> None:
    answers = in_ranks(2, exchange, tmp_path / "ranks", tmp_path / "made-by-the-first")
    assert [answer["found"] for answer in answers] == [False, True]
    for answer in answers:
        assert (answer["sums"][0] == 1.0).all()
        assert (answer["sums"][1] == 3.0).all()
        assert answer["sums"][1].dtype == torch.float64
        assert answer["figures"] == {"both": 2.0, "second": 5.0}
        assert answer["first"] == "of 0"
        assert answer["any"] is True


def differ(ranks: Ranks) -> str:
    weights = torch.zeros(3)
    ranks.require_equal("weights", [weights])
    # The sums agree, the weights do not.
    weights[0], weights[1] = 1e-9 * ranks.rank, -1e-9 * ranks.rank
    try:
        ranks.require_equal("the policy's weights", [weights])
    except RuntimeError as error:
        return str(error)
    return ""


def test_ranks_that_part_ways_are_noticed(tmp_path: Path) -> None:
    for message in in_ranks(2, differ, tmp_path / "ranks"):
        assert "the policy's weights of rank 1 differ from those of rank 0" in message


def one_update(ranks: Ranks, pipeline: Path, output: Path, group_size: int) -> dict[str, Any]:
    """Scores, advantages, gradient and metrics of the first update."""
    trainer = tiny_trainer(
        pipeline,
        output,
        ranks=ranks,
        group_size=group_size,
        kl_coef=0.1,
        grad_clip=1e9,
        rollout_batch=3,
        update_batch=2,
    )
    groups = [trainer.rollout(place, slot) for slot, place in enumerate(trainer.prompts_of_iteration())]
    scores = trainer.score(groups)
    advantages = group_advantages(scores.rewards, trainer.weights, scores.valid)
    metrics = trainer.update(groups, advantages)
    return {
        "rewards": scores.rewards["camera_motion"],
        "advantages": advantages,
        "gradient": torch.cat([parameter.grad.flatten() for parameter in trainer.parameters]),
        "metrics": metrics,
    }


@pytest.mark.parametrize("group_size", [4, 5])
def test_two_processes_compute_what_one_does(tiny_pipeline: Path, tmp_path: Path, group_size: int) -> None:
    alone = one_update(Ranks(), tiny_pipeline, tmp_path / "alone", group_size)
    together = in_ranks(2, one_update, tmp_path / "ranks", tiny_pipeline, tmp_path / "together", group_size)
    for each in together:
        torch.testing.assert_close(each["rewards"], alone["rewards"], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(each["advantages"], alone["advantages"], rtol=1e-5, atol=1e-5)
        # Not equal: the batches differ, and with them the order of float32 sums.
        error = (each["gradient"] - alone["gradient"]).norm() / alone["gradient"].norm()
        assert error < 1e-6
        assert each["metrics"] == pytest.approx(alone["metrics"], rel=1e-3, abs=1e-6)
    assert torch.equal(together[0]["gradient"], together[1]["gradient"])


def weights_in_float64(ranks: Ranks, pipeline: Path, output: Path) -> torch.Tensor:
    """The policy's weights after an iteration of which everything is computed in float64."""
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double
    trainer_module.STORED["float32"] = torch.float64
    trainer = tiny_trainer(
        pipeline, output, ranks=ranks, group_size=5, kl_coef=0.1, rollout_batch=3, update_batch=2
    )
    trainer.policy.transformer.double()
    trainer.prompt_embeds = trainer.prompt_embeds.double()
    start = torch.cat([parameter.detach().flatten() for parameter in trainer.parameters])
    trainer.train(until=1)
    weights = torch.cat([parameter.detach().flatten() for parameter in trainer.parameters])
    assert weights.dtype == torch.float64
    assert (weights - start).abs().max() > 1e-3
    return weights


def test_updated_weights_of_two_processes_are_those_of_one(tiny_pipeline: Path, tmp_path: Path) -> None:
    """In float64: AdamW makes full-size steps of the smallest gradients, so float32 rounding shows."""
    alone, together = (
        in_ranks(size, weights_in_float64, tmp_path / f"{size}", tiny_pipeline, tmp_path / f"run_{size}")
        for size in (1, 2)
    )
    assert torch.equal(together[0], together[1])
    torch.testing.assert_close(together[0], alone[0], rtol=0, atol=1e-6)


def two_iterations(ranks: Ranks, pipeline: Path, output: Path) -> dict[str, torch.Tensor]:
    trainer = tiny_trainer(pipeline, output, ranks=ranks, group_size=5, checkpoint_every=1)
    trainer.train(until=2)
    return {name: p.detach().clone() for name, p in trainer.policy.trainable_parameters().items()}


def test_a_run_of_two_processes_goes_on_in_one(tiny_pipeline: Path, tmp_path: Path) -> None:
    first, second = in_ranks(2, two_iterations, tmp_path / "ranks", tiny_pipeline, tmp_path / "run")
    assert all(torch.equal(weight, second[name]) for name, weight in first.items())
    alone = two_iterations(Ranks(), tiny_pipeline, tmp_path / "alone")
    trainer = tiny_trainer(tiny_pipeline, tmp_path / "run", resume=True, group_size=5, checkpoint_every=1)
    trainer.resume()
    assert trainer.iteration == 2
    assert [record["step"] for record in trainer.run.read_metrics()] == [1, 2]
    for name, weight in trainer.policy.trainable_parameters().items():
        assert torch.equal(weight, first[name])
        # AdamW's first steps have the size of the learning rate, whatever the gradient's.
        assert (weight - alone[name]).abs().mean() < 0.05 * 1e-2
    trainer.train(until=3)
    assert trainer.run.latest_checkpoint().step == 3


def test_shares_that_do_not_come_out_are_refused(tiny_pipeline: Path, tmp_path: Path) -> None:
    settings = tiny_trainer(tiny_pipeline, tmp_path / "run", group_size=8, updates_per_rollout=2).settings
    require_shares(Ranks(0, 8), settings)
    with pytest.raises(ConfigError, match="9 processes share groups of 8"):
        require_shares(Ranks(0, 9), settings)
    rounded = settings.model_copy(update={"precision": "bfloat16", "rollout_batch": 2, "update_batch": 2})
    require_shares(Ranks(0, 2), rounded)
    with pytest.raises(ConfigError, match=r"4 samples of a group .* for 4 processes in batches of 2"):
        require_shares(Ranks(0, 4), rounded)


def meet_in_threads(store: dist.Store, size: int, late: int) -> list[str]:
    """The names that `size` ranks agree on over a store, of which one comes after the others."""
    names = [""] * size

    def come(rank: int) -> None:
        names[rank] = agree_on_name(store, rank, size, timedelta(seconds=20))

    threads = [threading.Thread(target=come, args=(rank,)) for rank in range(size)]
    for thread in threads[:late] + threads[late + 1 :]:
        thread.start()
    threads[late].start()
    for thread in threads:
        thread.join()
    return names


def test_ranks_that_start_again_do_not_find_what_the_dead_have_left() -> None:
    store = dist.HashStore()
    starts = [meet_in_threads(store, 3, late) for late in (0, 1, 2, 0)]
    assert all(len(set(names)) == 1 for names in starts)
    assert len({names[0] for names in starts}) == 4


def test_a_rank_that_does_not_come_is_named() -> None:
    with pytest.raises(TimeoutError, match=r"rank 1 of 2 has not come within 0:00:00.1"):
        agree_on_name(dist.HashStore(), 0, 2, timedelta(seconds=0.1))


def test_without_torchrun_there_is_one_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_ranks("auto", 1.0) as ranks:
        assert ranks.is_first
        assert ranks.members(3, 7) == [0, 1, 2]
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="device is cuda:1, but 2 processes"), open_ranks("cuda:1", 1.0):
        pass
