"""Result files and tables, and the options that say where they go."""

import json
import math
from pathlib import Path

import pytest
from harness.options import Options, TableOptions, chosen_rows, parse
from harness.results import figure, markdown_table, write_result
from harness.variants import LGMRow

from vggrpo.config import ConfigError, NoiseCell
from vggrpo.evaluation import Interval


def test_a_table_is_markdown_with_a_row_a_line():
    table = markdown_table(("name", "n"), [("a|b", "1"), ("longer", "22")])
    lines = table.splitlines()
    assert len(set(map(len, lines))) == 1
    assert [cell.strip() for cell in lines[0].strip("|").split("|")] == ["name", "n"]
    assert set(lines[1]) == {"|", "-"}
    assert "a\\|b" in lines[2]
    with pytest.raises(ValueError, match="1 cells"):
        markdown_table(("name", "n"), [("a",)])


def test_figures_have_their_intervals():
    assert figure(Interval(0.0123, -0.002, 0.03, 9), 3, signed=True) == "+0.012 [-0.002, +0.030]"
    assert figure(Interval(0.5, 0.4, 0.6, 60, missing=4), 2) == "0.50 [0.40, 0.60] of 60"
    assert figure(Interval(0.5, math.nan, math.nan, 1), 2) == "0.50"
    assert figure(Interval(math.nan, math.nan, math.nan, 0)) == "-"


def test_a_result_says_what_was_run_where(tmp_path):
    options = Options(output=tmp_path, quick=True)
    figures = {
        "change": Interval(0.5, math.nan, math.nan, 1, 2),
        "cells": [NoiseCell("cps", 0.5, 0, 1)],
        "seeds": {0: math.inf},
        "folder": Path("runs"),
    }
    path = write_result("noise", options, {"lr": 1e-3}, figures, "| a |")
    assert path == tmp_path / "quick" / "results" / "noise.json"
    content = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert content["figures"] == {
        "change": {"mean": 0.5, "low": None, "high": None, "count": 1, "missing": 2},
        "cells": [{"transition": "cps", "noise_scale": 0.5, "start": 0, "length": 1}],
        "seeds": {"0": None},
        "folder": "runs",
    }
    assert content["settings"] == {"lr": 1e-3}
    assert {"command", "date", "commit", "machine"} <= content.keys()
    assert path.with_suffix(".md").read_text() == "| a |\n"


def test_quick_results_do_not_replace_the_published_ones(tmp_path):
    quick, full = (Options(output=tmp_path, quick=quick) for quick in (True, False))
    assert quick.results.is_relative_to(tmp_path)
    assert full.results.parts[-3:] == ("benchmarks", "results", "micro")
    assert quick.runs != full.runs


def test_options_from_words():
    options = parse(TableOptions, ["--rows", "data", "stitch", "--seeds", "3", "4", "--quick"], "")
    assert (options.rows, options.seeds, options.quick) == (("data", "stitch"), (3, 4), True)
    with pytest.raises(SystemExit, match="each once"):
        Options(seeds=(1, 1))


def test_rows_are_chosen_by_group():
    rows = [LGMRow("data", "real"), LGMRow("data", "generated"), LGMRow("stitch", "E0")]
    assert chosen_rows(rows, ()) == rows
    assert chosen_rows(rows, ("data",)) == rows[:2]
    with pytest.raises(ConfigError, match="no group dat; groups are data, stitch"):
        chosen_rows(rows, ("dat",))
