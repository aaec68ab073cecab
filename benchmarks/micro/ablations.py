"""Ablations of VGGRPO on the micro family: rows that differ from the recipe in single settings.

    python benchmarks/micro/ablations.py [--rows rewards kl_coef] [--seeds 0 1 2] [--quick]

All are measured alike, by the recipe's reward options: 64 unseen captions x 2 noises, ODE, paired with the
base model.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.options import TableOptions, chosen_rows, parse, run
from harness.pairs import Change, changes
from harness.results import figure, markdown_table, write_result
from harness.variants import PolicyRow, policy_rows
from harness.workspace import RECIPE, PolicyRun, Workspace
from harness.yardstick import BASE, Yardstick
from plots import draw
from safetensors import safe_open
from safetensors.torch import save_file

from vggrpo.backbones.pipelines import LORA_FILE, lora_file
from vggrpo.config import TrainSettings
from vggrpo.evaluation import EvaluationRecords
from vggrpo.io import atomic_file
from vggrpo.training.trainer import VGGRPOTrainer

NAME = "ablations"
METRICS = (
    "lgm/camera_motion",
    "teacher/camera_motion",
    "lgm/reprojection",
    "teacher/reprojection",
    "flow_jerk",
    "camera_extent",
    "flow_drift",
    "object_presence",
)
SHOWN_AS_RATIO = ("camera_extent", "flow_drift", "object_presence")
NEGATED = "negated"
"""Folder, in a run, of its LoRA with the other sign."""


def main(words: list[str] | None = None) -> int:
    """Runs the benchmark."""
    options = parse(TableOptions, words, __doc__)
    workspace = Workspace(options)
    recipe = workspace.policy_settings(workspace.lgm())
    rows = chosen_rows(policy_rows(recipe), options.rows)
    settings, figures = measure_rows(workspace, rows)
    path = write_result(NAME, options, settings, figures, as_text(figures["rows"]))
    draw(path)
    return 0


def measure_rows(workspace: Workspace, rows: Sequence[PolicyRow]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Trains what is not trained yet, with the seeds of the command line; a result's settings and figures."""
    options, lgm = workspace.options, workspace.lgm()
    recipe = workspace.policy_settings(lgm)
    yardstick = Yardstick(workspace, lgm)
    base = yardstick.measure(BASE, None)
    figures = []
    for row in rows:
        same = is_recipe(workspace, row, recipe)
        runs = [
            workspace.train_policy(lgm, seed=seed)
            if same
            else workspace.train_policy(lgm, row.name, seed, row.changes, row.trainer)
            for seed in options.seeds
        ]
        policies = {run.settings.seed: measured(yardstick, row, run) for run in runs}
        of_recipe = same and not row.negated
        figures.append(row_figures(row, of_recipe, runs, changes(base, policies, row.kind)))
    settings = {"train": recipe, "evaluation": yardstick.settings, "seeds": options.seeds}
    return settings, {"n": len(base), "rows": figures}


def measured(yardstick: Yardstick, row: PolicyRow, run: PolicyRun) -> EvaluationRecords:
    """The records of a run's policy, or of the base model with the policy's LoRA subtracted."""
    if row.negated:
        return yardstick.measure(f"{NEGATED}-{run.name}", negated_lora(run.lora, run.path / NEGATED))
    return yardstick.measure(run.name, run.lora)


def negated_lora(lora: Path, folder: Path) -> Path:
    """Makes, once, the LoRA that subtracts what another adds: B with the other sign. Returns its folder.

    Raises:
        ValueError: if the LoRA has no B under the names that diffusers gives.
    """
    if (folder / LORA_FILE).exists():
        return folder
    with safe_open(lora_file(lora), framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    ups = [name for name in tensors if ".lora_B." in name]
    if not ups:
        raise ValueError(f"{lora} has no tensor with .lora_B. in its name, so there is nothing to negate")
    tensors |= {name: -tensors[name] for name in ups}
    folder.mkdir(exist_ok=True)
    with atomic_file(folder / LORA_FILE) as temporary:
        save_file(tensors, temporary, metadata)
    return folder


def is_recipe(workspace: Workspace, row: PolicyRow, recipe: TrainSettings) -> bool:
    """Whether a row's training is the recipe's own. A floor that gates nothing is no difference."""
    if row.trainer is not VGGRPOTrainer:
        return False
    changed = workspace.policy_settings(recipe.lgm_path, changes=row.changes)
    return changed.model_copy(update={"lgm_floor": recipe.lgm_floor}) == recipe


def row_figures(
    row: PolicyRow, is_the_recipe: bool, runs: Sequence[PolicyRun], table: Mapping[str, Change]
) -> dict[str, Any]:
    """Everything about one row."""
    return {
        "group": row.group,
        "label": row.label,
        "recipe": is_the_recipe,
        "prompts": row.kind,
        "overrides": {} if is_the_recipe else row.changes,
        "changes": {name: table[name] for name in METRICS},
        "alarms": {run.settings.seed: sorted({alarm["name"] for alarm in run.alarms}) for run in runs},
        "seconds": {run.settings.seed: run.seconds for run in runs},
    }


def as_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table as markdown."""
    lines = []
    for row in rows:
        cells = []
        for name in METRICS:
            change: Change = row["changes"][name]
            ratio = name in SHOWN_AS_RATIO
            cells.append(figure(change.ratio, 2) if ratio else figure(change.change, 3, signed=True))
        raised = [name for names in row["alarms"].values() for name in names]
        told = ", ".join(f"{name} {raised.count(name)}/{len(row['alarms'])}" for name in sorted(set(raised)))
        minutes = sum(row["seconds"].values()) / len(row["seconds"]) / 60
        name = f"{row['group']}: {row['label']}" + (f" ({RECIPE})" if row["recipe"] else "")
        lines.append([name, *cells, told or "none", f"{minutes:.1f}"])
    columns = [f"{name} (share of the base's)" if name in SHOWN_AS_RATIO else name for name in METRICS]
    return markdown_table(["row", *columns, "alarms", "minutes"], lines)


if __name__ == "__main__":
    run(main)
