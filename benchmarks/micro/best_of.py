"""Best-of-N on the micro family: what ranking by the latent reward buys for its denoiser evaluations.

    python benchmarks/micro/best_of.py [--rows best_of pruned guidance policy steps] [--quick]

64 unseen captions that chose no setting, ODE, paired with single samples of the base model. Beside it, at
their own numbers of evaluations: pruning on the way, guidance, the aligned policy, the policy with best-of-N,
and plainly more steps. A guided step, and the ranking of a candidate, cost a pass through the latent geometry
model besides (`benchmarks/guidance_cost.py`); an aligned policy costs its training.
"""

from collections.abc import Sequence
from typing import Any

from harness.options import TableOptions, chosen_rows, parse, run
from harness.pairs import Pairs
from harness.results import figure, markdown_table, write_result
from harness.steered import CONFIRMATION, EVALUATIONS, SteeredRow, SteeredSamples
from harness.workspace import Workspace
from plots import draw

from vggrpo.evaluation import EvaluationRecords
from vggrpo.io import read_json
from vggrpo.training.rewards import CAMERA_MOTION, REPROJECTION

NAME = "best_of"
BASE = SteeredRow("base")
METRICS = [f"{source}/{reward}" for source in ("lgm", "teacher") for reward in (CAMERA_MOTION, REPROJECTION)]
KEPT = ("camera_extent", "flow_drift", "sharpness")
DEFAULT_GUIDANCE = {"scale": 100, "interval": 5}
EQUAL, EQUAL_BAND = "best_of_4", 0.1
"""The way with which those of about as many evaluations are compared."""
Figures = dict[str, Any]


def rows(guidance: dict[str, object], quick: bool) -> list[SteeredRow]:
    """Every way to spend evaluations."""
    found = [SteeredRow(f"best_of_{n}", "best_of", candidates=n) for n in (2, 4, 8)]
    found += [
        SteeredRow("best_of_4-12_steps", "best_of", candidates=4, steps=12),
        SteeredRow("best_of_8-pruned_0.9", "pruned", candidates=8, prune_sigmas=(0.9,)),
        SteeredRow("best_of_8-pruned_0.9_0.8_0.6", "pruned", candidates=8, prune_sigmas=(0.9, 0.8, 0.6)),
        SteeredRow("guided", "guidance", guidance),
        SteeredRow("policy", "policy", policy=True),
        SteeredRow("policy_best_of_4", "policy", candidates=4, policy=True),
        *(SteeredRow(f"{steps}_steps", "steps", steps=steps) for steps in (100, 200)),
    ]
    if quick:
        found = [
            SteeredRow("best_of_2", "best_of", candidates=2),
            SteeredRow("best_of_4-pruned", "pruned", candidates=4, prune_sigmas=(0.9,)),
            SteeredRow("guided", "guidance", guidance),
        ]
    return found


def main(words: list[str] | None = None) -> int:
    """Measures the rows."""
    options = parse(TableOptions, words, __doc__)
    chosen = chosen_rows(rows(recommended_guidance(options), options.quick), options.rows)
    workspace = Workspace(options)
    lgm = workspace.lgm()
    with_policy = any(row.policy for row in chosen)
    lora = workspace.train_policy(lgm, seed=options.seeds[0]).lora if with_policy else None
    samples = SteeredSamples(workspace, lgm, CONFIRMATION, lora)
    measured = {row.name: (row, samples.measure(row)) for row in [BASE, *chosen]}
    _, base = measured[BASE.name]
    figures: Figures = {
        "n": len(base),
        "rows": [compared(row, base, records) for row, records in measured.values()],
    }
    if EQUAL in measured:
        _, reference = measured[EQUAL]
        budget = reference.values(EVALUATIONS).mean()
        figures["equal_evaluations"] = [
            compared(row, reference, records)
            for row, records in measured.values()
            if row.name != EQUAL and abs(records.values(EVALUATIONS).mean() / budget - 1) < EQUAL_BAND
        ]
    settings = {"sampling": samples.sampling, "rewards": samples.settings.rewards}
    draw(write_result(NAME, options, settings, figures, as_text(figures)))
    return 0


def compared(row: SteeredRow, before: EvaluationRecords, after: EvaluationRecords) -> Figures:
    """What a way to spend evaluations buys, sample by sample."""
    pairs = Pairs.of(before, [after])
    return {
        "name": row.name,
        "group": row.group or "base",
        "evaluations": float(after.values(EVALUATIONS).mean()),
        "changes": {name: pairs.change(name) for name in METRICS},
        "ratios": {name: pairs.ratio(name) for name in KEPT},
    }


def as_text(figures: Figures) -> str:
    """The tables as markdown."""
    parts = [way_table(figures["rows"])]
    if figures.get("equal_evaluations"):
        title = f"Against {EQUAL}, ways with as many evaluations (within {EQUAL_BAND:.0%}):"
        parts += [title, way_table(figures["equal_evaluations"])]
    return "\n\n".join(parts)


def way_table(rows: Sequence[Figures]) -> str:
    """A line for each way."""
    header = ["way", "evaluations", *METRICS, *(f"{name} ratio" for name in KEPT)]
    lines = [
        [
            row["name"],
            f"{row['evaluations']:.0f}",
            *(figure(row["changes"][name], signed=True) for name in METRICS),
            *(figure(row["ratios"][name], 2) for name in KEPT),
        ]
        for row in rows
    ]
    return markdown_table(header, lines)


def recommended_guidance(options: TableOptions) -> dict[str, object]:
    """The setting that `guidance.py` recommends, where it has run and found one."""
    file = options.results / "guidance.json"
    figures = read_json(file)["figures"] if file.exists() else {"recommended": None, "rows": []}
    for row in figures["rows"]:
        if row["name"] == figures["recommended"]:
            return dict(row["guidance"])
    return dict(DEFAULT_GUIDANCE)


if __name__ == "__main__":
    run(main)
