"""From measures to figures and a recommendation, on measures whose figures are known."""

import csv
import json
import math

import pytest
import torch

from vggrpo.config import ODE, NoiseCell
from vggrpo.evaluation import Interval
from vggrpo.training.tune_noise_figures import NoiseRow, NoiseTuning, ScoreScale, cell_figures, summarise

G, K, C = 40, 8, 3
PROMPTS = [f"prompt-{g}" for g in range(G)]
WEIGHTS = {"camera_motion": 0.5, "reprojection": 0.5}


def normal(*shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def measures(camera_motion, reprojection, valid=None, **latent):
    """Latents of mean 0, mean square 1 and mean square step .5, unless given."""
    groups = len(camera_motion)
    moments = {"mean": 0.0, "square": 1.0, "step": 0.5} | latent
    return {
        "reward/camera_motion": camera_motion,
        "reward/reprojection": reprojection,
        "valid": torch.ones(camera_motion.shape, dtype=torch.bool) if valid is None else valid,
        "latent/extreme": torch.full((groups,), 0.01, dtype=torch.float64),
        **{
            f"latent/{name}": torch.full((groups, C), value, dtype=torch.float64)
            for name, value in moments.items()
        },
    }


@pytest.fixture
def ode():
    return measures(0.6 + 0.1 * normal(G, K, seed=0), 0.3 + 0.02 * normal(G, K, seed=1))


def figures(cell, ode, prompts=PROMPTS):
    return cell_figures(cell, ode, ScoreScale.of(ode, WEIGHTS), prompts)


def test_rollouts_that_are_the_odes_samples_explore_and_lose_nothing(ode):
    ours = figures(ode, ode)
    for name in ("exploration", "loss", "latent/shift", "invalid"):
        assert (ours[name].mean, ours[name].low, ours[name].high) == (0, 0, 0), name
    assert ours["latent/roughness"].mean == ours["informative"].mean == 1
    assert ours["reward/camera_motion/mean"].mean == pytest.approx(ode["reward/camera_motion"].mean().item())
    std = ode["reward/reprojection"].std(dim=1, correction=0).mean().item()
    assert ours["reward/reprojection/std"].mean == pytest.approx(std)


def test_the_score_is_the_weighted_mean_of_z_scores(ode):
    scale = ScoreScale.of(ode, {"camera_motion": 0.9, "reprojection": 0.3})
    z = {name: ode[f"reward/{name}"].flatten() for name in WEIGHTS}
    z = {name: (value - value.mean()) / value.std(correction=0) for name, value in z.items()}
    expected = 0.75 * z["camera_motion"] + 0.25 * z["reprojection"]
    torch.testing.assert_close(scale.score(ode).flatten(), expected)


def test_a_common_fall_is_loss_and_no_exploration(ode):
    """A tenth of one reward (std .1) and nothing of the other: half a standard deviation of score."""
    fallen = measures(ode["reward/camera_motion"] - 0.1, ode["reward/reprojection"])
    ours = figures(fallen, ode)
    std = ode["reward/camera_motion"].std(correction=0).item()
    assert ours["loss"].mean == pytest.approx(0.5 * 0.1 / std)
    assert ours["loss"].high - ours["loss"].low == pytest.approx(0, abs=1e-9)
    assert ours["exploration"].mean == pytest.approx(0, abs=1e-9)


def test_rollouts_that_forget_their_noise_explore_sqrt_2_times_the_groups_std(ode):
    other = measures(0.6 + 0.1 * normal(G, K, seed=6), 0.3 + 0.02 * normal(G, K, seed=7))
    ours = figures(other, ode)
    independent = math.hypot(ours["score/std"].mean, figures(ode, ode)["score/std"].mean)
    assert ours["exploration"].mean == pytest.approx(independent, rel=0.1)
    assert ours["loss"].low < 0 < ours["loss"].high


def test_exploration_is_the_change_within_a_group_alone(ode):
    """Changes that all members of a group share are no exploration, whatever they are."""
    shared = normal(G, 1, seed=4)
    ours = figures(measures(ode["reward/camera_motion"] + shared, ode["reward/reprojection"] + shared), ode)
    assert ours["exploration"].mean == pytest.approx(0, abs=1e-9)
    assert ours["loss"].high - ours["loss"].low > 0.1


def test_failed_samples_are_left_out_and_counted(ode):
    valid = torch.ones(G, K, dtype=torch.bool)
    valid[:, 0], valid[3] = False, False
    broken = {name: torch.where(valid, ode[f"reward/{name}"] - 0.01, torch.nan) for name in WEIGHTS}
    ours = figures(measures(broken["camera_motion"], broken["reprojection"], valid), ode)
    assert ours["invalid"].mean == pytest.approx((~valid).double().mean().item())
    assert ours["loss"].count == valid.sum()
    assert ours["loss"].missing == (~valid).sum()
    assert ours["exploration"].mean == pytest.approx(0, abs=1e-9)
    assert (ours["exploration"].count, ours["exploration"].missing) == (G - 1, 1)
    assert ours["informative"].mean == pytest.approx(1 - 1 / G)
    expected = broken["camera_motion"][valid].mean().item()
    assert ours["reward/camera_motion/mean"].mean == pytest.approx(expected)


def test_a_failed_twin_takes_its_rollout_out(ode):
    valid = torch.ones(G, K, dtype=torch.bool)
    valid[:, 1] = False
    holes = {name: torch.where(valid, ode[f"reward/{name}"], torch.nan) for name in WEIGHTS}
    reference = measures(holes["camera_motion"], holes["reprojection"], valid)
    ours = figures(ode, reference)
    assert ours["loss"].count == G * (K - 1)
    assert ours["invalid"].mean == 0


def test_groups_without_a_difference_are_not_informative(ode):
    constant = measures(ode["reward/camera_motion"].clone(), ode["reward/reprojection"].clone())
    for name in WEIGHTS:
        constant[f"reward/{name}"][:10] = 0.5
    constant["reward/camera_motion"][10:20] = 0.5  # the other reward still differs
    assert figures(constant, ode)["informative"].mean == pytest.approx(0.75)


def test_a_reward_that_is_constant_over_the_odes_samples_does_not_count(ode):
    flat = measures(ode["reward/camera_motion"], torch.full((G, K), 0.25, dtype=torch.float64))
    moved = measures(ode["reward/camera_motion"], ode["reward/reprojection"])
    ours = figures(moved, flat)
    assert (ours["loss"].mean, ours["exploration"].mean) == (0, 0)


def test_nothing_to_compare_with_is_an_error(ode):
    nothing = measures(
        ode["reward/camera_motion"], ode["reward/reprojection"], torch.zeros(G, K, dtype=torch.bool)
    )
    with pytest.raises(ValueError, match="the rewards failed on every ODE sample"):
        summarise({ODE: nothing}, WEIGHTS, PROMPTS, 0.5, 0.1)


def test_latent_figures_are_of_the_pooled_latents(ode):
    """Means of +- .3 in half of the groups each are a larger std, not a shift of the mean."""
    spread = measures(ode["reward/camera_motion"], ode["reward/reprojection"], square=1.09, step=0.72)
    spread["latent/mean"][: G // 2], spread["latent/mean"][G // 2 :] = 0.3, -0.3
    ours = figures(spread, ode)
    expected = math.hypot(math.sqrt(1.09) - 1, math.sqrt(0.72) - math.sqrt(0.5))
    assert ours["latent/shift"].mean == pytest.approx(expected)
    assert ours["latent/shift"].low <= expected <= ours["latent/shift"].high
    assert ours["latent/roughness"].mean == pytest.approx(1.2)


def test_pixels_are_compared_by_their_means(ode):
    before = ode | {"pixels/sharpness": torch.linspace(50, 150, G), "pixels/brightness": torch.zeros(G)}
    after = before | {"pixels/sharpness": before["pixels/sharpness"] * 1.25}
    ours = figures(after, before)
    assert ours["pixels/sharpness"].mean == pytest.approx(0.25)
    assert math.isnan(ours["pixels/brightness"].mean), "black has no relative change"


def row(name, exploration, loss, shift, length=5):
    """A row whose intervals are (mean, upper end)."""
    values = {"exploration": (exploration, exploration), "loss": loss, "latent/shift": shift}
    intervals = {k: Interval(mean, mean - 0.01, high, 10) for k, (mean, high) in values.items()}
    return NoiseRow(NoiseCell("flow_sde", name, 0, length), intervals)


def tuning(*rows, tolerance=0.5, latent_tolerance=0.1):
    return NoiseTuning((row(0.0, 0.0, (0, 0), (0, 0), 0), *rows), tolerance, latent_tolerance)


def test_the_largest_exploration_within_both_tolerances_is_recommended():
    rows = (
        row(0.3, 0.2, (0.0, 0.1), (0.01, 0.02)),
        row(0.5, 0.4, (0.1, 0.3), (0.02, 0.05)),
        row(0.7, 0.6, (0.3, 0.6), (0.03, 0.06)),  # the loss may be too large
        row(1.0, 0.8, (0.1, 0.3), (0.05, 0.12)),  # the latents may be too far off
    )
    result = tuning(*rows)
    assert result.recommended is rows[1]
    assert [result.within_tolerance(r) for r in rows] == [True, True, False, False]
    assert "--noise-scale 0.5 --sde-window-start 0 --sde-window-length 5" in result.sentence
    assert tuning(*rows, tolerance=0.7).recommended is rows[2]
    assert tuning(*rows, latent_tolerance=0.2).recommended is rows[3]


def test_of_equals_the_cheaper_one_is_recommended():
    rows = [row(0.5, 0.4, (0, 0.1), (0, 0.01), length) for length in (9, 3, 5)]
    assert tuning(*rows).recommended is rows[1]


def test_the_ode_is_never_recommended_and_unknown_losses_are_not_small():
    unknown = row(0.5, 0.4, (float("nan"), float("nan")), (0.0, 0.01))
    result = tuning(unknown)
    assert result.recommended is None
    assert "no setting has loss and latent shift within the tolerances (0.5 and 0.1)" in result.sentence
    assert result.as_dict()["recommended"] is None


def test_json_and_csv_hold_every_figure(ode):
    noisy = measures(0.6 + 0.1 * normal(G, K, seed=2), ode["reward/reprojection"])
    cell = NoiseCell("cps", 0.25, 1, 4)
    result = summarise({ODE: ode, cell: noisy}, WEIGHTS, PROMPTS, 5.0, 5.0)
    plain = json.loads(json.dumps(result.as_dict(), allow_nan=False))
    assert plain["recommended"] == {
        "transition": "cps",
        "noise_scale": 0.25,
        "sde_window_start": 1,
        "sde_window_length": 4,
    }
    assert plain["rule"] == result.rule
    lines = list(csv.DictReader(result.as_csv().splitlines()))
    assert [line["cell"] for line in lines] == ["ode", "cps-0.25-1+4"]
    for name, interval in result.rows[1].figures.items():
        shown = plain["cells"][1]["figures"][name]
        assert shown["mean"] == interval.mean
        assert float(lines[1][name]) == interval.mean
        assert float(lines[1][f"{name}/high"]) == interval.high
