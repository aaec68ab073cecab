"""Evaluation records and a report made of them, small enough to read."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from example_gate import make_gate

from vggrpo.evaluation import Alarm, EvaluationRecords, RewardTiming, Timing, compare, reward_agreement
from vggrpo.evaluation.report import (
    Clipping,
    ClippingSpan,
    Curve,
    Figure,
    LayerSearchData,
    ReportData,
    RunFacts,
    Stage,
    VideoPair,
)
from vggrpo.io import Histogram
from vggrpo.viewer import Scene4D
from vggrpo.world import render_clips, sample_scene

MakeRecords = Callable[..., EvaluationRecords]

HOSTILE = 'a <b>red</b> box & "two" <script>alert(1)</script>'


@pytest.fixture(scope="session")
def make_records() -> MakeRecords:
    """Records of some prompts with two noises each; keyword arguments shift metrics (`/` written `__`)."""

    def make(prompts: int = 12, **shifts: float) -> EvaluationRecords:
        rng = np.random.default_rng(0)
        rows = prompts * 2
        base = {
            "lgm/motion": 0.7 + 0.1 * rng.normal(size=rows),
            "teacher/motion": 0.66 + 0.1 * rng.normal(size=rows),
            "flow_jerk": 0.6 + 0.1 * rng.normal(size=rows),
            "flow_magnitude": 2 + 0.3 * rng.normal(size=rows),
            "saturation": 0.4 + 0.05 * rng.normal(size=rows),
        }
        base["flow_drift"] = 0.8 * base["flow_magnitude"]
        for name, shift in shifts.items():
            base[name.replace("__", "/")] += shift + 0.1 * abs(shift) * rng.normal(size=rows)
        columns = {
            "prompt_id": [f"p{i // 2}" for i in range(rows)],
            "sample": [i % 2 for i in range(rows)],
            "kind": ["static" if i < rows // 2 else "dynamic" for i in range(rows)],
            "prompt": [f"prompt {i // 2}" for i in range(rows)],
        }
        return EvaluationRecords(columns | {name: values.tolist() for name, values in base.items()})

    return make


@pytest.fixture(scope="session")
def report_data(make_records: MakeRecords) -> ReportData:
    """A complete report; its captions try to break out of the page."""
    rng = np.random.default_rng(0)
    before, after = make_records(), make_records(teacher__motion=0.05, flow_jerk=-0.1, lgm__motion=0.08)
    clips = [
        np.broadcast_to((level * np.arange(17)).astype(np.uint8)[:, None, None, None], (17, 24, 32, 3)).copy()
        + rng.integers(0, 20, (17, 24, 32, 3), dtype=np.uint8)
        for level in (4, 12)
    ]
    straight = np.linspace(0, 0.4, 5)[:, None] * [1.0, 0.0, 0.5]
    paths = straight + rng.normal(0, 0.02, (5, 3)), straight
    timing = RewardTiming(
        {"latent geometry": Timing([0.04, 0.05]), "rewards": Timing([0.01, 0.01])},
        {"decode": Timing([0.1, 0.12]), "geometry": Timing([0.05, 0.05]), "rewards": Timing([0.01, 0.01])},
        batch_size=4,
        latent_shape=(4, 4, 5, 6, 8),
        device="cpu",
        threads=1,
    )
    return ReportData(
        title="Test run <1>",
        facts=RunFacts(
            "micro", "any4d", 17, 24, 32, 8.0, ["motion"], "E1", held_out_prompts=12, held_out_noises=2
        ),
        command='vggrpo demo --name "a & b"',
        created="2026-01-01 12:00",
        settings={"train": {"lr": 1e-3, "note": "<tag>"}},
        machine={"Processor": "<cpu>"},
        stages=[Stage("Distil", "Trained & tested.", 12.0), Stage("Align", "Ran.", 60.0)],
        comparisons=compare(before, after),
        videos=[VideoPair(HOSTILE, "static", *clips, [("Flow jerk", 0.6, 0.5, 3)], paths) for _ in range(3)],
        curves=[
            Curve("Reward", "motion", list(range(30)), rng.normal(size=30).tolist()),
            Curve("Check", "jerk", [0, 1, 2], [0.6, float("nan"), 0.5], [0.5, 0.5, 0.4], [0.7, 0.7, 0.6]),
        ],
        clipping=Clipping(
            [
                ClippingSpan(label, Histogram((-3.0, -1.0, 1.0, 3.0), counts), {0: 0.5, 1: 0.125})
                for label, counts in (("iteration 1", (1.0, 2.0, 1.0)), ("iteration 9", (0.0, 3.0, 1.0)))
            ]
        ),
        layer_search=LayerSearchData(["E0", "E1", "F"], {"held-out error": [0.3, 0.4, 0.6]}, "E1", 80, 20),
        agreement={"base model": reward_agreement(before), "aligned model": reward_agreement(after)},
        gate=make_gate(),
        alarms=[Alarm(20, "motion_collapse", "The camera <moves> 40 % less.", {})],
        num_evaluations=2,
        fidelity=[Figure("Depth error", 0.083)],
        scenes=[_scenes()],
        timing=timing,
        remarks=["One seed."],
    )


def _scenes() -> tuple[Scene4D, Scene4D]:
    """Two scenes with hostile words."""
    clips = render_clips([sample_scene("test", 0)], views="keys", height=24, width=32, num_frames=17)
    colours = (clips.frames[0] * 255).round().to(torch.uint8)
    frames = (0, 4, 8, 12, 16)
    before, after = (
        Scene4D(clips.geometry, colours, 8.0, frames, name, HOSTILE) for name in ("Before", "After")
    )
    return before, after
