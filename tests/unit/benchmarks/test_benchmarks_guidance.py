"""Which setting of reward guidance is recommended, and how far cameras are from their paths."""

import guidance
import pytest
from harness.steered import SteeredRow

from vggrpo.evaluation import EvaluationRecords, Interval


def setting(name, camera_motion=(0.02, 0.01), reprojection=(0.01, 0.005), kept=(1.0, 0.97)):
    """A row whose gains by the teacher, and whose shares of motion and sharpness, are (mean, low)."""

    def interval(pair):
        return Interval(pair[0], pair[1], 2 * pair[0] - pair[1], 64)

    return {
        "name": name,
        "changes": {
            "teacher/camera_motion": interval(camera_motion),
            "teacher/reprojection": interval(reprojection),
        },
        "ratios": {metric: interval(kept) for metric in guidance.RATIOS},
    }


def test_the_largest_gain_by_the_teacher_is_recommended():
    assert guidance.recommended([setting("small"), setting("large", camera_motion=(0.05, 0.01))]) == "large"


@pytest.mark.parametrize(
    "flaw",
    [
        {"camera_motion": (0.5, -0.01)},
        {"reprojection": (0.5, -0.01)},
        {"kept": (1.0, 0.89)},
    ],
)
def test_a_gain_that_is_not_clear_or_costs_motion_is_not(flaw):
    assert guidance.recommended([setting("sound"), setting("flawed", **flaw)]) == "sound"
    assert guidance.recommended([setting("flawed", **flaw)]) is None


def test_errors_of_a_path_are_those_of_its_samples():
    def records(shift):
        columns = {"prompt_id": ["a", "b"], "sample": [0, 0], "kind": ["", ""], "prompt": ["", ""]}
        errors = {f"{source}/{error}": [0.4 - shift, 0.2 - shift] for source, error in guidance.PATH_ERRORS}
        return EvaluationRecords(columns | errors)

    (found,) = guidance.path_errors({"orbit_unguided": records(0.0), "orbit_guided": records(0.1)})
    assert (found["path"], found["amount"]) == ("orbit", 20.0)
    for source, error in guidance.PATH_ERRORS:
        assert found[f"{source}/{error}"]["unguided"].mean == pytest.approx(0.3)
        assert found[f"{source}/{error}"]["change"].mean == pytest.approx(-0.1)


def test_a_row_says_where_it_started_from():
    def records(shift):
        columns = {"prompt_id": ["a", "b"], "sample": [0, 0], "kind": ["", ""], "prompt": ["", ""]}
        return EvaluationRecords(
            columns | {name: [0.4 + shift, 0.2 + shift] for name in (guidance.EPIPOLAR, *guidance.RATIOS)}
        )

    row = SteeredRow("guided", "confirmed", {"scale": 100})
    found = guidance.compared(row, records(0.0), records(0.1), [guidance.EPIPOLAR])
    assert found["before"].keys() == {guidance.EPIPOLAR, *guidance.RATIOS}
    assert found["before"][guidance.EPIPOLAR].mean == pytest.approx(0.3)
    assert found["before"][guidance.EPIPOLAR].low < 0.3 < found["before"][guidance.EPIPOLAR].high
    assert found["changes"][guidance.EPIPOLAR].mean == pytest.approx(0.1)


def test_every_row_has_a_name_of_its_own():
    rows = guidance.rows(quick=False)
    assert len({row.name for row in rows}) == len(rows)
    assert all(isinstance(row, SteeredRow) and row.group for row in rows)
