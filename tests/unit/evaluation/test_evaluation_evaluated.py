import json
from pathlib import Path

import numpy as np
import pytest
from evaluation_folder import NAN, fail, make_records, write_evaluation

from vggrpo.config import ConfigError, CorruptFileError
from vggrpo.evaluation import EvaluationRecords
from vggrpo.evaluation.evaluated import distinct_labels, read_evaluation


def test_a_folder_is_read_as_columns_with_missing_values_as_nan(tmp_path: Path) -> None:
    records = make_records({"flow_jerk": [0.1, NAN, 0.3, 0.4]})
    fail(records[3], "is truncated")
    read = read_evaluation(write_evaluation(tmp_path, records))
    np.testing.assert_array_equal(read.values["flow_jerk"], [0.1, NAN, 0.3, NAN])
    assert [clip.key for clip in read.clips] == [("p0", 0), ("p0", 1), ("p1", 0), ("p1", 1)]
    assert [clip.failure for clip in read.clips] == [None, None, None, "is truncated"]
    assert read.rows("dynamic") == [2, 3]
    assert read.label == "ours"


def test_the_last_line_about_a_clip_counts_and_an_incomplete_one_is_left_out(tmp_path: Path) -> None:
    records = make_records({"flow_jerk": [0.1, 0.2]})
    folder = write_evaluation(tmp_path, records)
    again = json.dumps(records[0] | {"metrics": {"flow_jerk": 0.9}})
    with open(folder / "clips.jsonl", "a") as file:
        file.write(again + "\n" + again[:40])
    read = read_evaluation(folder)
    assert [clip.name for clip in read.clips] == ["p0_seed0.mp4", "p0_seed1.mp4"]
    np.testing.assert_array_equal(read.values["flow_jerk"], [0.9, 0.2])


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    folder = write_evaluation(tmp_path, make_records({"flow_jerk": [0.1, 0.2]}))
    lines = (folder / "clips.jsonl").read_text().splitlines()
    (folder / "clips.jsonl").write_text(f"{lines[0][:50]}\n{lines[1]}\n")
    with pytest.raises(CorruptFileError, match=r"line 1 of .*clips\.jsonl is no clip's record"):
        read_evaluation(folder)


def test_a_damaged_evaluation_of_a_training_is_named(tmp_path: Path) -> None:
    file = tmp_path / "run" / "evaluations" / "step_000010.json"
    file.parent.mkdir(parents=True)
    file.write_text('{"columns": {"prompt_id": ["a"')
    with pytest.raises(CorruptFileError, match=r"step_000010\.json is not valid JSON"):
        read_evaluation(tmp_path / "run")


def test_half_a_letter_at_the_end_is_left_out(tmp_path: Path) -> None:
    folder = write_evaluation(tmp_path, make_records({"flow_jerk": [0.1, 0.2]}))
    with open(folder / "clips.jsonl", "ab") as file:
        file.write('{"clip": "ä'.encode()[:-1])
    assert len(read_evaluation(folder).clips) == 2


def test_what_is_no_evaluation_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no evaluation"):
        read_evaluation(tmp_path / "absent")
    with pytest.raises(ConfigError, match=r"has neither clips\.jsonl and summary\.json"):
        read_evaluation(tmp_path)
    folder = write_evaluation(tmp_path, make_records({"flow_jerk": [0.1]}))
    (folder / "summary.json").unlink()
    with pytest.raises(ConfigError, match=r"not finished .* continue it with --resume"):
        read_evaluation(folder)


def test_a_run_of_train_counts_with_its_newest_evaluation_or_the_named_one(tmp_path: Path) -> None:
    run = tmp_path / "run"
    columns = {"prompt_id": ["a", "a"], "sample": [0, 1], "kind": ["static", ""], "prompt": ["x", "x"]}
    for step, jerk in ((0, 0.5), (10, 0.4)):
        (run / "evaluations").mkdir(parents=True, exist_ok=True)
        file = run / "evaluations" / f"step_{step:06d}.json"
        EvaluationRecords(columns | {"flow_jerk": [jerk, NAN]}).save(file)
    video = run / "samples" / "step_000010" / "a_1.mp4"
    video.parent.mkdir(parents=True)
    video.touch()
    newest = read_evaluation(run)
    assert newest.label == "run step_000010"
    np.testing.assert_array_equal(newest.values["flow_jerk"], [0.4, NAN])
    assert [(clip.key, clip.kind, clip.path) for clip in newest.clips] == [
        (("a", 0), "static", None),
        (("a", 1), None, video),
    ]
    first = read_evaluation(run / "evaluations" / "step_000000.json")
    assert first.values["flow_jerk"][0] == 0.5
    assert distinct_labels([first, newest]) == ("run step_000000", "run step_000010")
    with pytest.raises(ConfigError, match="is given twice"):
        distinct_labels([newest, read_evaluation(run)])


def test_equal_labels_give_way_to_paths(tmp_path: Path) -> None:
    records = make_records({"flow_jerk": [0.1, 0.2]})
    runs = [read_evaluation(write_evaluation(tmp_path / name, records)) for name in ("a", "b")]
    assert distinct_labels(runs) == (str(tmp_path / "a"), str(tmp_path / "b"))


def test_clips_with_one_key_cannot_be_told_apart(tmp_path: Path) -> None:
    records = make_records({"flow_jerk": [0.1, 0.2]}, seed=None)
    with pytest.raises(
        ValueError, match=r"p0_seed0\.mp4 and p0_seed1\.mp4 of ours both have the prompt id p0"
    ):
        read_evaluation(write_evaluation(tmp_path, records)).by_key()
