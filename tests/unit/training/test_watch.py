"""A run is judged after each evaluation: alarms are written down and said once, the best policy is kept."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import WanPipeline

from vggrpo.config import AlarmError
from vggrpo.evaluation import Alarm, Evaluated, EvaluationRecords, bootstrap_mean
from vggrpo.evaluation.alarms import MEANINGS
from vggrpo.io import load_tensors, read_json, write_json
from vggrpo.training.trainer import VGGRPOTrainer
from vggrpo.training.watch import Watch

PROMPTS, NOISES = 10, 2
LEVELS = {
    "lgm/camera_motion": 0.7,
    "teacher/camera_motion": 0.6,
    "camera_extent": 0.3,
    "flow_drift": 0.9,
    "brightness": 0.5,
    "contrast": 0.2,
    "saturation": 0.4,
    "sharpness": 300.0,
    "object_presence": 0.15,
}
MakeTrainer = Callable[..., VGGRPOTrainer]
Changes = Mapping[str, float]
DARK: Changes = {"brightness": -0.3}


def evaluated(iteration: int, changes: Changes | None = None) -> Evaluated:
    """Records in which metrics differ from the base's by a share of their level."""
    rng, rows = np.random.default_rng(0), PROMPTS * NOISES
    columns: dict[str, list] = {
        "prompt_id": [f"p{i // NOISES}" for i in range(rows)],
        "sample": [i % NOISES for i in range(rows)],
        "kind": [""] * rows,
        "prompt": [""] * rows,
    }
    for name, level in LEVELS.items():
        values = level * (1 + 0.1 * rng.normal(size=rows) + (changes or {}).get(name, 0.0))
        columns[name] = values.tolist()
    return Evaluated(iteration, EvaluationRecords(columns))


def observe(watch: Watch, *changes: Changes, every: int = 10) -> list[tuple[Alarm, ...]]:
    """What is raised at the base and after each of the evaluations with `changes`, in turn."""
    history = [evaluated(0)]
    raised = [watch.observe(history)]
    for number, change in enumerate(changes, 1):
        history.append(evaluated(every * number, change))
        raised.append(watch.observe(history))
    return raised


@pytest.fixture
def watch(make_trainer: MakeTrainer) -> Watch:
    trainer = make_trainer()
    return Watch(trainer.settings, trainer.run, trainer.policy, trainer.weights)


def set_lora(watch: Watch, value: float) -> None:
    with torch.no_grad():
        for parameter in watch.policy.trainable_parameters().values():
            parameter.fill_(value)


def best(watch: Watch) -> dict | None:
    file = watch.run.path / "best" / "score.json"
    return read_json(file) if file.exists() else None


def logged(watch: Watch, name: str) -> list[tuple[int, int]]:
    records = watch.run.read_metrics()
    return [(r["step"], r[f"alarm/{name}"]) for r in records if f"alarm/{name}" in r]


def test_alarms_are_logged_for_every_evaluation_and_written_with_their_values(watch: Watch) -> None:
    raised = observe(watch, DARK, DARK, DARK, {})
    assert [[alarm.name for alarm in alarms] for alarms in raised] == [
        [],
        [],
        ["pixel_drift"],
        ["pixel_drift"],
        [],
    ]
    assert logged(watch, "pixel_drift") == [(0, 0), (10, 0), (20, 1), (30, 1), (40, 0)]
    for name in MEANINGS.keys() - {"pixel_drift"}:
        assert logged(watch, name) == [(0, 0), (10, 0), (20, 0), (30, 0), (40, 0)]
    entries = read_json(watch.run.path / "alarms.json")
    assert [(entry["iteration"], entry["name"]) for entry in entries] == [
        (20, "pixel_drift"),
        (30, "pixel_drift"),
    ]
    assert entries[0]["sentence"] == raised[2][0].sentence
    assert entries[0]["values"]["brightness"]["ratio"] == pytest.approx(0.7, abs=0.02)


def test_an_alarm_is_said_when_it_is_raised_and_again_only_after_it_ended(
    watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        observe(watch, DARK, DARK, DARK, {}, DARK, DARK)
    said = [record.message for record in caplog.records if "pixel_drift" in record.message]
    assert [message.split(" iterations")[0] for message in said] == [
        "alarm: pixel_drift after 20",
        "alarm: pixel_drift after 60",
    ]


def test_judging_an_evaluation_again_changes_nothing(watch: Watch, caplog: pytest.LogCaptureFixture) -> None:
    history = [evaluated(0), evaluated(10, DARK), evaluated(20, DARK)]
    for end in (1, 2, 3):
        watch.observe(history[:end])
    folder = watch.run.path
    before = {name: (folder / name).read_text() for name in ("alarms.json", "metrics.jsonl")}
    caplog.clear()
    again = watch.observe(history)
    assert [alarm.name for alarm in again] == ["pixel_drift"]
    assert {name: (folder / name).read_text() for name in before} == before
    assert caplog.records == []


def test_a_run_that_goes_back_forgets_the_alarms_after_that(watch: Watch) -> None:
    observe(watch, DARK, DARK, DARK)
    watch.observe([evaluated(0), evaluated(10, DARK)])
    assert read_json(watch.run.path / "alarms.json") == []


def test_the_kl_of_the_runs_metrics_is_judged(watch: Watch) -> None:
    for iteration in range(1, 21):
        watch.run.log(iteration, {"policy/kl": 0.2})
    assert [[alarm.name for alarm in alarms] for alarms in observe(watch, {}, {})] == [[], [], ["kl_runaway"]]


def test_the_best_policy_is_that_of_the_highest_independent_score(watch: Watch) -> None:
    history = [evaluated(0)]
    watch.observe(history)
    assert best(watch) is None, "the base is no policy"
    kept = []
    for number, gain in enumerate((0.02, 0.1, 0.05), 1):
        set_lora(watch, float(number))
        history.append(evaluated(10 * number, {"teacher/camera_motion": gain}))
        watch.observe(history)
        kept.append(best(watch)["iteration"])
    assert kept == [10, 20, 20]
    values = history[2].records.values("teacher/camera_motion")
    score = bootstrap_mean(values, history[2].records.columns["prompt_id"])
    assert best(watch) == {
        "iteration": 20,
        "score": score.mean,
        "low": score.low,
        "high": score.high,
        "samples": PROMPTS * NOISES,
        "missing": 0,
    }
    weights = load_tensors(watch.run.path / "best" / "pytorch_lora_weights.safetensors")
    assert all((tensor == 2).all() for tensor in weights.values())
    assert not list(watch.run.path.rglob("*.partial-*"))


def test_a_policy_below_the_base_is_kept_if_there_is_none_better(watch: Watch) -> None:
    observe(watch, {"teacher/camera_motion": -0.05})
    assert best(watch)["iteration"] == 10


def test_a_policy_with_a_fault_is_never_the_best(watch: Watch) -> None:
    better = {"teacher/camera_motion": 0.5}
    observe(watch, {**DARK, **better}, {}, {**DARK, **better})
    assert best(watch)["iteration"] == 20


def test_a_score_that_is_unknown_is_not_kept(watch: Watch) -> None:
    history = [evaluated(0), evaluated(10)]
    history[1].records.columns["teacher/camera_motion"] = [float("nan")] * (PROMPTS * NOISES)
    watch.observe(history)
    assert best(watch) is None


def test_the_best_policy_loads_in_plain_diffusers(watch: Watch, tiny_pipeline: Path) -> None:
    observe(watch, {})
    pipe = WanPipeline.from_pretrained(tiny_pipeline)
    pipe.load_lora_weights(watch.run.path / "best")
    assert pipe.get_active_adapters()


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ([DARK, DARK], "no evaluation so far was without fault"),
        ([{}, DARK, DARK], "the best policy by the independent score is that of iteration 10, in "),
    ],
)
def test_what_stops_a_run_says_why_where_the_policies_are_and_how_to_go_on(
    watch: Watch, changes: Sequence[Changes], kept: str
) -> None:
    alarms = observe(watch, *changes)[-1]
    error = watch.stopped(alarms)
    assert isinstance(error, AlarmError)
    iteration = 10 * len(changes)
    for words in (
        alarms[0].sentence,
        kept,
        f"checkpoint of iteration {iteration}",
        f"--resume --no-stop-on-alarm --output {watch.run.path}",
    ):
        assert words in str(error)


def test_of_a_run_that_goes_on_earlier_only_what_is_later_goes(watch: Watch) -> None:
    observe(watch, {})
    kept = best(watch)
    assert kept is not None
    assert kept["iteration"] == 10
    write_json(watch.run.path / "alarms.json", [{"iteration": i} for i in (10, 20, 30)])
    watch.forget_after(20)
    assert read_json(watch.run.path / "alarms.json") == [{"iteration": 10}, {"iteration": 20}]
    assert best(watch) == kept
    watch.forget_after(9)
    assert best(watch) is None
    assert not (watch.run.path / "best").exists()
    assert read_json(watch.run.path / "alarms.json") == []


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        (
            {"alarms": {"least_prompts": PROMPTS + 1}},
            f"there are {PROMPTS} held-out prompts, but alarms need 11",
        ),
        ({"kl_coef": 0.0}, "kl_coef is 0, so no KL is computed"),
    ],
)
def test_what_the_alarms_cannot_see_is_said_at_the_start(
    make_trainer: MakeTrainer, caplog: pytest.LogCaptureFixture, changes: dict, warning: str
) -> None:
    trainer = make_trainer(**changes)
    watch = Watch(trainer.settings, trainer.run, trainer.policy, trainer.weights)
    observe(watch, {})
    assert [record.message.startswith(warning) for record in caplog.records] == [True]
    assert json.loads((trainer.run.path / "alarms.json").read_text()) == []
