"""The benchmark of full-size models, in its small mode on a clip that is smaller still."""

import math

import pytest
import torch
from common.random_models import SMALL_SIZES, random_geometry
from full_size import GB, GIB, Bench, Case, reward_figures

from vggrpo.evaluation import RewardTiming
from vggrpo.evaluation.timing import Timing
from vggrpo.training.plan.counting import module_bytes


@pytest.mark.slow
def test_a_case_has_every_figure(tmp_path):
    torch.manual_seed(0)
    figures = Bench(SMALL_SIZES, torch.device("cpu"), repeats=1).case(
        Case("wan2.1-1.3b", (9, 32, 32)), tmp_path
    )
    assert figures["one iteration"].keys() == {"rollout", "LGM", "update"}
    for phase in figures["one iteration"].values():
        assert phase["seconds"] > 0
        assert phase["peak GiB"] > 0
    (rewards,) = (value for name, value in figures.items() if name != "one iteration")
    assert rewards.keys() == {"any4d", "vggt"}
    for name, reward in rewards.items():
        uncut = module_bytes(random_geometry(name, SMALL_SIZES, torch.device("cpu")))
        for path in ("latent", "pixel"):
            assert reward[path]["seconds"] > 0
            assert reward[path]["peak GB"] > reward[path]["peak GiB beside the models"] > 0
        assert reward["pixel"]["peak GB"] > uncut / GB
        assert all(math.isfinite(value) for value in reward.values() if isinstance(value, float))


def test_a_paths_memory_is_that_of_its_own_models_and_of_what_it_makes():
    timing = RewardTiming(
        {"latent geometry": Timing([1.0]), "rewards": Timing([0.0])},
        {"decode": Timing([2.0]), "geometry": Timing([1.0]), "rewards": Timing([0.0])},
        4,
        (4, 16, 3, 4, 4),
        "cpu",
        1,
    )
    figures = reward_figures(
        timing, {"latent": 3 * GIB, "pixel": 6 * GIB}, {"latent": 2 * GB, "pixel": 5 * GB}
    )
    assert figures["latent"]["peak GB"] == pytest.approx(2 + 3 * GIB / GB, abs=1e-4)
    assert figures["pixel"]["peak GB"] == pytest.approx(5 + 6 * GIB / GB, abs=1e-4)
    assert figures["latent"]["peak GiB beside the models"] == 3
    assert figures["ratio of memory beside the models"] == 2
    assert figures["ratio of memory"] == pytest.approx(11.442 / 5.221, abs=0.01)
    assert figures["ratio of time"] == 3
