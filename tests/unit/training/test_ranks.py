"""Several processes compute what one computes: advantages, gradients, weights."""

import os
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from formula_lgm import StandsRight
from processes import in_ranks
from tiny_trainer import tiny_trainer
from vggrpo.config import ConfigError
from vggrpo.geometry import SceneGeometry
from vggrpo.io import load_tensors
from vggrpo.training import group_advantages
from vggrpo.training import trainer as trainer_module
from vggrpo.training.ranks import Ranks, open_ranks, require_shares, were_restarted
from vggrpo.training.rendezvous import agree_on_name
from vggrpo.training.trainer import VGGRPOTrainer


@pytest.mark.parametrize(("group_size", "size"), [(4, 2), (5, 2), (7, 3), (64, 5)])
def test_every_member_has_one_rank_and_shares_even_out(group_size: int, size: int) -> None:
    ranks = [Ranks(rank, size) for rank in range(size)]
    counts = [0] * size
    for number in range(size):
        shares = [each.members(group_size, number) for each in ranks]
        assert sorted(k for share in shares for k in share) == list(range(group_size))
        counts = [count + len(share) for count, share in zip(counts, shares, strict=True)]
    assert set(counts) == {group_size}


@pytest.mark.parametrize("prompts_per_rollout", [1, 2])
def test_in_as_many_groups_as_ranks_all_have_the_same_number_of_members(
    tiny_pipeline: Path, tmp_path: Path, prompts_per_rollout: int
) -> None:
    size, group_size = 3, 4
    settings = {"group_size": group_size, "prompts_per_rollout": prompts_per_rollout}
    counts = [0] * size
    trainer = tiny_trainer(tiny_pipeline, tmp_path / "run", **settings)
    for rank in range(size):
        trainer.ranks = Ranks(rank, size)
        for trainer.iteration in range(size):
            counts[rank] += sum(len(trainer.members(slot)) for slot in range(prompts_per_rollout))
    assert counts == [group_size * prompts_per_rollout] * size


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
        "largest": ranks.max_figures({"both": -1.0 - ranks.rank} | ({"second": 5.0} if ranks.rank else {})),
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
        assert answer["largest"] == {"both": -1.0, "second": 5.0}
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


SHARED = {
    "shared_noise": True,
    "train_steps": 4,
    "sde_window_length": 1,
    "off_window_coef": 0.1,
    "off_window_members": 3,
}


def one_update(
    ranks: Ranks, pipeline: Path, output: Path, group_size: int, changes: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Scores, advantages, gradient, metrics and weights of the first update."""
    trainer = tiny_trainer(
        pipeline,
        output,
        ranks=ranks,
        group_size=group_size,
        kl_coef=0.1,
        grad_clip=1e9,
        rollout_batch=3,
        update_batch=2,
        **(changes or {}),
    )
    in_the_default_type(trainer)
    groups = [trainer.rollout(place, slot) for slot, place in enumerate(trainer.prompts_of_iteration())]
    scores = trainer.score(groups)
    advantages = group_advantages(scores.rewards, trainer.weights, scores.valid)
    metrics = trainer.update(groups, advantages)
    return {
        "rewards": scores.rewards["camera_motion"],
        "advantages": advantages,
        "gradient": torch.cat([parameter.grad.flatten() for parameter in trainer.parameters]),
        "metrics": metrics,
        "weights": flat_weights(trainer),
    }


def flat_weights(trainer: VGGRPOTrainer) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in trainer.parameters])


def use_float64() -> None:
    """From now on this process computes everything in float64."""
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double
    trainer_module.STORED["float32"] = torch.float64


def in_the_default_type(trainer: VGGRPOTrainer) -> None:
    trainer.policy.transformer.to(torch.get_default_dtype())
    trainer.prompt_embeds = trainer.prompt_embeds.to(torch.get_default_dtype())


def one_update_in_float64(ranks: Ranks, *arguments: Any) -> dict[str, Any]:
    use_float64()
    return one_update(ranks, *arguments)


@pytest.mark.parametrize(("group_size", "changes"), [(4, {}), (5, {}), (5, SHARED)])
def test_two_processes_compute_what_one_does(
    tiny_pipeline: Path, tmp_path: Path, group_size: int, changes: dict[str, Any]
) -> None:
    alone = one_update(Ranks(), tiny_pipeline, tmp_path / "alone", group_size, changes)
    arguments = (tiny_pipeline, tmp_path / "together", group_size, changes)
    together = in_ranks(2, one_update, tmp_path / "ranks", *arguments)
    if changes:  # each rank makes the passes that its members share
        assert together[0]["metrics"]["cost/denoiser_forwards"] > alone["metrics"]["cost/denoiser_forwards"]
        for each in (alone, *together):
            each["metrics"] = {
                name: value for name, value in each["metrics"].items() if not name.startswith("cost/")
            }
    for each in together:
        torch.testing.assert_close(each["rewards"], alone["rewards"], rtol=1e-6, atol=1e-6)
        # Not equal: the batches differ, and with them the order of float32 sums.
        error = (each["gradient"] - alone["gradient"]).norm() / alone["gradient"].norm()
        assert error < 1e-6
        assert each["metrics"] == pytest.approx(alone["metrics"], rel=1e-3, abs=1e-6)
    assert torch.equal(together[0]["gradient"], together[1]["gradient"])


def test_two_processes_compute_what_one_does_in_float64(tiny_pipeline: Path, tmp_path: Path) -> None:
    """Float32 rounding shows in advantages, which divide by a small spread, and in weights, since AdamW makes
    full-size steps of the smallest gradients.
    """
    (alone,), together = (
        in_ranks(
            size, one_update_in_float64, tmp_path / f"{size}", tiny_pipeline, tmp_path / f"run_{size}", 5
        )
        for size in (1, 2)
    )
    assert alone["weights"].dtype == alone["rewards"].dtype == torch.float64
    assert alone["advantages"].abs().max() > 1
    for name in ("rewards", "advantages", "gradient", "weights"):
        assert torch.equal(together[0][name], together[1][name])
        torch.testing.assert_close(together[0][name], alone[name], rtol=0, atol=1e-6)


def run_until(
    ranks: Ranks, pipeline: Path, output: Path, until: int, resume: bool = False
) -> dict[str, torch.Tensor]:
    """Weights and moments after `until` iterations."""
    trainer = tiny_trainer(
        pipeline, output, ranks=ranks, resume=resume, group_size=5, checkpoint_every=1, ema_decay=0.5
    )
    in_the_default_type(trainer)
    trainer.resume()
    trainer.train(until)
    ranks.wait()
    return load_tensors(output / "checkpoints" / f"step_{until:06d}" / "policy.safetensors") | {
        f"moments {name}": value
        for name, value in load_tensors(
            output / "checkpoints" / f"step_{until:06d}" / "optimizer.safetensors"
        ).items()
    }


def interrupted_runs(ranks: Ranks, pipeline: Path, folder: Path) -> dict[str, Any]:
    """Of two processes, or of one: a straight run of two iterations, the same in two parts, and the first
    part in float64.
    """
    name = f"of-{ranks.size}"
    found = {"straight": run_until(ranks, pipeline, folder / f"{name}-straight", until=2)}
    run_until(ranks, pipeline, folder / f"{name}-parts", until=1)
    found["in parts"] = run_until(ranks, pipeline, folder / f"{name}-parts", until=2, resume=True)
    use_float64()
    found["in float64"] = run_until(ranks, pipeline, folder / f"{name}-float64", until=2)
    run_until(ranks, pipeline, folder / f"{name}-first", until=1)
    return found


def second_part(ranks: Ranks, pipeline: Path, run: Path) -> dict[str, torch.Tensor]:
    use_float64()
    return run_until(ranks, pipeline, run, until=2, resume=True)


def test_a_run_goes_on_in_the_same_or_another_number_of_processes(
    tiny_pipeline: Path, tmp_path: Path
) -> None:
    for size in (1, 2):
        found = in_ranks(size, interrupted_runs, tmp_path / f"{size}", tiny_pipeline, tmp_path)[0]
        for name, tensor in found["straight"].items():
            assert torch.equal(found["in parts"][name], tensor), name
        others = in_ranks(
            3 - size,
            second_part,
            tmp_path / f"{size}-then-{3 - size}",
            tiny_pipeline,
            tmp_path / f"of-{size}-first",
        )[0]
        assert others.keys() == found["in float64"].keys()
        for name, tensor in found["in float64"].items():
            torch.testing.assert_close(others[name], tensor, rtol=0, atol=1e-6)


class BreaksOn(StandsRight):
    """Not a number, and not marked as failed, on one rank."""

    def __init__(self, broken: bool) -> None:
        self.broken = broken

    def score(self, scene: SceneGeometry) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
        value, valid, parts = super().score(scene)
        return value * (float("nan") if self.broken else 1.0), valid, parts


def meet_a_nan(ranks: Ranks, pipeline: Path, output: Path) -> dict[str, tuple[str, bool]]:
    """The message of each rank, and whether its state is that before, by where rank 1 alone meets a NaN."""
    found = {}
    for where in ("rollout", "reward", "update"):
        trainer = tiny_trainer(pipeline, output / where, ranks=ranks, prompts_per_rollout=1, rollout_batch=2)
        trainer.train(until=1)
        velocity, passes = trainer.policy.velocity, [0]

        def broken(
            *arguments: Any,
            at: int = 2 if where == "rollout" else 4,
            passes: list[int] = passes,
            velocity: Callable[..., torch.Tensor] = velocity,
            **options: Any,
        ) -> torch.Tensor:
            passes[0] += 1
            return velocity(*arguments, **options) * (float("nan") if passes[0] == at else 1.0)

        if where == "reward":
            trainer.rewards = {"camera_motion": BreaksOn(ranks.rank == 1)}
        elif ranks.rank == 1:
            trainer.policy.velocity = broken
        before = [flat_weights(trainer), *(s["exp_avg"].clone() for s in trainer.optimizer.state.values())]
        try:
            trainer.train(until=2)
        except FloatingPointError as error:
            after = [flat_weights(trainer), *(s["exp_avg"] for s in trainer.optimizer.state.values())]
            same = all(torch.equal(*pair) for pair in zip(before, after, strict=True))
            found[where] = (str(error), same and trainer.iteration == 1)
    return found


def test_a_nan_on_one_rank_stops_all_of_them_before_the_update(tiny_pipeline: Path, tmp_path: Path) -> None:
    first, second = in_ranks(2, meet_a_nan, tmp_path / "ranks", tiny_pipeline, tmp_path / "runs")
    assert first == second
    assert first.keys() == {"rollout", "reward", "update"}
    for where, (message, unchanged) in first.items():
        assert unchanged, where
        assert "sample" in message
        assert "iteration 2" in message
        assert ("Lower the learning rate" in message) == (where == "update")


def find_out_whether_restarted(ranks: Ranks) -> list[bool]:
    answers = []
    for restarted in ((), (1,)):
        os.environ["TORCHELASTIC_RESTART_COUNT"] = str(int(ranks.rank in restarted))
        answers.append(were_restarted(ranks))
    return answers


def test_ranks_are_restarted_together_whatever_each_node_counts(tmp_path: Path) -> None:
    assert in_ranks(2, find_out_whether_restarted, tmp_path / "ranks") == [[False, True]] * 2


def test_shares_that_do_not_come_out_are_refused(tiny_pipeline: Path, tmp_path: Path) -> None:
    settings = tiny_trainer(tiny_pipeline, tmp_path / "run", group_size=8, updates_per_rollout=2).settings
    require_shares(Ranks(0, 8), settings)
    with pytest.raises(ConfigError, match="9 processes share groups of 8"):
        require_shares(Ranks(0, 9), settings)
    rounded = settings.model_copy(update={"precision": "bfloat16", "rollout_batch": 2, "update_batch": 2})
    require_shares(Ranks(0, 2), rounded)
    with pytest.raises(ConfigError, match=r"4 samples of a group .* for 4 processes in batches of 2"):
        require_shares(Ranks(0, 4), rounded)
    in_one_pass = {"shared_noise": True, "sde_window_length": 1}
    require_shares(Ranks(0, 4), rounded.model_copy(update=in_one_pass))


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


@pytest.mark.parametrize(
    ("device", "local_rank", "gpus", "message"),
    [
        ("gpu", "0", 2, "device is 'gpu', expected auto, cpu, cuda or cuda:N"),
        ("cuda", "0", 0, "device is 'cuda', but PyTorch sees 0 CUDA devices here"),
        ("cuda", "2", 2, r"process 2 of this machine .* finds 2 CUDA devices; start at most 2 here"),
        ("auto", "2", 2, r"process 2 of this machine .* finds 2 CUDA devices; start at most 2 here"),
    ],
)
def test_a_device_that_is_not_there_is_refused_by_every_rank(
    monkeypatch: pytest.MonkeyPatch, device: str, local_rank: str, gpus: int, message: str
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("LOCAL_RANK", local_rank)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    with pytest.raises(ConfigError, match=message), open_ranks(device, 1.0):
        pass
