"""Reward guidance on the micro family: what its settings do to held-out samples.

    python benchmarks/micro/guidance.py [--rows scale camera_path confirmed] [--quick]

A setting is chosen on 64 unseen captions and confirmed on 64 others, there also on an aligned policy. ODE in
50 steps, paired with the unguided samples of the same noises. What guidance costs is measured by
`benchmarks/guidance_cost.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from harness.options import TableOptions, chosen_rows, parse, run
from harness.pairs import Pairs
from harness.results import figure, markdown_table, write_result
from harness.steered import (
    CHOICE,
    CONFIRMATION,
    EPIPOLAR,
    ROTATION_ERROR,
    TRAJECTORY,
    TRAJECTORY_ERROR,
    SteeredRow,
    SteeredSamples,
)
from harness.workspace import Workspace
from plots import draw

from vggrpo.evaluation import EvaluationRecords, Interval, bootstrap_mean
from vggrpo.training.rewards import CAMERA_MOTION, REPROJECTION

NAME = "guidance"
CONFIRMED, CAMERA_PATH = "confirmed", "camera_path"
BASE = SteeredRow("base")
POLICY = SteeredRow("policy", CONFIRMED, policy=True)
SCALES = {20: (30, 300, 3000), 5: (10, 30, 100, 300, 1000), 1: (10, 100)}
"""By interval. Above the largest the norm cap alone decides."""
THROUGH_SCALES = {5: (30, 100, 300), 2: (30, 100)}
"""The same, for the gradient through the denoiser."""
MIDDLE = 100
"""The scale of the rows that vary something else."""
REWARDS = (CAMERA_MOTION, REPROJECTION)
CHANGES = [*(f"{source}/{reward}" for source in ("lgm", "teacher") for reward in REWARDS), "flow_jerk"]
RATIOS = ("camera_extent", "flow_drift", "brightness", "saturation", "sharpness", "object_presence")
MOTION_FLOOR, SHARPNESS_FLOOR = 0.9, 0.95
PATHS = {"orbit": 20.0, "dolly": 0.3, "truck": 0.3, "pan": 15.0}
PATH_ERRORS = [(s, error) for s in ("lgm", "teacher") for error in (TRAJECTORY_ERROR, ROTATION_ERROR)]
WORDS = {
    TRAJECTORY_ERROR: ("centres unguided", "change"),
    ROTATION_ERROR: ("rotations unguided", "change"),
}
Figures = dict[str, Any]


def rows(quick: bool) -> list[SteeredRow]:
    """Every way to sample, beside the unguided ones."""
    steered = [
        SteeredRow(f"every_{interval}-scale_{scale:g}", "scale", {"scale": scale, "interval": interval})
        for interval, scales in SCALES.items()
        for scale in scales
    ]
    middle = {"scale": MIDDLE, "interval": 5}
    steered += [
        *(
            SteeredRow(
                f"through_denoiser-every_{interval}-scale_{scale}",
                "through",
                {"scale": scale, "interval": interval, "through": "denoiser"},
            )
            for interval, scales in THROUGH_SCALES.items()
            for scale in scales
        ),
        SteeredRow("no_cap", "norm_cap", {**middle, "norm_cap": None}),
        *(SteeredRow(f"cap_{cap}", "norm_cap", {**middle, "norm_cap": cap}) for cap in (0.1, 0.3)),
        SteeredRow("sigma_above_0.6", "levels", {**middle, "stop_sigma": 0.6}),
        SteeredRow("sigma_below_0.6", "levels", {**middle, "start_sigma": 0.6}),
        *(SteeredRow(f"{reward}_alone", "reward", middle, {reward: 1.0}) for reward in REWARDS),
    ]
    for name, amount in PATHS.items():
        path: dict[str, Any] = {"weights": {TRAJECTORY: 1.0}, "camera_path": (name, amount)}
        steered += [
            SteeredRow(f"{name}_unguided", CAMERA_PATH, **path),
            SteeredRow(f"{name}_guided", CAMERA_PATH, {"scale": MIDDLE, "interval": 2}, **path),
        ]
    if quick:
        few = {"every_5-scale_100", "orbit_unguided", "orbit_guided"}
        steered = [row for row in steered if row.name in few]
    return steered


def main(words: list[str] | None = None) -> int:
    """Measures the rows."""
    options = parse(TableOptions, words, __doc__)
    every = [*rows(options.quick), SteeredRow("confirmed", CONFIRMED)]
    groups = {row.group for row in chosen_rows(every, options.rows)}
    workspace = Workspace(options)
    lgm = workspace.lgm()
    samples = SteeredSamples(workspace, lgm, CHOICE)
    base = samples.measure(BASE)
    # A setting is recommended among all of them.
    ways = [row for row in every if row.group not in (CONFIRMED, CAMERA_PATH)]
    settings = ways if CONFIRMED in groups else [row for row in ways if row.group in groups]
    table = [compared(row, base, samples.measure(row), CHANGES) for row in settings]
    best = recommended(table)
    figures: Figures = {
        "n": len(base),
        "rows": table,
        "recommended": best,
        "strongest": strongest(table),
        "camera_paths": [],
        "confirmed": [],
    }
    if CAMERA_PATH in groups:
        others = SteeredSamples(workspace, lgm, CONFIRMATION)
        guided = [row for row in every if row.group == CAMERA_PATH]
        figures["camera_paths"] = path_errors({row.name: others.measure(row) for row in guided})
    if CONFIRMED in groups and best is not None:
        lora = workspace.train_policy(lgm, seed=options.seeds[0]).lora
        others = SteeredSamples(workspace, lgm, CONFIRMATION, lora)
        by_name = {row.name: row.guidance for row in settings}
        figures["confirmed"] = confirmed(others, by_name[best], by_name[figures["strongest"]])
    content = {"sampling": samples.sampling, "rewards": samples.settings.rewards}
    draw(write_result(NAME, options, content, figures, as_text(figures)))
    return 0


def confirmed(samples: SteeredSamples, guidance: Mapping[str, Any], most: Mapping[str, Any]) -> list[Figures]:
    """The recommended setting, also on the policy, and the strongest on prompts that chose neither."""
    base, changes = samples.measure(BASE), [*CHANGES, EPIPOLAR]
    ways = [
        SteeredRow("guided", CONFIRMED, guidance),
        SteeredRow("guided_most", CONFIRMED, most),
        POLICY,
        SteeredRow("policy_guided", CONFIRMED, guidance, policy=True),
    ]
    measured = {row.name: samples.measure(row) for row in ways}
    table = [compared(row, base, measured[row.name], changes) for row in ways]
    over_policy = compared(ways[-1], measured[POLICY.name], measured["policy_guided"], changes)
    return [*table, over_policy | {"name": "policy_guided over policy"}]


def compared(
    row: SteeredRow, before: EvaluationRecords, after: EvaluationRecords, changes: Sequence[str]
) -> Figures:
    """What a way to sample does, sample by sample, and where it started from."""
    pairs = Pairs.of(before, [after])
    return {
        "name": row.name,
        "group": row.group,
        "guidance": dict(row.guidance),
        "before": {name: _mean(pairs.before, name) for name in (*changes, *RATIOS)},
        "changes": {name: pairs.change(name) for name in changes},
        "ratios": {name: pairs.ratio(name) for name in RATIOS},
    }


def path_errors(measured: Mapping[str, EvaluationRecords]) -> list[Figures]:
    """By path: how far the camera is from it by either model, without guidance, and what guidance changes."""
    found = []
    for name in PATHS:
        if f"{name}_guided" not in measured:
            continue
        pairs = Pairs.of(measured[f"{name}_unguided"], [measured[f"{name}_guided"]])
        entry: Figures = {"path": name, "amount": PATHS[name]}
        for source, error in PATH_ERRORS:
            metric = f"{source}/{error}"
            entry[metric] = {"unguided": _mean(pairs.before, metric), "change": pairs.change(metric)}
        found.append(entry)
    return found


def recommended(table: Sequence[Figures]) -> str | None:
    """The row with the highest gain by the teacher among those that clearly raise both of its rewards and
    clearly lose neither motion nor sharpness; None if there is none.
    """

    def acceptable(row: Figures) -> bool:
        up = all(row["changes"][f"teacher/{reward}"].sign > 0 for reward in REWARDS)
        moving = all(row["ratios"][name].low >= MOTION_FLOOR for name in ("camera_extent", "flow_drift"))
        return up and moving and row["ratios"]["sharpness"].low >= SHARPNESS_FLOOR

    return strongest([row for row in table if acceptable(row)])


def strongest(table: Sequence[Figures]) -> str | None:
    """The row with the highest gain by the teacher, whatever it costs; None if there is no row."""

    def gain(row: Figures) -> float:
        return sum(row["changes"][f"teacher/{reward}"].mean for reward in REWARDS)

    return max(table, key=gain)["name"] if table else None


def as_text(figures: Figures) -> str:
    """Everything as markdown."""
    parts = []
    if figures["rows"]:
        parts += [setting_table(figures["rows"], CHANGES)]
        parts += [
            f"Chosen on {figures['n']} captions: {figures['recommended'] or 'none'}. Rule: the highest gain "
            "by the teacher among the settings whose intervals say that both of its rewards rise, camera "
            f"extent and flow drift stay >= {MOTION_FLOOR:g} and sharpness >= {SHARPNESS_FLOOR:g} of the "
            f"base's. The highest gain whatever it costs: {figures['strongest']}."
        ]
    if figures["confirmed"]:
        title = (
            f"On {figures['n']} other captions, against the base model: the chosen setting (guided), the one "
            "of highest gain (guided_most), the aligned policy, and the policy with the chosen setting:"
        )
        parts += [title, setting_table(figures["confirmed"], [*CHANGES, EPIPOLAR])]
    if figures["camera_paths"]:
        header = ["path", *(f"{source}: {word}" for source, error in PATH_ERRORS for word in WORDS[error])]
        lines = [
            [
                f"{row['path']} {row['amount']:g}",
                *(
                    figure(row[f"{source}/{error}"][part], signed=part == "change")
                    for source, error in PATH_ERRORS
                    for part in ("unguided", "change")
                ),
            ]
            for row in figures["camera_paths"]
        ]
        title = "Camera paths, distance of the centres in median depths and of the rotations in radians:"
        parts += [title, markdown_table(header, lines)]
    return "\n\n".join(parts)


def setting_table(rows: Sequence[Figures], changes: Sequence[str]) -> str:
    """A line for each way to sample."""
    lines = [
        [
            row["name"],
            *(figure(row["changes"][name], signed=True) for name in changes),
            *(figure(row["ratios"][name], 2) for name in RATIOS),
        ]
        for row in rows
    ]
    return markdown_table(["setting", *changes, *(f"{name} ratio" for name in RATIOS)], lines)


def _mean(records: EvaluationRecords, metric: str) -> Interval:
    return bootstrap_mean(records.values(metric), records.columns["prompt_id"])


if __name__ == "__main__":
    run(main)
