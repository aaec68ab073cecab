"""The report's sentences. Every claim follows from an interval: its sign decides the word."""

from collections.abc import Sequence

from vggrpo.evaluation.alarms import MOTION_AMOUNTS
from vggrpo.evaluation.comparison import Comparison, rows_of
from vggrpo.evaluation.report.data import ReportData, RunFacts
from vggrpo.evaluation.report.numbers import bounds, counted, duration, signed

INDEPENDENT = ("teacher/", "flow_jerk")
"""Metrics with a better direction on which the policy was not trained."""


def independent_rows(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The checks on all samples that the policy was not trained on and that have a better direction."""
    return [row for name, row in rows_of(comparisons, "all").items() if name.startswith(INDEPENDENT)]


def headline(comparisons: Sequence[Comparison]) -> str:
    """One sentence that says how the independent checks came out."""
    rows = independent_rows(comparisons)
    if not rows:
        return "No independent check was measured: nothing can be said about the outcome."
    verdicts = [row.verdict for row in rows]
    better, worse = verdicts.count("better"), verdicts.count("worse")
    unclear = len(rows) - better - worse
    if better == len(rows):
        return (
            f"All {len(rows)} independent checks improved."
            if len(rows) > 1
            else "The independent check improved."
        )
    if worse == len(rows):
        return (
            f"All {len(rows)} independent checks got worse."
            if len(rows) > 1
            else "The independent check got worse."
        )
    if unclear == len(rows):
        return "None of the independent checks changed clearly, in either direction."
    parts = [(better, "improved"), (worse, "got worse"), (unclear, "showed no clear change")]
    listed = join_words([f"{count} {words}" for count, words in parts if count])
    return f"Of {len(rows)} independent checks, {listed}."


def outcome(data: ReportData) -> list[str]:
    """The outcome in a few sentences, one paragraph each."""
    rows = rows_of(data.comparisons, "all")
    checks = independent_rows(data.comparisons)
    paragraphs = [
        f"{_sample_words(data)} Each check is paired clip by clip, and an interval covers 95 % of bootstrap "
        "resamples "
        "of whole prompts. A change counts as such only where its interval leaves out zero."
    ]
    for verdict, lead in (("better", "Better"), ("worse", "Worse"), ("no clear change", "No clear change")):
        named = [row for row in checks if row.verdict == verdict]
        if named:
            paragraphs.append(f"{lead}: {'; '.join(_change(row) for row in named)}.")
    moved = [row for row in rows.values() if row.verdict in ("higher", "lower")]
    if moved:
        paragraphs.append(
            f"Also changed, and to be judged by eye: {'; '.join(_change(row) for row in moved)}."
        )
    return paragraphs


def warnings(comparisons: Sequence[Comparison]) -> list[str]:
    """What a sceptical reader would object, where the figures give reason to."""
    rows = rows_of(comparisons, "all")
    found = []
    for name, row in rows.items():
        source, _, reward = name.partition("/")
        teacher = rows.get(f"teacher/{reward}")
        if (
            source == "lgm"
            and row.verdict == "better"
            and teacher is not None
            and teacher.verdict != "better"
        ):
            state = "got worse" if teacher.verdict == "worse" else "shows no clear change"
            found.append(
                f"The latent {_plain(reward)} reward rose, but the same reward by the teacher on decoded "
                f"frames {state}: "
                "the policy may exploit errors of the latent geometry model (reward hacking)."
            )
    jerk = rows.get("flow_jerk")
    still = [rows[name] for name in MOTION_AMOUNTS if name in rows and rows[name].verdict == "lower"]
    if still and jerk is not None and jerk.verdict == "better":
        found.append(
            f"Less moves than before ({'; '.join(_change(row) for row in still)}): part of the steadiness "
            "may come from "
            "moving less."
        )
    faded = [
        rows[n] for n in ("contrast", "saturation", "sharpness") if n in rows and rows[n].verdict == "lower"
    ]
    if faded:
        found.append(
            f"The picture lost {join_words([row.metric.label.lower() for row in faded])}: look at the videos."
        )
    strayed = [row for name, row in rows.items() if name.startswith("fidelity/") and row.verdict == "worse"]
    if strayed:
        found.append(
            "The latent geometry model agrees less with its teacher than before "
            f"({'; '.join(_change(row) for row in strayed)}): the policy is leaving what it was distilled on."
        )
    if "diversity" in rows and rows["diversity"].verdict == "lower":
        found.append("The clips of one prompt are more alike than before: a first sign of collapse.")
    return found


def abstract(data: ReportData) -> str:
    """What was done, in one paragraph."""
    f = data.facts
    sentences = [
        f"The video model {f.base_model} ({f.num_frames} frames of {f.width}\u00d7{f.height} at {f.fps:g} "
        "fps) was post-trained "
        f"with VGGRPO: rewards for {join_words([_plain(r) for r in f.rewards])} are computed by a latent "
        "geometry model, "
        "from latents, without decoding a video."
    ]
    clips = [
        text
        for count, text in (
            (f.real_clips, f"{f.real_clips or 0:,} real"),
            (f.generated_clips, f"{f.generated_clips or 0:,} generated"),
        )
        if count
    ]
    stitched = f"That model is {f.geometry_model}"
    if f.stitch_point:
        stitched += f" entered at {f.stitch_point} through one 3D convolution"
    if clips:
        stitched += f", distilled on {join_words(clips)} clips"
    sentences.append(stitched + ".")
    sentences.append(_policy_words(f))
    if data.stages:
        total = sum(stage.seconds for stage in data.stages)
        sentences.append(f"All stages together took {duration(total)}.")
    return " ".join(sentence for sentence in sentences if sentence)


def join_words(words: Sequence[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def _policy_words(f: RunFacts) -> str:
    parts = []
    if f.iterations:
        parts.append(f"ran {counted(f.iterations, 'iteration')}")
    if f.groups_per_iteration and f.group_size:
        parts.append(f"of {counted(f.groups_per_iteration, 'prompt')} \u00d7 {f.group_size} rollouts")
    elif f.group_size:
        parts.append(f"with groups of {f.group_size} rollouts")
    if f.denoising_steps:
        steps = f"of {counted(f.denoising_steps, 'denoising step')}"
        parts.append(
            steps + (f" ({f.stochastic_steps} of them stochastic and trained)" if f.stochastic_steps else "")
        )
    if not parts:
        return ""
    details = [
        text
        for value, text in (
            (f.lora_rank, f"LoRA rank {f.lora_rank}"),
            (f.learning_rate, f"learning rate {_power(f.learning_rate)}"),
            (f.clip_eps, f"clip range {_power(f.clip_eps)}"),
            (f.kl_coef, f"KL weight {_power(f.kl_coef)}"),
            (f.updates_per_rollout, f"{f.updates_per_rollout} updates a rollout"),
        )
        if value is not None
    ]
    return f"The policy {' '.join(parts)}{f'; {join_words(details)}' if details else ''}."


def _sample_words(data: ReportData) -> str:
    f = data.facts
    if f.held_out_prompts and f.held_out_noises:
        clips = f.held_out_prompts * f.held_out_noises
        steps = f", {f.evaluation_steps} ODE steps" if f.evaluation_steps else ""
        return (
            f"{counted(f.held_out_prompts, 'held-out prompt')} \u00d7 {counted(f.held_out_noises, 'noise')} "
            "= "
            f"{counted(clips, 'clip')} before and after training, from the same noises{steps}."
        )
    return "Held-out prompts before and after training, from the same noises."


def _change(row: Comparison) -> str:
    decimals = row.metric.decimals
    unit = f" {row.metric.unit}" if row.metric.unit else ""
    label = row.metric.label
    label = label if label.startswith("LGM") else label[0].lower() + label[1:]
    return f"{label} {signed(row.change.mean, decimals)}{unit} {bounds(row.change, decimals)}"


def _plain(reward: str) -> str:
    return reward.replace("_", " ")


def _power(value: float | None) -> str:
    """A setting as people write it: 0.0005 as 5e-4."""
    if value is None:
        return ""
    if value == 0 or 0.01 <= abs(value) < 1000:
        return f"{value:g}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}".replace("-", "\u2212")
