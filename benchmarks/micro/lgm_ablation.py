"""Ablations of the latent geometry model of the micro family, by the figures of its gate.

    python benchmarks/micro/lgm_ablation.py [--rows stitch data] [--seeds 0 1 2] [--quick]

Agreement of the rewards with the teacher's on held-out clips, generated and real, and how well the motion
reward tells steady from shaky real ones.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from harness.gates import CLIP_KINDS, agreement, steady_shaky_auc
from harness.options import TableOptions, chosen_rows, parse, run
from harness.results import figure, markdown_table, write_result
from harness.variants import LGMRow, lgm_rows
from harness.workspace import FAMILY, RECIPE, LGMRun, Workspace
from plots import draw

from vggrpo.backbones import load_geometry_backbone
from vggrpo.config import ConfigError
from vggrpo.training.rewards import CAMERA_MOTION, REPROJECTION
from vggrpo.world import sample_scene

NAME = "lgm_ablation"
REWARDS = (CAMERA_MOTION, REPROJECTION)


def main(words: list[str] | None = None) -> int:
    """Runs the benchmark."""
    options = parse(TableOptions, words, __doc__)
    if options.lgm != TableOptions.lgm:
        raise ConfigError("--lgm: this benchmark trains its own latent geometry models; leave it out")
    workspace = Workspace(options)
    recipe = workspace.train_lgm(seed=options.seeds[0])
    points = [point.name for point in load_geometry_backbone(FAMILY).stitch_points]
    rows = chosen_rows(lgm_rows(recipe.settings, recipe.stitch_point, points), options.rows)
    figures = [
        row_figures(row, [workspace.train_lgm(row.name, seed, row.changes) for seed in options.seeds])
        for row in rows
    ]
    counts = {
        "generated": recipe.settings.gate_clips,
        "real": len(recipe.gate.real.rewards[CAMERA_MOTION].lgm),
    }
    settings = {"train-lgm": recipe.settings, "seeds": options.seeds}
    path = write_result(NAME, options, settings, {"n": counts, "rows": figures}, as_text(figures))
    draw(path)
    return 0


def row_figures(row: LGMRow, runs: Sequence[LGMRun]) -> dict[str, Any]:
    """Everything about one row."""
    gates = [run.gate for run in runs]
    real = len(gates[0].real.rewards[CAMERA_MOTION].lgm)
    is_shaky = [sample_scene("validation", clip).is_shaky for clip in range(real)]
    return {
        "group": row.group,
        "label": row.label,
        "recipe": not row.changes,
        "overrides": row.changes,
        "agreement": {
            clips: {reward: agreement(gates, reward, clips) for reward in REWARDS} for clips in CLIP_KINDS
        },
        "steady_shaky_auc": steady_shaky_auc(gates, is_shaky),
        "seeds": {
            run.settings.seed: {
                "share": {
                    "generated": {reward: gate.generated.rewards[reward].share for reward in REWARDS},
                    "real": {reward: gate.real.rewards[reward].share for reward in REWARDS},
                },
                "errors": gate.generated.errors,
                "stitch_point": run.stitch_point,
                "seconds": run.seconds,
            }
            for run, gate in zip(runs, gates, strict=True)
        },
    }


def as_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table as markdown."""
    lines = []
    for row in rows:
        cells = [
            figure(row["agreement"][clips][reward]["share"], 2) for reward in REWARDS for clips in CLIP_KINDS
        ]
        minutes = sum(seed["seconds"] for seed in row["seeds"].values()) / len(row["seeds"]) / 60
        name = f"{row['group']}: {row['label']}" + (f" ({RECIPE})" if row["recipe"] else "")
        lines.append([name, *cells, figure(row["steady_shaky_auc"], 3), f"{minutes:.1f}"])
    columns = [f"{reward}, {clips} clips" for reward in REWARDS for clips in CLIP_KINDS]
    table = markdown_table(["row", *columns, "steady-shaky AUC", "minutes"], lines)
    return (
        f"{table}\n\nThe first columns are shares of the ceiling: rank correlation with the teacher over "
        "that of the teacher with itself, after decoding and encoding once more."
    )


if __name__ == "__main__":
    run(main)
