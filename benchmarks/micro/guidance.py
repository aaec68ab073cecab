"""Reward guidance on the micro family: what its settings do to held-out samples, and what they cost.

    python benchmarks/micro/guidance.py [--rows scale policy camera_path] [--quick]

64 unseen captions, ODE in 50 steps, paired with the unguided samples of the same noises.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from harness.options import TableOptions, chosen_rows, parse, run
from harness.pairs import Pairs
from harness.results import figure, markdown_table, write_result
from harness.steered import (
    EPIPOLAR,
    EVALUATIONS,
    SECONDS,
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
BASE = SteeredRow("base")
POLICY = SteeredRow("policy", policy=True)
SCALES = {20: (30, 300, 3000), 5: (10, 30, 100, 300, 1000), 1: (10, 100)}
"""By interval. Above the largest the norm cap alone decides."""
MIDDLE = 100
"""The scale of the rows that vary something else."""
REWARDS = (CAMERA_MOTION, REPROJECTION)
BY_BOTH = [f"{source}/{reward}" for source in ("lgm", "teacher") for reward in REWARDS]
CHANGES = [*BY_BOTH, EPIPOLAR, "flow_jerk"]
RATIOS = ("camera_extent", "flow_drift", "brightness", "saturation", "sharpness", "object_presence", SECONDS)
MOTION_FLOOR, SHARPNESS_FLOOR = 0.9, 0.95
PATHS = {"orbit": 20.0, "dolly": 0.3, "truck": 0.3, "pan": 15.0}
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
        SteeredRow("through_denoiser", "through", {**middle, "through": "denoiser"}),
        SteeredRow("no_cap", "norm_cap", {**middle, "norm_cap": None}),
        *(SteeredRow(f"cap_{cap}", "norm_cap", {**middle, "norm_cap": cap}) for cap in (0.1, 0.3)),
        SteeredRow("sigma_above_0.6", "levels", {**middle, "stop_sigma": 0.6}),
        SteeredRow("sigma_below_0.6", "levels", {**middle, "start_sigma": 0.6}),
        *(SteeredRow(f"{reward}_alone", "reward", middle, {reward: 1.0}) for reward in REWARDS),
        SteeredRow("policy_guided", "policy", middle, policy=True),
    ]
    for name, amount in PATHS.items():
        path: dict[str, Any] = {"weights": {TRAJECTORY: 1.0}, "camera_path": (name, amount)}
        steered += [
            SteeredRow(f"{name}_unguided", "camera_path", **path),
            SteeredRow(f"{name}_guided", "camera_path", {"scale": MIDDLE, "interval": 2}, **path),
        ]
    if quick:
        few = {"every_5-scale_100", "policy_guided", "orbit_unguided", "orbit_guided"}
        steered = [row for row in steered if row.name in few]
    return steered


def main(words: list[str] | None = None) -> int:
    """Measures the rows."""
    options = parse(TableOptions, words, __doc__)
    chosen = chosen_rows(rows(options.quick), options.rows)
    workspace = Workspace(options)
    lgm = workspace.lgm()
    with_policy = any(row.policy for row in chosen)
    lora = workspace.train_policy(lgm, seed=options.seeds[0]).lora if with_policy else None
    samples = SteeredSamples(workspace, lgm, lora)
    base = {False: samples.measure(BASE)} | ({True: samples.measure(POLICY)} if with_policy else {})
    plain = [row for row in chosen if row.camera_path is None]
    table = [compared(row, base[row.policy], samples.measure(row)) for row in plain]
    if with_policy:
        table.insert(0, compared(POLICY, base[False], base[True]))
    steered = [row for row in chosen if row.camera_path is not None]
    paths = path_errors({row.name: samples.measure(row) for row in steered})
    figures = {
        "n": len(base[False]),
        "base": {name: float(base[False].values(name).mean()) for name in (SECONDS, EVALUATIONS)},
        "rows": table,
        "recommended": recommended(table),
        "camera_paths": paths,
    }
    settings = {"sampling": samples.sampling, "rewards": samples.settings.rewards}
    path = write_result(NAME, options, settings, figures, as_text(figures))
    draw(path)
    return 0


def compared(row: SteeredRow, before: EvaluationRecords, after: EvaluationRecords) -> Figures:
    """What a way to sample does, sample by sample."""
    pairs = Pairs.of(before, [after])
    return {
        "name": row.name,
        "group": row.group,
        "guidance": dict(row.guidance),
        "changes": {name: pairs.change(name) for name in CHANGES},
        "ratios": {name: pairs.ratio(name) for name in RATIOS},
    }


def path_errors(measured: Mapping[str, EvaluationRecords]) -> list[Figures]:
    """By path: the teacher's distance of the camera from it, without and with guidance."""
    found = []
    for name in PATHS:
        if f"{name}_guided" not in measured:
            continue
        pairs = Pairs.of(measured[f"{name}_unguided"], [measured[f"{name}_guided"]])
        entry: Figures = {"path": name, "amount": PATHS[name]}
        for source in ("lgm", "teacher"):
            metric = f"{source}/{TRAJECTORY_ERROR}"
            entry[source] = {"unguided": _mean(pairs.before, metric), "change": pairs.change(metric)}
        found.append(entry)
    return found


def recommended(table: Sequence[Figures]) -> str | None:
    """The guided row of the base model with the highest gain by the teacher among those that lose neither
    motion nor sharpness and whose two rewards by the teacher do not clearly fall; None if no gain is clear.
    """

    def gain(row: Figures) -> float:
        return sum(row["changes"][f"teacher/{reward}"].mean for reward in REWARDS)

    def acceptable(row: Figures) -> bool:
        signs = [row["changes"][f"teacher/{reward}"].sign for reward in REWARDS]
        kept = all(row["ratios"][name].mean >= MOTION_FLOOR for name in ("camera_extent", "flow_drift"))
        sharp = row["ratios"]["sharpness"].mean >= SHARPNESS_FLOOR
        return kept and sharp and max(signs) > 0 and min(signs) >= 0

    fit = [row for row in table if row["guidance"] and row["group"] != "policy" and acceptable(row)]
    return max(fit, key=gain)["name"] if fit else None


def as_text(figures: Figures) -> str:
    """Everything as markdown."""
    header = ["setting", *CHANGES, *(f"{name} ratio" for name in RATIOS)]
    lines = [
        [
            row["name"],
            *(figure(row["changes"][name], signed=True) for name in CHANGES),
            *(figure(row["ratios"][name], 2) for name in RATIOS),
        ]
        for row in figures["rows"]
    ]
    parts = [markdown_table(header, lines)] if lines else []
    if figures["camera_paths"]:
        sources = ("lgm", "teacher")
        parts.append(
            markdown_table(
                ["path", *(f"{s}: {w}" for s in sources for w in ("error unguided", "change"))],
                [
                    [
                        f"{row['path']} {row['amount']:g}",
                        *(
                            figure(row[source][part], signed=part == "change")
                            for source in sources
                            for part in ("unguided", "change")
                        ),
                    ]
                    for row in figures["camera_paths"]
                ],
            )
        )
    parts.append(
        f"Recommended: {figures['recommended'] or 'none'}. Rule: the highest gain by the teacher with camera "
        f"extent and flow drift >= {MOTION_FLOOR:g} and sharpness >= {SHARPNESS_FLOOR:g} of the base's. "
        f"Unguided: {figures['base'][SECONDS]:.1f} s a video."
    )
    return "\n\n".join(parts)


def _mean(records: EvaluationRecords, metric: str) -> Interval:
    return bootstrap_mean(records.values(metric), records.columns["prompt_id"])


if __name__ == "__main__":
    run(main)
