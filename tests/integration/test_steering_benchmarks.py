"""The benchmarks of guidance and best-of-N at tiny sizes, as a person runs them."""

import importlib
import json
from pathlib import Path

import pytest
from commands import captured

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "micro"


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    """Runs a script; all of them share their runs."""
    output = tmp_path_factory.mktemp("benchmarks")

    def run(name, *words):
        script = importlib.import_module(name)
        common = ["--quick", "--seeds", "0", "--threads", "1", "--output", str(output)]
        outcome = captured(lambda: script.main([*common, *words]))
        assert outcome.status == 0, outcome.err
        folder = output / "quick"
        return json.loads((folder / "results" / f"{name}.json").read_text())["figures"], folder

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        yield run


@pytest.mark.slow
def test_guidance_measures_settings_and_paths_and_does_not_measure_twice(benchmark):
    figures, folder = benchmark("guidance", "--rows", "scale", "camera_path")
    assert figures["n"] == 3
    (row,) = figures["rows"]
    assert row["guidance"] == {"scale": 100, "interval": 5}
    assert row["changes"]["lgm/camera_motion"]["count"] == 3
    assert [entry["path"] for entry in figures["camera_paths"]] == ["orbit"]
    assert figures["camera_paths"][0]["teacher/rotation_error"]["unguided"]["mean"] > 0
    assert (folder / "results" / "guidance.png").read_bytes().startswith(b"\x89PNG")
    kept = {file: file.stat().st_mtime_ns for file in (folder / "steered").rglob("records.json")}
    again, _ = benchmark("guidance", "--rows", "scale", "camera_path")
    assert again == figures
    assert {file: file.stat().st_mtime_ns for file in kept} == kept


@pytest.mark.slow
def test_best_of_counts_evaluations_and_never_ranks_lower_than_one_sample(benchmark):
    figures, folder = benchmark("best_of")
    rows = {row["name"]: row for row in figures["rows"]}
    steps = 6
    assert rows["base"]["evaluations"] == steps
    assert rows["best_of_2"]["evaluations"] == 2 * steps
    assert 2 * steps < rows["best_of_4-pruned"]["evaluations"] < 4 * steps
    assert rows["guided"]["evaluations"] == steps
    assert "equal_evaluations" not in figures, "best_of_4 is not among the quick rows"
    assert rows["base"]["changes"]["lgm/camera_motion"]["mean"] == 0
    assert (folder / "results" / "best_of.png").read_bytes().startswith(b"\x89PNG")
