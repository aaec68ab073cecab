import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vggrpo.config import CorruptFileError
from vggrpo.io.metrics import append_record, read_records, truncate_records


@contextmanager
def largest_file(num_bytes: int) -> Iterator[None]:
    """Within the context the system refuses to let files grow beyond `num_bytes`, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_records_are_lines_of_json(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    append_record(path, 1, {"loss": 0.25, "reward/camera_motion/mean": 1})
    append_record(path, 1, {"eval/ä": 2.0})
    assert [json.loads(line) for line in path.read_text("utf-8").splitlines()] == [
        {"step": 1, "loss": 0.25, "reward/camera_motion/mean": 1},
        {"step": 1, "eval/ä": 2.0},
    ]
    assert read_records(path)[0]["loss"] == 0.25


def test_half_a_letter_at_the_end_is_left_out_and_written_over(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    append_record(path, 1, {"ä": 1.0})
    path.write_bytes(path.read_bytes() + '{"step": 2, "ä'.encode()[:-1])
    assert read_records(path) == [{"step": 1, "ä": 1.0}]
    append_record(path, 2, {"ä": 2.0})
    assert [record["step"] for record in read_records(path)] == [1, 2]


def test_numbers_that_json_lacks_become_null(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    append_record(path, 1, {"a": float("nan"), "b": float("inf"), "c": None, "d": 1.5})
    assert read_records(path) == [{"step": 1, "a": None, "b": None, "c": None, "d": 1.5}]


def test_no_file_has_no_records(tmp_path: Path) -> None:
    assert read_records(tmp_path / "metrics.jsonl") == []
    truncate_records(tmp_path / "metrics.jsonl", 3)
    assert list(tmp_path.iterdir()) == []


def test_truncation_keeps_records_up_to_the_step_and_drops_a_cut_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for step in (1, 2, 2, 3, 4):
        append_record(path, step, {"x": step / 2})
    with path.open("a") as file:
        file.write('{"step": 5, "x"')
    assert [record["step"] for record in read_records(path)] == [1, 2, 2, 3, 4]
    truncate_records(path, 3)
    append_record(path, 4, {"x": 9.0})
    assert [record["x"] for record in read_records(path)] == [0.5, 1.0, 1.0, 1.5, 9.0]


@pytest.mark.parametrize("line", ["{", "[1]", '{"x": 1}', '{"step": "a"}', ""])
def test_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1}}\n{line}\n{{"step": 2}}\n')
    with pytest.raises(CorruptFileError, match=r"line 2 of .*metrics\.jsonl is not a metrics record"):
        read_records(path)


def test_step_is_no_metric(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='a metric is called "step"'):
        append_record(tmp_path / "metrics.jsonl", 1, {"step": 2})


def test_failed_append_keeps_complete_lines(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    append_record(path, 1, {"x": 1.0})
    before = path.read_bytes()
    with largest_file(len(before) + 5), pytest.raises(OSError, match="File too large"):
        append_record(path, 2, {"x": 2.0})
    assert path.read_bytes() == before
