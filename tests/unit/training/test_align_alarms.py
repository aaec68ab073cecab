"""`vggrpo train` on tiny models: alarms, report, the best policy, and evaluations of the finished run."""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tiny_lgm import save_trained_geometry_model

from documented_metrics import documented, undefined
from vggrpo.backbones import load_geometry_backbone, load_video_backbone
from vggrpo.cli.main import main
from vggrpo.config import ConfigError, RewardWeights, TrainSettings, load_recipe
from vggrpo.evaluation import EvaluationRecords, KeyFrameTeacher
from vggrpo.evaluation.catalogue import describe
from vggrpo.evaluation.report import render_report
from vggrpo.io import RunFolder, load_tensors, read_json, read_records, verify_manifest
from vggrpo.lgm import LatentGeometryModel, find_layer, teacher_frames
from vggrpo.training.align import held_out_settings
from vggrpo.training.evaluate_policy import evaluate_policy
from vggrpo.training.report import run_facts, run_report
from vggrpo.training.trainer import VGGRPOTrainer
from vggrpo.training.watch import independent_score
from vggrpo.world import render_clips, sample_scene

WEIGHT_FILE = "pytorch_lora_weights.safetensors"
ALWAYS = {"evaluations": 1, "kl_limit": 1e-12}
"""Thresholds that any update passes."""
STEPS = 3


@dataclass(frozen=True)
class Tiny:
    """A recipe on tiny models; every run is a folder beside it."""

    folder: Path

    @property
    def recipe(self) -> Path:
        return self.folder / "recipe.yaml"

    def train(self, run: str, *flags: object) -> int:
        """The exit status of `vggrpo train`."""
        words = ("--recipe", self.recipe, "--output", self.folder / run, *flags)
        return main(["train", *map(str, words)])

    def settings(self, run: str) -> TrainSettings:
        return load_recipe(self.folder / run / "config.yaml", TrainSettings)


@pytest.fixture(scope="module")
def tiny(tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    folder = tmp_path_factory.mktemp("align")
    save_trained_geometry_model(folder / "geometry")
    geometry, video = load_geometry_backbone(folder / "geometry"), load_video_backbone(tiny_pipeline)
    scenes = [sample_scene("train", index) for index in range(12)]
    clips = render_clips(scenes, num_frames=9, height=16, width=16).frames
    frames = teacher_frames(clips, video.latent_spec, geometry.patch_size)
    search = find_layer(geometry, [(video.encode_video(clips), frames)], 2, ["E0"])
    lgm = LatentGeometryModel(geometry, search.connector("E0"), "E0", video.latent_spec, "tiny", "tiny")
    lgm.save_pretrained(folder / "lgm")
    (folder / "train.txt").write_text("a red box\na blue sphere\n")
    (folder / "held-out.txt").write_text("a green cylinder\na white box\n")
    settings = {
        "base_model": str(tiny_pipeline),
        "geometry_model": str(folder / "geometry"),
        "lgm_path": str(folder / "lgm"),
        "lgm_floor": 0.0,
        "output": str(folder / "run"),
        "prompts": str(folder / "train.txt"),
        "evaluation_prompts": str(folder / "held-out.txt"),
        "num_frames": 9,
        "height": 16,
        "width": 16,
        "cfg_scale": 1.0,
        "lora_rank": 2,
        "lora_alpha": 4.0,
        "lr": 0.01,
        "group_size": 4,
        "iterations": 4,
        "updates_per_rollout": 2,
        "rollout_batch": 4,
        "update_batch": 4,
        "train_steps": STEPS,
        "infer_steps": 2,
        "eval_every": 1,
        "checkpoint_every": 4,
        "keep_checkpoints": 1,
        "reward_weights": {"camera_motion": 1.0, "reprojection": 0.0},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(settings))
    return Tiny(folder)


@pytest.fixture(scope="module")
def finished(tiny: Tiny) -> Path:
    """A run in which no alarm can be raised: there are two held-out prompts, and its KL is small."""
    assert tiny.train("finished") == 0
    return tiny.folder / "finished"


def same_tensors(first: Path, second: Path) -> bool:
    ours, theirs = load_tensors(first / WEIGHT_FILE), load_tensors(second / WEIGHT_FILE)
    return ours.keys() == theirs.keys() and all(torch.equal(t, theirs[name]) for name, t in ours.items())


def test_a_run_without_alarms_says_so_and_ends_with_its_last_policy(finished: Path) -> None:
    assert read_json(finished / "alarms.json") == []
    alarms = [
        {name: value for name, value in record.items() if name.startswith("alarm/")}
        for record in read_records(finished / "metrics.jsonl")
    ]
    raised = [record for record in alarms if record]
    assert len(raised) == 5
    assert set().union(*(record.values() for record in raised)) == {0}
    assert same_tensors(finished / "lora", finished / "checkpoints" / "step_000004" / "lora")


def test_every_name_that_a_run_writes_is_defined_in_the_docs(finished: Path) -> None:
    names: set[str] = set()
    for file in ("metrics.jsonl", "histograms.jsonl"):
        for record in read_records(finished / file):
            names |= record.keys() - {"step"}
    assert {"policy/ratio_histogram", "policy/clipped_by_step", "time/evaluation", "policy/kl"} <= names
    held_out = {name.removeprefix("evaluation/") for name in names if name.startswith("evaluation/")}
    own = {name for name in names if not name.startswith("evaluation/")}
    assert undefined(own | held_out) == []
    assert "evaluation/<metric>" in documented()
    assert all(describe(name).meaning for name in held_out)
    assert undefined(["policy/undefined"]) == ["policy/undefined"]


def test_histograms_count_every_transition_and_agree_with_the_metrics(tiny: Tiny, finished: Path) -> None:
    settings = tiny.settings("finished")
    metrics = {r["step"]: r for r in read_records(finished / "metrics.jsonl") if "policy/clip_frac" in r}
    histograms = RunFolder(finished, settings).read_histograms()
    assert [step for step, _ in histograms] == sorted(metrics) == [1, 2, 3, 4]
    transitions = settings.group_size * (STEPS - 1)
    for step, found in histograms:
        ratio, clipped = found["policy/ratio_histogram"], found["policy/clipped_by_step"]
        assert ratio.total == transitions
        assert clipped.total == pytest.approx(metrics[step]["policy/clip_frac"] * transitions)
        assert clipped.edges == (-0.5, 0.5, 1.5)
        at_one = next(i for i, edge in enumerate(ratio.edges) if edge > 0) - 1
        assert ratio.counts[at_one] >= transitions / 2, "the first of two updates is on policy"


def test_the_report_is_that_of_the_newest_evaluation(finished: Path) -> None:
    page = (finished / "report.html").read_text("utf-8")
    sections = set(re.findall(r'<section id="(\w+)"', page))
    assert {"videos", "figures", "curves", "clipping", "alarms", "stages", "settings"} <= sections
    assert "ran 4 iterations" in page
    assert "the training goes on" not in page
    assert page.count("<video") >= 2
    assert list((finished / "tensorboard").glob("events.*"))


def test_the_report_of_a_run_that_goes_on_says_so(tiny: Tiny) -> None:
    settings = tiny.settings("finished")
    geometry, video = (
        load_geometry_backbone(settings.geometry_model),
        load_video_backbone(settings.base_model),
    )
    teacher = KeyFrameTeacher(geometry, video.latent_spec)
    first, third = (run_report(settings, i, teacher, torch.device("cpu")) for i in (0, 3))
    assert not first.comparisons
    assert "the training goes on" in first.remarks[0]
    assert "before the next evaluation" in render_report(first)
    assert third.remarks[0] == "Iteration 3 of 4: the training goes on."
    assert max(step for curve in third.curves for step in curve.steps) == 3


def test_the_best_policy_outlives_its_checkpoint(finished: Path, tiny: Tiny) -> None:
    scores = {}
    for iteration in (1, 2, 3, 4):
        records = EvaluationRecords.load(finished / "evaluations" / f"step_{iteration:06d}.json")
        scores[iteration] = independent_score(records, {"camera_motion": 1.0}).mean
    expected = max(scores, key=lambda iteration: scores[iteration])
    stored = read_json(finished / "best" / "score.json")
    assert (stored["iteration"], stored["score"]) == (expected, scores[expected])
    assert [path.name for path in (finished / "checkpoints").iterdir()] == ["step_000004"]
    best = evaluate_policy(tiny.settings("finished"), finished / "best")
    assert independent_score(best, {"camera_motion": 1.0}).mean == pytest.approx(stored["score"], abs=1e-6)


def test_a_finished_run_goes_on_with_another_rhythm_but_the_same_held_out_samples(
    tiny: Tiny, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tiny.folder / "longer"
    shutil.copytree(finished, run)
    changes = (
        "--iterations",
        6,
        "--eval-every",
        3,
        "--resume",
        "--allow-changes",
        "iterations",
        "eval_every",
    )
    assert tiny.train("longer", *changes, "evaluation_noises", "--evaluation-noises", 3) == 1
    assert "evaluation_noises cannot change within a run" in " ".join(capsys.readouterr().err.split())
    assert tiny.train("longer", *changes) == 0
    made = sorted(file.stem for file in (run / "evaluations").glob("*.json"))
    assert made == [f"step_{iteration:06d}" for iteration in (0, 1, 2, 3, 4, 6)]


def test_stop_on_alarm_ends_the_run_with_a_checkpoint_and_a_resumed_run_does_the_same(
    tiny: Tiny, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tiny.folder / "stopped"
    flags = [word for name, value in ALWAYS.items() for word in (f"--alarms.{name}", value)]
    assert tiny.train("stopped", "--stop-on-alarm", *flags) == 3
    said = capsys.readouterr().err
    assert "stopped by an alarm, as stop_on_alarm asks" in said
    assert "kl_runaway after 1 iterations: the KL per step averages" in said
    verify_manifest(run / "checkpoints" / "step_000001")
    assert not (run / "lora").exists()
    assert [(entry["iteration"], entry["name"]) for entry in read_json(run / "alarms.json")] == [
        (1, "kl_runaway")
    ]
    metrics = (run / "metrics.jsonl").read_text()
    assert [
        r["alarm/kl_runaway"] for r in read_records(run / "metrics.jsonl") if "alarm/kl_runaway" in r
    ] == [
        0,
        1,
    ]

    assert main(["train", "--resume", "--output", str(run)]) == 3
    assert "kl_runaway after 1 iterations" in capsys.readouterr().err
    assert (run / "metrics.jsonl").read_text() == metrics
    assert not (run / "lora").exists()

    assert main(["train", "--resume", "--no-stop-on-alarm", "--output", str(run)]) == 0
    assert [entry["iteration"] for entry in read_json(run / "alarms.json")] == [1, 2, 3, 4]
    assert same_tensors(run / "lora", finished / "lora"), "the alarms change nothing in the training"
    assert not (run / "best").exists(), "every evaluation had a fault"


def test_a_run_that_was_interrupted_before_an_evaluation_is_judged_alike(
    tiny: Tiny, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = VGGRPOTrainer.step

    def stop_in_third(trainer: VGGRPOTrainer) -> dict[str, float]:
        if trainer.iteration == 2:
            raise KeyboardInterrupt
        return step(trainer)

    monkeypatch.setattr(VGGRPOTrainer, "step", stop_in_third)
    assert tiny.train("interrupted") == 130
    monkeypatch.undo()
    run = tiny.folder / "interrupted"
    assert main(["train", "--resume", "--output", str(run)]) == 0
    for file in ("alarms.json", "best/score.json"):
        assert read_json(run / file) == read_json(finished / file)
    assert same_tensors(run / "best", finished / "best")


def test_a_finished_run_is_evaluated_as_it_evaluated_itself(tiny: Tiny, finished: Path) -> None:
    before = sorted(path for path in finished.rglob("*"))
    for lora, iteration in ((None, 0), (finished / "lora", 4)):
        records = evaluate_policy(tiny.settings("finished"), lora)
        own = EvaluationRecords.load(finished / "evaluations" / f"step_{iteration:06d}.json")
        assert records.keys == own.keys
        for name in own.metrics:
            np.testing.assert_allclose(records.values(name), own.values(name), rtol=1e-5, err_msg=name)
    assert sorted(path for path in finished.rglob("*")) == before


def test_an_averaged_policy_is_what_is_evaluated_and_written_but_not_what_draws(
    tiny: Tiny, finished: Path
) -> None:
    assert tiny.train("averaged", "--ema-decay", 0.8) == 0
    run = tiny.folder / "averaged"
    checkpoints = [folder / "checkpoints" / "step_000004" for folder in (finished, run)]
    drawn, drawn_again = (load_tensors(folder / "policy.safetensors") for folder in checkpoints)
    assert all(torch.equal(tensor, drawn_again[name]) for name, tensor in drawn.items())
    average = load_tensors(checkpoints[1] / "average.safetensors")
    assert any((tensor - drawn[name]).abs().max() > 1e-4 for name, tensor in average.items())
    assert same_tensors(run / "lora", checkpoints[1] / "lora")
    assert not same_tensors(run / "lora", finished / "lora")
    records = evaluate_policy(tiny.settings("averaged"), run / "lora")
    own = EvaluationRecords.load(run / "evaluations" / "step_000004.json")
    for name in own.metrics:
        np.testing.assert_allclose(records.values(name), own.values(name), rtol=1e-5, err_msg=name)


def test_another_sampler_and_number_of_steps_give_other_samples_from_the_same_noises(
    tiny: Tiny, finished: Path, tmp_path: Path
) -> None:
    settings = tiny.settings("finished")
    ode = evaluate_policy(settings, finished / "lora")
    more = evaluate_policy(settings, finished / "lora", steps=4)
    file = tmp_path / "sde.json"
    sde = evaluate_policy(settings, finished / "lora", "sde", STEPS, file)
    for other in (more, sde):
        assert other.keys == ode.keys
        assert (other.values("brightness") != ode.values("brightness")).all()
    assert EvaluationRecords.load(file).columns["brightness"] == sde.columns["brightness"]

    part = EvaluationRecords({name: column[:2] for name, column in sde.columns.items()})
    part.columns["brightness"] = [0.5, 0.5]
    part.save(file)
    continued = evaluate_policy(settings, finished / "lora", "sde", STEPS, file)
    assert continued.columns["brightness"][:2] == [0.5, 0.5], "what is measured is not measured again"
    assert continued.keys == sde.keys


@pytest.mark.parametrize(
    ("start", "length", "steps", "window"),
    [
        (0, "all", 10, (0, 9)),
        (0, "all", 50, (0, 49)),
        (0, 5, 10, (0, 5)),
        (0, 5, 50, (0, 25)),
        (2, 4, 20, (4, 8)),
        (2, 7, 20, (4, 15)),
        (0, 5, 2, (0, 1)),
    ],
)
def test_the_stochastic_window_scales_with_the_steps(
    tiny: Tiny, start: int, length: int | str, steps: int, window: tuple[int, int]
) -> None:
    changes = {"train_steps": 10, "sde_window_start": start, "sde_window_length": length}
    settings = load_recipe(tiny.recipe, TrainSettings, changes)
    assert held_out_settings(settings, "sde", steps).window == window
    assert held_out_settings(settings).window is None


def test_too_few_steps_for_the_window_are_refused(tiny: Tiny) -> None:
    settings = load_recipe(
        tiny.recipe, TrainSettings, {"train_steps": 10, "sde_window_start": 6, "sde_window_length": 2}
    )
    with pytest.raises(ConfigError, match="of 2 steps none is stochastic"):
        held_out_settings(settings, "sde", 2)


def test_a_report_names_the_rewards_that_count() -> None:
    changes = {"output": "run", "lgm_path": "lgm"}
    both = load_recipe("micro/train", TrainSettings, changes)
    one = both.model_copy(update={"reward_weights": RewardWeights(camera_motion=0.0)})
    assert set(run_facts(both, 1).rewards) == {"camera_motion", "reprojection"}
    assert list(run_facts(one, 1).rewards) == ["reprojection"]
