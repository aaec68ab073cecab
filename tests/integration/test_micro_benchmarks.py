"""Benchmarks of the micro family at tiny sizes, as a person runs them."""

import base64
import importlib
import json
import re
from pathlib import Path

import pytest
from commands import captured

from vggrpo.config import ConfigError, RunError
from vggrpo.io import load_tensors, read_records

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "micro"
LORA = "lora/pytorch_lora_weights.safetensors"


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    """Runs a script with one seed; all of them share their runs."""
    output = tmp_path_factory.mktemp("benchmarks")

    def run(name, *words):
        script = importlib.import_module(name)
        common = ["--quick", "--seeds", "0", "--threads", "1", "--output", str(output)]
        outcome = captured(lambda: script.main([*common, *words]))
        assert outcome.status == 0, outcome.err
        return outcome, output / "quick"

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield run


@pytest.fixture(scope="module")
def main_result(benchmark):
    """The published figures, made once."""
    return benchmark("main_result")


def result(folder, name):
    return json.loads((folder / "results" / f"{name}.json").read_text())


def test_main_result_has_every_figure(main_result):
    outcome, folder = main_result
    content = result(folder, "main_result")
    figures = content["figures"]
    assert figures["n"] == {"ode-3": 8, "sde-3": 8}
    for sampler, by_kind in figures["changes"].items():
        assert {"all"} <= by_kind.keys() <= {"all", "static", "dynamic"}
        change = by_kind["all"]["teacher/camera_motion"]
        assert change["change"]["mean"] == pytest.approx(change["policy"]["mean"] - change["base"]["mean"])
        assert change["seeds"]["0"] == change["change"]
        names = {row["name"] for row in figures["checks"][sampler]}
        assert {"camera path: share of the base's", "object presence: share of the base's"} <= names
    assert figures["changes"]["ode-3"] != figures["changes"]["sde-3"]
    assert figures["steady_real_flow_jerk"]["clips"] == 3
    (curve,) = figures["curves"].values()
    assert [point["iteration"] for point in curve] == [1, 2]
    assert all(point["changes"]["teacher/camera_motion"]["count"] == 4 for point in curve)
    assert content["settings"]["train"]["output"].endswith("recipe/seed_0")
    assert "| check" in outcome.out
    assert (folder / "results" / "main_result.md").read_text() in outcome.out
    assert (folder / "results" / "main_result.png").read_bytes().startswith(b"\x89PNG")


def test_the_report_shows_every_result_and_its_videos(benchmark, main_result):
    _, folder = main_result
    outcome, _ = benchmark("report")
    assert outcome.out.strip().endswith(str(folder / "report.html"))
    page = (folder / "report.html").read_text()
    checks = result(folder, "main_result")["figures"]["checks"]["ode-3"]
    assert all(check["name"] in page for check in checks)
    picture = base64.b64encode((folder / "results" / "main_result.png").read_bytes()).decode()
    assert f"data:image/png;base64,{picture}" in page
    assert "data:video/mp4;base64," in page
    assert 'id="noise"' not in page, "a result that is not there"
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)


def test_the_report_refuses_a_training_that_is_not_one_of_the_results(benchmark, main_result):
    _, folder = main_result
    config = folder / "train" / "recipe" / "seed_0" / "config.yaml"
    kept = config.read_text()
    script = importlib.import_module("report")
    config.write_text(kept.replace("kl_coef: 0.004", "kl_coef: 0.5"))
    try:
        with pytest.raises(RunError, match="is no training of the results: kl_coef"):
            script.main(["--quick", "--output", str(folder.parent)])
    finally:
        config.write_text(kept)


def test_benchmarks_of_one_seed_refuse_more(benchmark):
    for name in ("report", "noise", "gradient_signal"):
        with pytest.raises(ConfigError, match="of one seed; give one"):
            importlib.import_module(name).main(["--quick", "--seeds", "0", "1"])


def test_what_is_done_is_not_done_again(benchmark, main_result):
    outcome, folder = main_result
    kept = {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}
    before = result(folder, "main_result")
    again, _ = benchmark("main_result")
    assert "run " in outcome.out
    assert "run " not in again.out
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")} == kept
    assert result(folder, "main_result")["figures"] == before["figures"]


def test_the_control_differs_by_its_advantages_alone(benchmark, main_result):
    outcome, folder = benchmark("controls")
    rows = result(folder, "controls")["figures"]["rows"]
    assert [row["recipe"] for row in rows] == [True, False, False]
    of_recipe, _, of_negated = (row["changes"]["lgm/camera_motion"]["change"]["mean"] for row in rows)
    assert of_recipe != of_negated
    assert (folder / "results" / "controls.png").read_bytes().startswith(b"\x89PNG")
    recipe, control = folder / "train" / "recipe", folder / "train" / "control_shuffled_advantages"
    assert (recipe / "seed_0" / LORA).is_file()
    assert "/train/recipe/seed_0" not in outcome.out
    first, second = (read_records(run / "seed_0" / "metrics.jsonl") for run in (recipe, control))
    rollouts = [next(record for record in records if "policy/loss" in record) for records in (first, second)]
    assert rollouts[0]["reward/camera_motion/mean"] == rollouts[1]["reward/camera_motion/mean"]
    ours, theirs = (load_tensors(run / "seed_0" / LORA) for run in (recipe, control))
    assert any((ours[name] != theirs[name]).any() for name in ours)


def test_an_ablation_is_measured_on_its_own_kind_of_prompt(benchmark, main_result):
    _, folder = benchmark("ablations", "--rows", "dynamic_filter")
    on, off = result(folder, "ablations")["figures"]["rows"]
    assert (on["label"], on["recipe"], on["prompts"], on["overrides"]) == ("on", True, "dynamic", {})
    assert (off["label"], off["recipe"], off["prompts"]) == ("off", False, "dynamic")
    assert not off["overrides"]["rewards.reprojection.dynamic_filter"]
    assert (folder / "train" / "dynamic_filter_off" / "seed_0" / LORA).is_file()
    assert (folder / "results" / "ablations.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_training_cost_charges_every_row_and_judges_the_bar(benchmark):
    outcome, folder = benchmark("training_cost")
    rows = {row["group"]: row for row in result(folder, "training_cost")["figures"]["rows"]}
    assert next(iter(rows)) == "plain"
    assert len(rows) == 10
    assert "all: at most 0.4 of plain's evaluations" in outcome.out
    metrics = read_records(folder / "train" / "cost-all" / "seed_0" / "metrics.jsonl")
    # Four samples: a step and the stochastic one for all, the last for each; a pass an update; no reference.
    costs = [line["cost/denoiser_forwards"] for line in metrics if "cost/denoiser_forwards" in line]
    assert costs == [1 + 1 + 4 + 2] * 2
    assert (folder / "results" / "training_cost.png").read_bytes().startswith(b"\x89PNG")
    assert set(rows["all"]["reward_std"]) == {"reward/camera_motion/std", "reward/reprojection/std"}


def test_the_signal_of_a_gradient_is_measured_for_every_row(benchmark):
    _, folder = benchmark("gradient_signal", "--groups", "3", "--rows", "place", "window")
    rows = result(folder, "gradient_signal")["figures"]["rows"]
    assert list(rows)[:3] == ["place: step 0", "place: step 1", "window: own starting noises"]
    members, batches, behind = 4, 2, 2
    # Of two ODE steps UniPC takes one with stride 2; members that part in the trained step share its passes.
    assert rows["place: step 0"]["evaluations"] == 1 + members * (behind - 1) + 2 * batches
    assert rows["window: own starting noises"]["evaluations"] > rows["place: step 0"]["evaluations"]
    assert not (folder / "train" / "gradient_signal").exists()
    assert (folder / "results" / "gradient_signal.png").read_bytes().startswith(b"\x89PNG")
