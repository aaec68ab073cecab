"""Tables and pictures from measured figures, also where some could not be measured."""

import json
import math

import alarm_experiment
import lgm_ablation
import numpy as np
import pytest
from harness.options import RESULTS, Options
from harness.results import write_result
from harness.workspace import PolicyRun, Workspace
from plots import draw, noise_tuning
from plots import main as draw_all

from vggrpo.config import ODE, ConfigError, NoiseCell
from vggrpo.evaluation import EvaluationRecords, Interval
from vggrpo.io import write_json
from vggrpo.training.align import records_file
from vggrpo.training.tune_noise_figures import NoiseRow, NoiseTuning
from vggrpo.training.watch import ALARMS_FILE

PNG = b"\x89PNG"
UNKNOWN = Interval(math.nan, math.nan, math.nan, 0)
KNOWN = Interval(0.5, 0.4, 0.6, 8)
ALARM = {"name": "rewards_diverge", "sentence": "rewards_diverge after 10 iterations.", "values": {}}


def gate_row(label, **changes):
    share = {"correlation": KNOWN, "ceiling": KNOWN, "share": UNKNOWN if changes else KNOWN}
    return {
        "group": "data",
        "label": label,
        "recipe": not changes,
        "overrides": changes,
        "agreement": dict.fromkeys(("generated", "real"), dict.fromkeys(lgm_ablation.REWARDS, share)),
        "steady_shaky_auc": KNOWN,
        "seeds": {0: {"seconds": 60.0}, 1: {"seconds": 180.0}},
    }


def test_a_share_that_does_not_exist_has_no_figure(tmp_path):
    rows = [gate_row("real and generated"), gate_row("real", generated_clips=0)]
    text = lgm_ablation.as_text(rows)
    recipe, real = text.splitlines()[2:4]
    assert "data: real and generated (recipe)" in recipe
    assert "2.0" in recipe
    assert [cell.strip() for cell in real.strip("|").split("|")].count("-") == 4
    path = write_result("lgm_ablation", Options(output=tmp_path, quick=True), {}, {"rows": rows}, text)
    assert draw(path).read_bytes().startswith(PNG)


@pytest.fixture
def policy(tmp_path):
    """A finished training whose latent reward rose by .1 an evaluation, with the alarms that it is given."""
    workspace = Workspace(Options(output=tmp_path, quick=True))
    settings = workspace.policy_settings(tmp_path / "lgm", changes={"iterations": 30, "eval_every": 10})
    noise = np.random.default_rng(0).normal(0, 0.01, 8)
    for iteration in (0, 10, 20, 30):
        columns = {
            "prompt_id": [f"p{i}" for i in range(8)],
            "sample": [0] * 8,
            "kind": [""] * 8,
            "prompt": [""] * 8,
        }
        for reward in ("camera_motion", "reprojection"):
            columns[f"lgm/{reward}"] = (noise + 0.01 * iteration).tolist()
            columns[f"teacher/{reward}"] = [math.nan] * 8
        EvaluationRecords(columns).save(records_file(settings.output, iteration))

    def with_alarms(*iterations):
        write_json(settings.output / ALARMS_FILE, [ALARM | {"iteration": i} for i in iterations])
        return PolicyRun("run", settings, 1.0)

    return with_alarms


def test_an_alarm_must_come_where_it_is_expected_and_before_the_end(policy):
    good, poor, _ = alarm_experiment.WATCHED
    expected = [(good, (), True), (poor, (), False), (good, (20, 30), False), (poor, (20, 30), True)]
    expected += [(good, (30,), False), (poor, (30,), False)]
    for watched, iterations, passed in expected:
        row = alarm_experiment.row_figures(watched, policy(*iterations))
        assert row["passed"] == passed, (watched.label, iterations)
        assert row["first_alarm"] == (min(iterations) if iterations else None)


def test_the_curves_are_gains_over_the_base(policy, tmp_path):
    row = alarm_experiment.row_figures(alarm_experiment.WATCHED[1], policy(20))
    curve = [(point.iteration, point.changes["lgm/reprojection"].mean) for point in row["curve"]]
    assert curve == [(i, pytest.approx(0.01 * i)) for i in (10, 20, 30)]
    text = alarm_experiment.as_text([row])
    assert "20 of 30" in text
    assert ALARM["sentence"] in text
    options = Options(output=tmp_path, quick=True)
    path = write_result("alarm_experiment", options, {}, {"rows": [row]}, text)
    assert draw(path).read_bytes().startswith(PNG)


def test_the_noise_tuning_is_read_back_whole(tmp_path):
    names = ("exploration", "loss", "latent/shift", "score/std", "latent/roughness", "informative")
    cells = (ODE, *(NoiseCell("flow_sde", scale, 0, 5) for scale in (0.3, 0.7)))
    figures = {name: UNKNOWN if name == "informative" else KNOWN for name in names}
    tuning = NoiseTuning(tuple(NoiseRow(cell, figures) for cell in cells), 0.7, 0.65)
    path = write_result("noise", Options(output=tmp_path, quick=True), {}, tuning.as_dict(), "")
    again = noise_tuning(json.loads(path.read_text())["figures"])
    assert again.as_dict() == tuning.as_dict()
    assert again.recommended is not None
    assert draw_all(["--results", str(path.parent), "--output", str(tmp_path / "pictures")]) == 0
    assert (tmp_path / "pictures" / "noise.png").read_bytes().startswith(PNG)


def test_a_file_of_another_kind_is_no_result(tmp_path):
    write_json(tmp_path / "other.json", {"benchmark": "other"})
    with pytest.raises(ConfigError, match="no result of main_result"):
        draw(tmp_path / "other.json")


def test_every_published_result_can_be_drawn_again(tmp_path):
    assert draw_all(["--output", str(tmp_path)]) == 0
    assert {path.stem for path in tmp_path.iterdir()} == {path.stem for path in RESULTS.glob("*.json")}
