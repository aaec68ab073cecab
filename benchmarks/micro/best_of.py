"""Best-of-N on the micro family: what ranking by the latent reward buys for its denoiser evaluations.

    python benchmarks/micro/best_of.py [--rows best_of pruned guidance policy] [--quick]

64 unseen captions, ODE, paired with single samples of the base model. Beside it, at their own numbers of
evaluations: pruning on the way, guidance, the aligned policy, and the policy with best-of-N.
"""

from harness.options import TableOptions, chosen_rows, parse, run
from harness.pairs import Pairs
from harness.results import figure, markdown_table, write_result
from harness.steered import EVALUATIONS, SECONDS, SteeredRow, SteeredSamples
from harness.workspace import Workspace
from plots import draw

from vggrpo.io import read_json
from vggrpo.training.rewards import CAMERA_MOTION, REPROJECTION

NAME = "best_of"
BASE = SteeredRow("base")
METRICS = [f"{source}/{reward}" for source in ("lgm", "teacher") for reward in (CAMERA_MOTION, REPROJECTION)]
KEPT = ("camera_extent", "flow_drift", "sharpness")
DEFAULT_GUIDANCE = {"scale": 100, "interval": 5}


def rows(guidance: dict[str, object], quick: bool) -> list[SteeredRow]:
    """Every way to spend evaluations."""
    found = [SteeredRow(f"best_of_{n}", "best_of", candidates=n) for n in (2, 4, 8)]
    found += [
        SteeredRow("best_of_4-12_steps", "best_of", candidates=4, steps=12),
        SteeredRow("best_of_8-pruned_0.9", "pruned", candidates=8, prune_sigmas=(0.9,)),
        SteeredRow("best_of_8-pruned_0.9_0.8_0.6", "pruned", candidates=8, prune_sigmas=(0.9, 0.8, 0.6)),
        SteeredRow("guided", "guidance", guidance),
        SteeredRow("guided_best_of_4", "guidance", guidance, candidates=4),
        SteeredRow("policy", "policy", policy=True),
        SteeredRow("policy_best_of_4", "policy", candidates=4, policy=True),
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
    samples = SteeredSamples(workspace, lgm, lora)
    base = samples.measure(BASE)
    table = []
    for row in [BASE, *chosen]:
        records = samples.measure(row)
        pairs = Pairs.of(base, [records])
        table.append(
            {
                "name": row.name,
                "group": row.group or "base",
                "evaluations": float(records.values(EVALUATIONS).mean()),
                "seconds": float(records.values(SECONDS).mean()),
                "changes": {name: pairs.change(name) for name in METRICS},
                "ratios": {name: pairs.ratio(name) for name in KEPT},
            }
        )
    header = ["way", "evaluations", "s", *METRICS, *(f"{name} ratio" for name in KEPT)]
    lines = [
        [
            row["name"],
            f"{row['evaluations']:.0f}",
            f"{row['seconds']:.1f}",
            *(figure(row["changes"][name], signed=True) for name in METRICS),
            *(figure(row["ratios"][name], 2) for name in KEPT),
        ]
        for row in table
    ]
    settings = {"sampling": samples.sampling, "rewards": samples.settings.rewards}
    text = markdown_table(header, lines)
    draw(write_result(NAME, options, settings, {"n": len(base), "rows": table}, text))
    return 0


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
