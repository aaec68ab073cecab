"""What guards a run against rewards that deceive: the gate before it, the alarms during it."""

import base64
import tempfile
from pathlib import Path

from vggrpo.evaluation.alarms import MEANINGS
from vggrpo.evaluation.gate import LGMGate, RankAgreement
from vggrpo.evaluation.gate_plot import GATE_PLOT, plot_gate
from vggrpo.evaluation.intervals import Interval
from vggrpo.evaluation.report.data import ReportData
from vggrpo.evaluation.report.markup import Markup, element, join
from vggrpo.evaluation.report.numbers import bounds, counted, number

TITLES = {"generated": "generated from held-out prompts", "real": "real, held out"}


def gate(data: ReportData) -> Markup | None:
    """The latent geometry model's agreement with its teacher before any policy was trained."""
    if data.gate is None:
        return None
    lead = (
        "Before a policy is trained, the latent geometry model must rank clips as the uncut geometry model "
        "(the teacher) ranks the decoded videos. The teacher itself, after one more pass through the "
        "autoencoder, agrees with its first verdict up to a ceiling, and what counts is the share of that."
    )
    table = element("table", _gate_head(), element("tbody", *_gate_rows(data.gate)), class_="gate")
    notes = [
        f"{name} {number(auc.mean, 3)} {bounds(auc, 3)}" for name, auc in data.gate.steady_shaky_auc.items()
    ]
    note = "Steady clips above shaky ones by camera motion, AUC on real clips: " + ", ".join(notes) + "."
    picture = element(
        "img", src=_picture(data.gate), alt="LGM against teacher, and both under latent noise", class_="plot"
    )
    return join(
        element("p", lead, class_="lead"),
        element("div", table, class_="table-scroll"),
        element("p", note, class_="note") if notes else None,
        element("figure", picture, class_="sheet"),
    )


def _gate_head() -> Markup:
    names = ("clips", "reward", "rank correlation", "ceiling", "share of it", "n")
    return element("thead", element("tr", *(element("th", name, scope="col") for name in names)))


def _gate_rows(measured: LGMGate) -> list[Markup]:
    return [
        _gate_row(TITLES[kind], name, agreement)
        for kind, quality in (("generated", measured.generated), ("real", measured.real))
        for name, agreement in quality.rewards.items()
    ]


def _gate_row(clips: str, reward: str, agreement: RankAgreement) -> Markup:
    figures = [_cell(value) for value in (agreement.correlation, agreement.ceiling, agreement.share)]
    count = element("td", str(agreement.share.count), class_="num")
    return element("tr", element("td", clips), element("td", reward.replace("_", " ")), *figures, count)


def _cell(value: Interval) -> Markup:
    return element("td", f"{number(value.mean, 2)} {bounds(value, 2)}", class_="num")


def _picture(measured: LGMGate) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / GATE_PLOT
        plot_gate(measured, path)
        return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")


def alarms(data: ReportData) -> Markup | None:
    """The alarms that were raised, or what was watched for in vain."""
    if data.alarms is None:
        return None
    watched = element(
        "details",
        element("summary", "What is watched"),
        element(
            "dl",
            *(join(element("dt", name), element("dd", f"{meaning}.")) for name, meaning in MEANINGS.items()),
        ),
    )
    evaluations = counted(data.num_evaluations, "held-out evaluation")
    if not data.alarms:
        return join(element("p", f"No alarm was raised in {evaluations}.", class_="lead"), watched)
    lead = f"{counted(len(data.alarms), 'alarm')} in {evaluations}: read the figures with them."
    rows = [
        element("li", element("strong", f"{alarm.name}, iteration {alarm.iteration}. "), alarm.sentence)
        for alarm in data.alarms
    ]
    return join(element("p", lead, class_="lead"), element("ul", *rows, class_="alarms"), watched)
