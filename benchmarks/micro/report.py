"""All published figures on one page: what VGGRPO changes, in pictures, videos and tables.

    python benchmarks/micro/report.py [--output runs/benchmarks] [--seeds 0]

Reads the result files and, for the videos and the gate, the finished training of one seed in `<output>`,
which must be one of those that the results are of; trains nothing. Writes `<output>/report.html`, one file
without outside resources.
"""

import base64
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from harness.options import Options, only_seed, parse, run
from harness.results import figure, markdown_table
from harness.workspace import RECIPE
from markdown_it import MarkdownIt
from plots import draw_to, interval

from vggrpo import __version__
from vggrpo.config import ConfigError, RunError, TrainSettings, load_recipe
from vggrpo.evaluation.report import SECTIONS, ReportData
from vggrpo.evaluation.report.markup import Markup, element, join
from vggrpo.evaluation.report.shell import code_block, footer, render_page, section, title_block
from vggrpo.io import read_json, write_text
from vggrpo.io.runs import CONFIG_NAME, settings_differences
from vggrpo.training.demo.report import key_frame_teacher
from vggrpo.training.report import run_report
from vggrpo.training.trainer import LORA_FOLDER

REPORT = "report.html"
FROM_A_RUN = ("videos", "gate")
"""Sections of a training's own report that stand on this page too."""
PAIRS_PER_KIND = 3
VERDICTS = {True: "\u2713", False: "**missed**"}
CHAPTERS = {
    "main_result": (
        "Changes",
        "What it changes",
        "Rewards by the latent geometry model and by the uncut model on decoded video, steadiness by optical "
        "flow, and what must not change, of samples of unseen captions.",
    ),
    "controls": (
        "Controls",
        "Would it be there without the rewards?",
        "Beside the recipe: trainings with shuffled advantages, and the recipe's policies with their LoRA "
        "subtracted in place of added.",
    ),
    "ablations": (
        "Ablations",
        "What each part is for",
        "Trainings that differ from the recipe in one setting each.",
    ),
    "alarm_experiment": (
        "Alarms",
        "When a training goes wrong",
        "The recipe's training must raise no alarm. Does one on a latent geometry model that has hardly been "
        "trained raise one before it ends, and one that is rewarded for reprojection alone?",
    ),
    "lgm_ablation": (
        "LGM",
        "The latent geometry model",
        "Where it is entered, how fast its connector learns, what it is distilled on and what is trained.",
    ),
    "noise": ("Noise", "Noise of the rollouts", "What tune-noise measures, before any training."),
    "gradient_signal": (
        "Gradient",
        "Where the gradient has a signal",
        "How much the policy gradients of different prompts have in common, by the step that is stochastic.",
    ),
    "training_cost": (
        "Cost",
        "What it costs",
        "Denoiser evaluations until the same held-out reward is reached, in the plain setting and with the "
        "savings.",
    ),
    "guidance": (
        "Guidance",
        "Without training: guidance",
        "Reward guidance at sampling time, by its settings.",
    ),
    "best_of": (
        "Best of N",
        "Without training: best of N",
        "What denoiser evaluations buy at sampling time.",
    ),
}
"""Every result that the page knows, in its order: short title, title and lead."""


@dataclass(frozen=True, kw_only=True)
class PageOptions(Options):
    """Options of the page."""

    seeds: tuple[int, ...] = (0,)
    """The seed whose training the videos are of, one."""


def main(words: list[str] | None = None) -> int:
    """Writes the page."""
    options = parse(PageOptions, words, __doc__)
    seed = only_seed(options)
    results = {name: options.results / f"{name}.json" for name in CHAPTERS}
    found = {name: read_json(path) for name, path in results.items() if path.is_file()}
    if tableless := [name for name in found if not results[name].with_suffix(".md").is_file()]:
        raise ConfigError(f"{options.results} has no tables of {', '.join(tableless)}; run these again")
    if "main_result" not in found:
        raise ConfigError(f"{results['main_result']} is missing; run benchmarks/micro/main_result.py first")
    trained = of_a_run(
        options.runs / "train" / RECIPE / f"seed_{seed}",
        found["main_result"]["settings"]["train"],
    )
    contents = {
        "videos": trained.get("videos"),
        "bars": bars(found["main_result"]),
        "main_result": chapter("main_result", found["main_result"], results["main_result"]),
        "gate": trained.get("gate"),
    }
    contents |= {name: chapter(name, found[name], results[name]) for name in found if name not in contents}
    shown = {name: content for name, content in contents.items() if content is not None}
    sections = [section(name, titles(name)[1], content) for name, content in shown.items()]
    created = time.strftime("%Y-%m-%d %H:%M")
    title = "VGGRPO on the micro family"
    lead = abstract(found["main_result"])
    head = title_block("VGGRPO published figures", title, [created, f"vggrpo {__version__}"], lead)
    navigation = {name: titles(name)[0] for name in shown}
    page = render_page(title, navigation, element("header", head, id="top"), *sections, footer(created))
    path = options.runs / REPORT
    write_text(path, page)
    print(path)
    return 0


def of_a_run(folder: Path, published: Mapping[str, Any]) -> dict[str, Markup]:
    """The sections of a finished training, by name; none if it is not there.

    Args:
        folder: of the run.
        published: the settings of the trainings whose results are shown.

    Raises:
        RunError: if the run has other settings.
    """
    if not (folder / LORA_FOLDER).exists():
        print(f"no videos and no gate: {folder} holds no finished training; --output names its folder")
        return {}
    train = load_recipe(str(folder / CONFIG_NAME), TrainSettings, {"output": folder})
    own = {"seed": train.seed, "threads": train.threads, "output": str(folder)}
    if differences := settings_differences({**published, **own}, train):
        raise RunError(f"{folder} is no training of the results: {'; '.join(differences)}")
    teacher = key_frame_teacher(train)
    data: ReportData = run_report(train, train.iterations, teacher, torch.device("cpu"), PAIRS_PER_KIND)
    built = {name: SECTIONS[name].build(data) for name in FROM_A_RUN}
    return {name: content for name, content in built.items() if content is not None}


def abstract(result: Mapping[str, Any]) -> str:
    """The main result in a paragraph."""
    figures = result["figures"]
    sampler, by_kind = next(iter(figures["changes"].items()))
    table, seeds = by_kind["all"], figures["seeds"]
    gains = []
    for reward in ("camera_motion", "reprojection"):
        latent, teacher = (
            figure(interval(table[f"{source}/{reward}"]["change"]), signed=True)
            for source in ("lgm", "teacher")
        )
        name = reward.replace("_", " ")
        gains.append(f"{name} {latent} in latents, {teacher} by the uncut geometry model on decoded video")
    iterations = result["settings"]["train"]["iterations"]
    return (
        f"{len(seeds)} trainings of {iterations} iterations, {figures['n'][sampler]} samples of unseen "
        f"captions each, paired with the base model's ({sampler.replace('-', ', ')} steps, 95 % "
        f"intervals). The rewards change: {'; '.join(gains)}."
    )


def titles(name: str) -> tuple[str, str]:
    """Short title and title of a section."""
    if name == "bars":
        return "Bars", "Bars, and whether they are met"
    if name in FROM_A_RUN:
        return SECTIONS[name].short, SECTIONS[name].title
    return CHAPTERS[name][0], CHAPTERS[name][1]


def bars(result: Mapping[str, Any]) -> Markup:
    """The bars of the main result, with a column for either sampler."""
    by_sampler = result["figures"]["checks"]
    rows = [
        [
            checks[0]["name"],
            checks[0]["bar"],
            *(f"{figure(interval(check['figure']))} {VERDICTS[check['passed']]}" for check in checks),
        ]
        for checks in zip(*by_sampler.values(), strict=True)
    ]
    samplers = [f"{sampler.replace('-', ', ')} steps" for sampler in by_sampler]
    return tables(markdown_table(["check", "bar", *samplers], rows))


def chapter(name: str, result: Mapping[str, Any], path: Path) -> Markup:
    """One result: its picture, its tables folded away, and how to get it again."""
    picture = path.with_suffix(".png")
    if not picture.is_file():
        draw_to(path, picture)
    data = base64.b64encode(picture.read_bytes()).decode("ascii")
    image = element("img", src=f"data:image/png;base64,{data}", alt=CHAPTERS[name][1], class_="plot")
    made = ", ".join([result["date"], *(f"{part}: {value}" for part, value in result["machine"].items())])
    return join(
        element("p", CHAPTERS[name][2], class_="lead"),
        element("figure", image, class_="sheet"),
        element("details", element("summary", "Tables"), tables(path.with_suffix(".md").read_text())),
        code_block(result["command"], f"command-{name}"),
        element("p", made, class_="note"),
    )


def tables(markdown: str) -> Markup:
    """Markdown with tables as HTML; raw HTML in it is text."""
    text = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    return element("div", Markup(text.replace("<table>", '<table class="gate">')), class_="table-scroll")


if __name__ == "__main__":
    run(main)
