"""From measurements per clip to the figures of an evaluation, and those figures in words."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggrpo.evaluation import Interval, auc, bootstrap_mean
from vggrpo.training.pretrain.measures import SIGMA_BANDS, SOURCES
from vggrpo.training.rewards import CAMERA_MOTION, REPROJECTION

Columns = Mapping[str, NDArray[np.float64]]
"""Measures of all clips by name, [N]; NaN where one could not be measured."""
Figures = dict[str, Any]
"""Nested figures, fit for JSON; None where there is nothing to measure one on."""
Rows = list[tuple[str, str]]
"""(what, how much) in words."""

AMOUNTS = ("brightness", "contrast", "saturation", "sharpness", "flow_magnitude")
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)


def summarise(clips: Columns, samples: Columns) -> dict[str, Figures]:
    """The figures of all parts: "autoencoder", "geometry", "video".

    Args:
        clips: `clip_measures` of the held-out clips.
        samples: `sample_measures` of the generated ones.
    """
    return {
        "autoencoder": {"psnr_db": mean(clips["psnr"])},
        "geometry": geometry_figures(clips),
        "video": video_figures(clips, samples),
    }


def geometry_figures(clips: Columns) -> Figures:
    """The geometry model's errors, and how well the rewards work through it.

    `moving_flow` pools the moving pixels of all clips. AUCs are of the camera-motion reward, steady against
    shaky cameras.
    """
    moving, error, length = (float(clips[f"moving_{name}"].sum()) for name in ("pixels", "error", "length"))
    shaky = clips["is_shaky"] > 0.5
    through = {"exact": "exact", "predicted": "real", "predicted_autoencoded": "autoencoded"}
    return {
        "depth_abs_rel": mean(clips["depth_abs_rel"]),
        "rotation_deg": mean(clips["rotation_deg"]),
        "true_rotation_deg": mean(clips["true_rotation_deg"]),
        "translation_error": mean(clips["translation_error"]),
        "true_path": mean(clips["true_path"]),
        "moving_flow": {
            "epe": error / moving if moving else None,
            "true_length": length / moving if moving else None,
            "share_of_true": error / length if moving else None,
        },
        "steady_shaky_auc": {
            name: separation(clips[f"{source}/{CAMERA_MOTION}"], shaky) for name, source in through.items()
        },
        "reprojection": {name: mean(clips[f"{source}/{REPROJECTION}"]) for name, source in through.items()},
    }


def video_figures(clips: Columns, samples: Columns) -> Figures:
    """The denoiser's held-out loss, and its samples beside real clips."""
    shaky = clips["is_shaky"] > 0.5
    bands = [f"{low:g}-{high:g}" for low, high in SIGMA_BANDS]
    return {
        "velocity_loss": {band: mean(clips[f"velocity_loss/{band}"]) for band in bands},
        "velocity_baseline": {band: mean(clips[f"velocity_baseline/{band}"]) for band in bands},
        "steadiness": {
            name: steadiness(clips[f"autoencoded/{name}"], shaky, samples[name], higher_is_steady)
            for name, higher_is_steady in (("flow_jerk", False), (CAMERA_MOTION, True))
        },
        "amounts": {
            name: {source: number(float(np.nanmean(clips[f"{source}/{name}"]))) for source in SOURCES}
            | {"samples": number(float(np.nanmean(samples[name])))}
            for name in AMOUNTS
        },
    }


def steadiness(
    real: NDArray[np.float64], shaky: NDArray[np.bool_], samples: NDArray[np.float64], higher_is_steady: bool
) -> Figures:
    """Whether samples look steady or shaky by one measure, judged by where real clips of both kinds lie.

    The threshold separates the real clips best (`balanced_accuracy`). `steady_share` is the share on its
    steady side: of the samples, and of the real clips, to compare with; `truly_steady` are those that are.

    Args:
        real: the measure of real clips through the autoencoder, [N].
        shaky: which of them are shaky, [N].
        samples: the measure of generated clips, [M].
        higher_is_steady: whether steadier clips measure higher.
    """
    measured = ~np.isnan(real)
    real, shaky, samples = real[measured], shaky[measured], samples[~np.isnan(samples)]
    sign = 1.0 if higher_is_steady else -1.0
    kinds = {"real_steady": real[~shaky], "real_shaky": real[shaky], "samples": samples}
    quantiles = {
        name: [number(value) for value in np.quantile(values, QUANTILES)] if len(values) else None
        for name, values in kinds.items()
    }
    figures: Figures = {"quantiles": quantiles, "quantile_levels": list(QUANTILES)}
    if shaky.all() or not shaky.any() or not len(samples):
        return figures | dict.fromkeys(("auc", "threshold", "balanced_accuracy", "steady_share"))
    threshold, accuracy = best_threshold(sign * real[~shaky], sign * real[shaky])
    return figures | {
        "auc": separation(sign * real, shaky),
        "threshold": number(sign * threshold),
        "balanced_accuracy": number(accuracy),
        "steady_share": {
            "samples": number((sign * samples > threshold).mean()),
            "real": number((sign * real > threshold).mean()),
            "truly_steady": number((~shaky).mean()),
        },
    }


def best_threshold(high: NDArray[np.float64], low: NDArray[np.float64]) -> tuple[float, float]:
    """The number that lies below most of `high` and above most of `low`, and its balanced accuracy.

    Midway between neighbouring values; the least of equally good ones.
    """
    values = np.unique(np.concatenate([high, low]))
    candidates = np.concatenate([values[:1] - 1.0, (values[1:] + values[:-1]) / 2])
    accuracy = np.array([((high > c).mean() + (low <= c).mean()) / 2 for c in candidates])
    best = int(accuracy.argmax())
    return float(candidates[best]), float(accuracy[best])


def separation(values: NDArray[np.float64], shaky: NDArray[np.bool_]) -> float | None:
    """AUC of higher values for steady clips; None if one kind is missing."""
    steady_values, shaky_values = (values[kind & ~np.isnan(values)] for kind in (~shaky, shaky))
    return auc(steady_values, shaky_values) if len(steady_values) and len(shaky_values) else None


def mean(values: NDArray[np.float64]) -> Figures:
    """Mean over clips with its 95 % interval, and how many entered and were missing."""
    return interval_figures(bootstrap_mean(values))


def interval_figures(found: Interval) -> Figures:
    """An interval, fit for JSON."""
    return {name: number(value) for name, value in asdict(found).items()}


def number(value: float) -> float | int | None:
    """A plain number for JSON; None if it is not finite."""
    if isinstance(value, int):
        return value
    return float(value) if math.isfinite(value) else None


def autoencoder_rows(figures: Figures) -> Rows:
    """The autoencoder's figures in words."""
    return [("PSNR of the reconstruction", interval(figures["psnr_db"], 1, " dB"))]


def geometry_rows(figures: Figures) -> Rows:
    """The geometry model's figures in words."""
    flow, aucs, reprojection = (figures[name] for name in ("moving_flow", "steady_shaky_auc", "reprojection"))
    return [
        ("depth, mean relative error", interval(figures["depth_abs_rel"], 3)),
        (
            "rotation error",
            f"{interval(figures['rotation_deg'], 2, '°')}; true rotation "
            f"{amount(figures['true_rotation_deg'], 1)}°",
        ),
        (
            "translation error, share of the path",
            f"{interval(figures['translation_error'], 3)}; true path "
            f"{amount(figures['true_path'], 2)} median depths",
        ),
        (
            "scene flow on moving pixels, end-point error",
            f"{plain(flow['epe'], 3)} units; true flow {plain(flow['true_length'], 3)}, "
            f"so {plain(flow['share_of_true'], 2)} of it",
        ),
        ("steady-shaky AUC of the camera-motion reward, exact cameras", plain(aucs["exact"], 3)),
        ("the same, predicted cameras", plain(aucs["predicted"], 3)),
        ("the same, predicted cameras of autoencoded clips", plain(aucs["predicted_autoencoded"], 3)),
        ("reprojection reward of the exact geometry", interval(reprojection["exact"], 3)),
        ("the same, predicted geometry", interval(reprojection["predicted"], 3)),
        (
            "the same, predicted geometry of autoencoded clips",
            interval(reprojection["predicted_autoencoded"], 3),
        ),
    ]


def video_rows(figures: Figures) -> Rows:
    """The video model's figures in words."""
    rows = [
        (
            f"flow-matching loss, sigma {band.replace('-', ' to ')}",
            f"{interval(loss, 3)}; without a model {amount(figures['velocity_baseline'][band], 3)}",
        )
        for band, loss in figures["velocity_loss"].items()
    ]
    for name, title in (("flow_jerk", "optical-flow jerk"), (CAMERA_MOTION, "camera-motion reward")):
        found = figures["steadiness"][name]
        shares = found["steady_share"] or dict.fromkeys(("samples", "real", "truly_steady"))
        rows.append(
            (
                f"share of steady clips by {title}",
                f"samples {plain(shares['samples'], 2)}; real {plain(shares['real'], 2)} "
                f"(in truth {plain(shares['truly_steady'], 2)}; AUC {plain(found['auc'], 2)})",
            )
        )
        medians = {kind: q and q[QUANTILES.index(0.5)] for kind, q in found["quantiles"].items()}
        rows.append(
            (
                f"median {title}",
                f"samples {plain(medians['samples'], 3)}; real steady {plain(medians['real_steady'], 3)}, "
                f"shaky {plain(medians['real_shaky'], 3)}",
            )
        )
    for name, values in figures["amounts"].items():
        digits = 1 if name == "sharpness" else 3
        rows.append(
            (
                name.replace("flow_magnitude", "motion amount (optical flow, px/frame)"),
                f"samples {plain(values['samples'], digits)}; real {plain(values['real'], digits)}, "
                f"autoencoded {plain(values['autoencoded'], digits)}",
            )
        )
    return rows


def text_table(parts: Sequence[tuple[str, Rows]]) -> str:
    """Titled tables, one figure a line."""
    width = max(len(what) for _, rows in parts for what, _ in rows) + 2
    blocks = [[title] + [f"  {what:<{width}}{value}" for what, value in rows] for title, rows in parts]
    return "\n\n".join("\n".join(lines) for lines in blocks)


def interval(figure: Figures, digits: int, unit: str = "") -> str:
    """A mean with its interval in brackets."""
    ends = f" ({plain(figure['low'], digits)} to {plain(figure['high'], digits)})"
    known = figure["low"] is not None
    missing = f", {figure['missing']} clips not measurable" if figure["missing"] else ""
    return f"{plain(figure['mean'], digits)}{unit}{ends if known else ''}{missing}"


def amount(figure: Figures, digits: int) -> str:
    """A mean without its interval."""
    return plain(figure["mean"], digits)


def plain(value: float | None, digits: int) -> str:
    """A number, or a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"
