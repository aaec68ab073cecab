"""The pictures of the micro family's benchmarks, from their result files alone.

python benchmarks/micro/plots.py [--results benchmarks/results/micro] [--output docs/assets]
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tyro
from harness.options import RESULTS, run
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vggrpo.config import ConfigError, NoiseCell
from vggrpo.evaluation import Interval, describe
from vggrpo.io import atomic_file, read_json
from vggrpo.training.tune_noise_figures import NoiseRow, NoiseTuning
from vggrpo.training.tune_noise_plot import plot_noise

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LGM, TEACHER, NEUTRAL, WARNING = "#0072B2", "#D55E00", "#444444", "#B00020"
"""Okabe and Ito's blue and vermilion, which colour-blind people tell apart, and two more."""
SOURCE_COLOURS = {"lgm": LGM, "teacher": TEACHER}
SOURCE_WORDS = {"lgm": "LGM on latents", "teacher": "teacher on decoded video"}
KIND_MARKERS = {"all": "o", "static": "s", "dynamic": "^"}
REWARDS = ("camera_motion", "reprojection")
GROUP_COLOURS = (NEUTRAL, LGM, "#56B4E9", TEACHER, "#009E73", "#CC79A7")
GROUP_MARKERS = ("D", "o", "v", "s", "^", "P")
MOTION_AMOUNTS = ("camera_path", "camera_extent", "flow_magnitude", "flow_drift")
PIXELS = ("brightness", "saturation", "sharpness", "object_presence")
SEED_RANGE = "range of the seeds (line: their mean)"
GATE_SHARE, GATE_AUC = 0.8, 0.93
ROW_HEIGHT = 0.27
Figures = Mapping[str, Any]


@dataclass(frozen=True)
class Series:
    """One kind of mark in a forest plot: an interval a row."""

    intervals: Sequence[Interval]
    colour: str
    label: str = ""
    marker: str = "o"
    shift: float = 0.0
    """Downwards, in rows."""


def draw(result: Path) -> Path:
    """Draws the picture of a result file beside it and returns its path."""
    return draw_to(result, result.with_suffix(".png"))


def draw_to(result: Path, path: Path) -> Path:
    """Draws the picture of a result file to `path`, whose suffix sets the format.

    Raises:
        ConfigError: if no benchmark of the micro family wrote the file.
    """
    content = read_json(result)
    name = content.get("benchmark") if isinstance(content, dict) else None
    if name not in PICTURES:
        raise ConfigError(f"{result} is no result of {', '.join(PICTURES)}")
    PICTURES[name](content["figures"], path)
    return path


def main_result(figures: Figures, path: Path) -> None:
    """The trainings' curves; then a row for each sampler: changes of the rewards, flow jerk, and what must
    not change.
    """
    samplers = figures["changes"]
    figure = Figure(figsize=(13.0, 3.2 + 3.9 * len(samplers)), layout="constrained")
    heights = (0.8, *[1.0] * len(samplers))
    grid = figure.subplots(len(heights), 3, width_ratios=(1.3, 0.8, 1.1), height_ratios=heights)
    _seed_curves(grid[0], figures["curves"], figures["curves_of"])
    for (sampler, by_kind), (rewards, jerk, kept) in zip(samplers.items(), grid[1:], strict=True):
        pairs = [(source, reward) for reward in REWARDS for source in SOURCE_COLOURS]
        names = [f"{source}/{reward}" for source, reward in pairs]
        labels = [f"{name.replace('_', ' ')}\nby the {SOURCE_WORDS[source]}" for source, name in pairs]
        series = [
            Series(
                [interval(table[name]["change"]) for name in names],
                NEUTRAL if kind == "all" else "#999999",
                f"{kind} prompts",
                KIND_MARKERS.get(kind, "D"),
                0.22 * place,
            )
            for place, (kind, table) in enumerate(by_kind.items())
        ]
        table = by_kind["all"]
        forest(rewards, labels, series, f"{sampler}: change of the rewards", references=(0.0,))
        for seed in figures["seeds"]:
            means = [interval(table[name]["seeds"][str(seed)]).mean for name in names]
            rewards.plot(means, [row - 0.18 for row in range(len(names))], "|", color=TEACHER, markersize=9)
        rewards.plot([], [], "|", color=TEACHER, markersize=9, label="seeds, all prompts")
        steady = interval(figures["steady_real_flow_jerk"])
        levels = [interval(table["flow_jerk"]["base"]), interval(table["flow_jerk"]["policy"]), steady]
        rows = ["base model", "aligned", "steady real clips"]
        forest(jerk, rows, [Series(levels, NEUTRAL)], "flow jerk (lower is steadier)")
        amounts = [*MOTION_AMOUNTS, *PIXELS]
        ratios = Series([interval(table[name]["ratio"]) for name in amounts], NEUTRAL)
        words = [describe(name).label for name in amounts]
        forest(kept, words, [ratios], "share of the base model's", references=(1.0,))
        _mark(kept, 0.9, len(MOTION_AMOUNTS), 0)
        for bar in (0.95, 1.05):
            _mark(kept, bar, len(PIXELS), len(MOTION_AMOUNTS))
        kept.plot([], [], color=WARNING, label="bars")
    save(figure, path)


def ablations(figures: Figures, path: Path) -> None:
    """A row for each ablation; rewards by LGM and teacher, flow jerk, motion amount, objects."""
    rows = figures["rows"]
    labels = [_row_label(row) for row in rows]
    figure = Figure(figsize=(16.0, 1.8 + ROW_HEIGHT * 1.25 * len(rows)), layout="constrained")
    panels = figure.subplots(1, 5, sharey=True)
    for reward, axes in zip(REWARDS, panels, strict=False):
        series = [
            Series(
                [interval(row["changes"][f"{source}/{reward}"]["change"]) for row in rows],
                colour,
                SOURCE_WORDS[source],
                shift=0.26 * (source == "teacher"),
            )
            for source, colour in SOURCE_COLOURS.items()
        ]
        forest(axes, labels, series, f"{reward.replace('_', ' ')}: change", references=(0.0,))
    for metric, part, title, axes, reference in (
        ("flow_jerk", "change", "flow jerk: change", panels[2], 0.0),
        ("flow_drift", "ratio", "flow without shake: ratio", panels[3], 1.0),
        ("object_presence", "ratio", "object presence: ratio", panels[4], 1.0),
    ):
        series = [Series([interval(row["changes"][metric][part]) for row in rows], NEUTRAL)]
        forest(axes, labels, series, title, references=(reference,))
    _separate_groups(panels, [row["group"] for row in rows])
    save(figure, path)


def controls(figures: Figures, path: Path) -> None:
    """A row for the recipe and each control: rewards by the teacher and flow jerk, pooled and by seed."""
    rows = figures["rows"]
    labels = [row["label"] for row in rows]
    figure = Figure(figsize=(12.0, 1.7 + 0.4 * len(rows)), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    metrics = (*(f"teacher/{reward}" for reward in REWARDS), "flow_jerk")
    for metric, axes in zip(metrics, panels, strict=True):
        changes = [row["changes"][metric] for row in rows]
        pooled = Series([interval(change["change"]) for change in changes], NEUTRAL, "pooled, 95 %")
        source, _, name = metric.rpartition("/")
        words = f"{name.replace('_', ' ')}{' by the teacher' if source else ''}: change"
        forest(axes, labels, [pooled], words, references=(0.0,))
        for place, change in enumerate(changes):
            means = [interval(seed).mean for seed in change["seeds"].values()]
            axes.plot(means, [place - 0.2] * len(means), "|", color=TEACHER, markersize=9, label="seeds")
    save(figure, path)


def lgm_ablation(figures: Figures, path: Path) -> None:
    """A row for each latent geometry model: shares of the ceiling, and the steady-shaky AUC."""
    rows = figures["rows"]
    labels = [_row_label(row) for row in rows]
    figure = Figure(figsize=(12.0, 1.4 + ROW_HEIGHT * 1.3 * len(rows)), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    for reward, axes in zip(REWARDS, panels, strict=False):
        shares = [
            Series(
                [interval(row["agreement"][clips][reward]["share"]) for row in rows],
                colour,
                f"{clips} clips",
                shift=0.26 * (clips == "real"),
            )
            for clips, colour in (("generated", LGM), ("real", TEACHER))
        ]
        title = f"{reward.replace('_', ' ')}: share of the ceiling"
        forest(axes, labels, shares, title, references=(GATE_SHARE,))
    aucs = Series([interval(row["steady_shaky_auc"]) for row in rows], TEACHER)
    forest(panels[2], labels, [aucs], "steady-shaky AUC, real clips", references=(GATE_AUC,))
    panels[2].plot([], [], color="grey", linestyle=":", label="bar")
    _separate_groups(panels, [row["group"] for row in rows])
    save(figure, path)


def alarm_experiment(figures: Figures, path: Path) -> None:
    """A row for each training, a column for each reward: both gains, and when the first alarm came."""
    rows = figures["rows"]
    figure = Figure(figsize=(10.5, 3.1 * len(rows)), layout="constrained")
    grid = figure.subplots(len(rows), len(REWARDS), squeeze=False, sharex=True, sharey="col")
    for row, panels in zip(rows, grid, strict=True):
        for reward, axes in zip(REWARDS, panels, strict=True):
            iterations = [0, *(point["iteration"] for point in row["curve"])]
            for source, colour in SOURCE_COLOURS.items():
                gains = [interval(point["changes"][f"{source}/{reward}"]) for point in row["curve"]]
                gains = [Interval(0.0, 0.0, 0.0, 0), *gains]
                axes.plot(iterations, [g.mean for g in gains], color=colour, label=SOURCE_WORDS[source])
                axes.fill_between(
                    iterations,
                    [g.low for g in gains],
                    [g.high for g in gains],
                    color=colour,
                    alpha=0.15,
                    linewidth=0,
                )
            if row["first_alarm"] is not None:
                axes.axvline(row["first_alarm"], color=WARNING, linewidth=1.4, label="first alarm")
            title = f"{row['training']}, seed {row['seed']}: {reward.replace('_', ' ')}"
            _style(axes, title)
            axes.axhline(0, color="grey", linewidth=0.8)
            axes.grid(color="#E6E6E6", linewidth=0.8)
            axes.set_ylabel("gain over the base model", fontsize=8.5)
    for axes in grid[-1]:
        axes.set_xlabel("iteration", fontsize=8.5)
    save(figure, path)


def guidance(figures: Figures, path: Path) -> None:
    """A row for each setting, and for the chosen one on other captions; rewards, and what must not change."""
    rows = [*figures["rows"], *figures["confirmed"]]
    labels = [row["name"].replace("_", " ") for row in rows]
    figure = Figure(figsize=(14.0, 1.6 + ROW_HEIGHT * 1.25 * max(len(rows), 3)), layout="constrained")
    panels = figure.subplots(1, 4, sharey=True)
    _reward_panels(panels, labels, rows)
    for metric, axes, bar in (("flow_drift", panels[2], 0.9), ("sharpness", panels[3], 0.95)):
        series = [Series([interval(row["ratios"][metric]) for row in rows], NEUTRAL)]
        title = f"{metric.replace('_', ' ')}, share of the unguided"
        forest(axes, labels, series, title, references=(1.0, bar))
    _separate_groups(panels, [row["group"] for row in rows])
    save(figure, path)


def best_of(figures: Figures, path: Path) -> None:
    """What denoiser evaluations buy: the gain of each reward by the teacher over their number."""
    figure = Figure(figsize=(11.0, 5.0), layout="constrained")
    panels = figure.subplots(1, 2)
    groups = list(dict.fromkeys(row["group"] for row in figures["rows"]))
    for reward, axes in zip(REWARDS, panels, strict=True):
        gains = [interval(row["changes"][f"teacher/{reward}"]) for row in figures["rows"]]
        spent = [row["evaluations"] for row in figures["rows"]]
        for row, gain, evaluations in zip(figures["rows"], gains, spent, strict=True):
            place = groups.index(row["group"])
            colour, marker = GROUP_COLOURS[place % 6], GROUP_MARKERS[place % 6]
            axes.plot([evaluations] * 2, [gain.low, gain.high], color=colour, linewidth=1.4)
            axes.plot(evaluations, gain.mean, marker, color=colour, label=row["group"].replace("_", " "))
        axes.axhline(0, color="grey", linewidth=0.8)
        axes.set_xscale("log")
        axes.set_xlim(0.85 * min(spent), 2.6 * max(spent))
        ticks = [50 * 2**n for n in range(10) if min(spent) < 60 * 2**n and 50 * 2**n <= 1.1 * max(spent)]
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.set_xlabel("denoiser evaluations a video", fontsize=8.5)
        heights = apart([gain.mean for gain in gains], spent, 0.045 * float(np.ptp(axes.get_ylim())))
        for row, evaluations, height in zip(figures["rows"], spent, heights, strict=True):
            words = row["name"].replace("_", " ").replace("-", ", ")
            axes.annotate(words, (evaluations * 1.05, height), va="center", fontsize=7.5)
        _style(axes, f"{reward.replace('_', ' ')} by the teacher: gain")
    save(figure, path)


def gradient_signal(figures: Figures, path: Path) -> None:
    """The signal in a group's gradient, a row a setting."""
    labels = list(figures["rows"])
    figure = Figure(figsize=(7.5, 1.2 + ROW_HEIGHT * len(labels)), layout="constrained")
    signals = Series([interval(row["signal"]) for row in figures["rows"].values()], LGM)
    axes = figure.subplots()
    forest(axes, labels, [signals], "share of signal in the gradient of a group", references=(0.0,))
    _separate_groups([axes], [label.split(":")[0] for label in labels])
    save(figure, path)


def training_cost(figures: Figures, path: Path) -> None:
    """What denoiser evaluations buy: the held-out reward over their number, a line a training."""
    figure = Figure(figsize=(11.0, 4.2), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for source, axes in zip(SOURCE_COLOURS, panels, strict=True):
        for place, row in enumerate(figures["rows"]):
            colour, marker = GROUP_COLOURS[place % 6], GROUP_MARKERS[place % 6]
            for points in row["curves"].values():
                spent = [point["evaluations"] for point in points[1:]]
                gains = [point[source] for point in points[1:]]
                label = row["group"].replace("_", " ")
                style = f"{'-' if place < 6 else '--'}{marker}"
                axes.plot(spent, gains, style, color=colour, markersize=3.5, linewidth=1, label=label)
        axes.axhline(0, color="grey", linewidth=0.8)
        axes.set_xscale("log")
        axes.grid(color="#E6E6E6", linewidth=0.8)
        axes.set_xlabel("denoiser evaluations, rollouts and updates", fontsize=8.5)
        _style(axes, f"held-out reward by the {SOURCE_WORDS[source]}: gain")
    panels[0].axhline(figures["target"], color=WARNING, linewidth=1.4, label="target")
    save(figure, path)


def apart(heights: Sequence[float], places: Sequence[float], distance: float) -> list[float]:
    """Heights of labels, raised where they would cover one whose place is less than a factor of 3 away."""
    moved = list(heights)
    for number in sorted(range(len(moved)), key=lambda n: heights[n]):
        below = [
            moved[other]
            for other in range(len(moved))
            if (heights[other], other) < (heights[number], number)
            and max(places[other], places[number]) < 3 * min(places[other], places[number])
        ]
        for height in sorted(below):
            if abs(height - moved[number]) < distance:
                moved[number] = height + distance
    return moved


def noise(figures: Figures, path: Path) -> None:
    """The picture of `vggrpo tune-noise`."""
    plot_noise(noise_tuning(figures), path)


def noise_tuning(figures: Figures) -> NoiseTuning:
    """The tuning whose `as_dict` a result file holds."""
    rows = []
    for entry in figures["cells"]:
        window = entry["sde_window_start"], entry["sde_window_length"]
        cell = NoiseCell(entry["transition"], entry["noise_scale"], *window)
        rows.append(NoiseRow(cell, {name: interval(value) for name, value in entry["figures"].items()}))
    return NoiseTuning(tuple(rows), figures["tolerance"], figures["latent_tolerance"])


PICTURES: dict[str, Callable[[Figures, Path], None]] = {
    picture.__name__: picture
    for picture in (
        *(main_result, controls, ablations, lgm_ablation, alarm_experiment, noise, guidance, best_of),
        *(gradient_signal, training_cost),
    )
}
"""By the name of the benchmark."""


def forest(
    axes: "Axes",
    labels: Sequence[str],
    series: Sequence[Series],
    title: str,
    references: Sequence[float] = (),
) -> None:
    """Intervals as horizontal bars, a row a label, from the top down; unknown ends are left out."""
    for reference in references:
        axes.axvline(reference, color="grey", linewidth=1.0, linestyle=":")
    for one in series:
        known = [(row, value) for row, value in enumerate(one.intervals) if math.isfinite(value.mean)]
        places = [row + one.shift for row, _ in known]
        for place, (_, value) in zip(places, known, strict=True):
            axes.plot([value.low, value.high], [place, place], color=one.colour, linewidth=1.8)
        axes.plot(
            [value.mean for _, value in known],
            places,
            linestyle="none",
            marker=one.marker,
            markersize=5,
            color=one.colour,
            label=one.label or None,
        )
    axes.set_yticks(range(len(labels)), labels, fontsize=8.5)
    axes.set_ylim(len(labels) - 0.3, -0.6)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.grid(axis="x", color="#E6E6E6", linewidth=0.8)
    _style(axes, title)


def interval(value: Mapping[str, Any]) -> Interval:
    """An interval of a result file."""
    mean, low, high = (math.nan if value[end] is None else value[end] for end in ("mean", "low", "high"))
    return Interval(mean, low, high, value.get("count", 0), value.get("missing", 0))


def save(figure: Figure, path: Path) -> None:
    """Writes the picture, with one legend of everything that has a label, completely or not at all."""
    handles = {
        label: handle
        for axes in figure.axes
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    if handles:
        figure.legend(
            list(handles.values()),
            list(handles),
            loc="outside lower center",
            ncols=min(len(handles), 6),
            fontsize=8.5,
            frameon=False,
        )
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=140)


def _seed_curves(panels: Sequence["Axes"], curves: Mapping[str, Sequence[Figures]], of: str) -> None:
    """Changes of both rewards and of the flow jerk while the policies train: mean and range of the seeds.

    Args:
        panels: three.
        curves: by seed.
        of: what they are measured on, in words.
    """
    lines = [
        [(f"{source}/{reward}", colour, SOURCE_WORDS[source]) for source, colour in SOURCE_COLOURS.items()]
        for reward in REWARDS
    ]
    lines.append([("flow_jerk", NEUTRAL, "flow jerk")])
    titles = [f"{name.replace('_', ' ')} while training: change" for name in (*REWARDS, "flow_jerk")]
    iterations = [0, *(point["iteration"] for point in next(iter(curves.values())))]
    for axes, members, title in zip(panels, lines, titles, strict=True):
        for metric, colour, label in members:
            seeds = np.array(
                [
                    [0.0, *(interval(point["changes"][metric]).mean for point in curve)]
                    for curve in curves.values()
                ]
            )
            axes.plot(iterations, seeds.mean(0), color=colour, marker="o", markersize=3.5, label=label)
            axes.fill_between(
                iterations,
                seeds.min(0),
                seeds.max(0),
                color=colour,
                alpha=0.15,
                linewidth=0,
                label=SEED_RANGE,
            )
        axes.axhline(0, color="grey", linewidth=0.8)
        axes.grid(color="#E6E6E6", linewidth=0.8)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel(f"iteration ({of})", fontsize=8.5)
        _style(axes, title)


def _style(axes: "Axes", title: str) -> None:
    axes.set_title(title, loc="left", fontsize=9.5, fontweight="bold")
    axes.tick_params(labelsize=8.5)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _mark(axes: "Axes", bar: float, rows: int, first: int) -> None:
    """A bar that `rows` rows from `first` on are held to."""
    axes.plot([bar, bar], [first - 0.4, first + rows - 0.6], color=WARNING, linewidth=1.4)


def _reward_panels(panels: Sequence["Axes"], labels: Sequence[str], rows: Sequence[Figures]) -> None:
    """The changes of both rewards, by LGM and teacher, in the first two panels."""
    for reward, axes in zip(REWARDS, panels, strict=False):
        series = [
            Series(
                [interval(row["changes"][f"{source}/{reward}"]) for row in rows],
                colour,
                SOURCE_WORDS[source],
                shift=0.26 * (source == "teacher"),
            )
            for source, colour in SOURCE_COLOURS.items()
        ]
        forest(axes, labels, series, f"{reward.replace('_', ' ')}: change", references=(0.0,))


def _separate_groups(panels: Sequence["Axes"], groups: Sequence[str]) -> None:
    for row in range(1, len(groups)):
        if groups[row] != groups[row - 1]:
            for axes in panels:
                axes.axhline(row - 0.37, color="#BBBBBB", linewidth=0.7)


def _row_label(row: Figures) -> str:
    return f"{row['group'].replace('_', ' ')}: {row['label']}" + (" (recipe)" if row["recipe"] else "")


@dataclass(frozen=True)
class PlotOptions:
    """Where to read and write."""

    results: Path = RESULTS
    """Folder of the result files."""
    output: Path | None = None
    """Folder of the pictures; that of the results if not given."""


def main(words: list[str] | None = None) -> int:
    """Draws every result that there is."""
    options = tyro.cli(PlotOptions, args=words, description=__doc__)
    found = [name for name in PICTURES if (options.results / f"{name}.json").is_file()]
    if not found:
        raise ConfigError(f"{options.results} holds no results; run the benchmarks first")
    for name in found:
        print(draw_to(options.results / f"{name}.json", (options.output or options.results) / f"{name}.png"))
    return 0


if __name__ == "__main__":
    run(main)
