"""`vggrpo compare` through the entry point, on training runs' evaluations."""

import json
from pathlib import Path

import pytest

from vggrpo.cli.main import main
from vggrpo.evaluation import EvaluationRecords


@pytest.fixture
def runs(tmp_path: Path) -> list[str]:
    """Two runs of `vggrpo train`, the second one better by the jerk of the flow."""
    made = []
    for number in range(2):
        keys = {"prompt_id": [f"p{i}" for i in range(6)], "sample": [0] * 6, "kind": ["static"] * 6}
        records = EvaluationRecords(
            keys | {"prompt": ["x"] * 6, "flow_jerk": [0.5 + 0.1 * i - 0.2 * number for i in range(6)]}
        )
        run = tmp_path / f"run{number}"
        records.save(run / "evaluations" / "step_000010.json")
        made.append(str(run))
    return made


def test_tables_are_printed_and_written(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "new" / "tables"
    words = [
        "compare",
        *runs,
        "--output",
        str(output),
        "--labels",
        "base",
        "ours",
        "--published",
        "wan2.2-5b",
    ]
    assert main(words) == 0
    printed = capsys.readouterr().out
    written = (output / "comparison.md").read_text()
    assert printed.startswith(written)
    assert "| metric | base (baseline) | ours |" in written
    assert "## Published for wan2.2-5b" in written
    found = json.loads((output / "comparison.json").read_text())
    assert found["command"] == "vggrpo " + " ".join(words)
    assert found["metrics"][0]["runs"]["ours"]["verdict"] == "better"
    assert "<!doctype html>" in (output / "comparison.html").read_text()
    assert main(words) == 2
    assert "comparison.md exists; choose another --output, or --overwrite" in capsys.readouterr().err
    assert main([*words, "--overwrite", "--baseline", "ours"]) == 0
    found = json.loads((output / "comparison.json").read_text())
    assert found["metrics"][0]["runs"]["base"]["verdict"] == "worse"


def test_without_an_output_nothing_is_written(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert main(["compare", *runs]) == 0
    assert "run0 step_000010 (baseline)" in capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before


def test_what_cannot_be_compared_is_named(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    for words, complaint in (
        ([runs[0], str(tmp_path / "empty")], "empty is no evaluation: it has neither clips.jsonl"),
        ([runs[0], runs[0]], "is given twice"),
        ([*runs, "--baseline", "other"], "baseline is 'other'; the runs are called run0 step_000010, run1"),
    ):
        assert main(["compare", *words]) == 2
        assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--labels", "one"], "labels names 1 runs, but there are 2; name each"),
        (["--labels", "a", "a"], "labels names two runs 'a'"),
        (["--overwrite"], "without output no file is written"),
    ],
)
def test_settings_that_do_not_fit_are_explained(
    words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["compare", "a", "b", *words])
    assert complaint in " ".join(capsys.readouterr().err.replace("\u2502", " ").split())
