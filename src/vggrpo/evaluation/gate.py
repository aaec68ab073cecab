"""The gate of a latent geometry model: how far its rewards can be trusted, measured on held-out clips.

A reward that is read from latents is trusted as far as it ranks clips as the uncut geometry model (the
teacher) ranks the same clips on decoded video. Nobody can be expected to agree with the teacher better than
the teacher itself after one more pass through the autoencoder: that is the ceiling, and what counts is the
share of it that is reached.
"""

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from pydantic import TypeAdapter, ValidationError

from vggrpo.config import CorruptFileError
from vggrpo.evaluation.intervals import FloatArray, Interval, Rows, auc, bootstrap_statistic, spearman
from vggrpo.io import read_json, write_json

GATE_FILE = "gate.json"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class RankAgreement:
    """One reward through the latent geometry model against the same through its teacher, on N clips.

    All three statistics are of the clips that all three could score; the others count as missing.
    """

    correlation: Interval
    """Spearman's rank correlation of `lgm` and `teacher`."""
    ceiling: Interval
    """Spearman's rank correlation of `teacher` and `repeated`."""
    share: Interval
    """correlation / ceiling; NaN where the ceiling is not above 0: the teacher does not agree with itself."""
    lgm: tuple[float, ...]
    """[N] on latents; NaN where a reward failed, here and below."""
    teacher: tuple[float, ...]
    """[N] by the teacher on the video."""
    repeated: tuple[float, ...]
    """[N] by the teacher on the video after one more pass through the autoencoder."""


@dataclass(frozen=True)
class NoiseResponse:
    """A reward of perturbed latents against the teacher's of the unperturbed ones, decoded."""

    correlation: Interval
    """Spearman's rank correlation."""
    error: Interval
    """Median of |reward - reference|."""


@dataclass(frozen=True)
class NoisePoint:
    """One reward at one level of latent noise, read in two ways."""

    level: float
    """Standard deviation of the noise, as a share of that of the latents' channel."""
    lgm: NoiseResponse
    """The latent geometry model on the perturbed latents."""
    teacher: NoiseResponse
    """The teacher on the decoded perturbed latents."""


@dataclass(frozen=True)
class ClipQuality:
    """The agreement on clips of one kind."""

    rewards: Mapping[str, RankAgreement]
    """By the reward's name."""
    errors: Mapping[str, Interval]
    """Means of `vggrpo.lgm.agreement` over the clips: depth, cameras, scene flow."""


@dataclass(frozen=True)
class LGMGate:
    """What was measured on a finished latent geometry model. Made by `vggrpo train-lgm`."""

    weights: str
    """SHA-256 of the model's weights: the gate of other weights says nothing about these."""
    base_model: str
    """The video model whose samples were judged."""
    geometry_model: str
    """The teacher."""
    clip: tuple[int, int, int]
    """Frames, height and width of the clips."""
    options: Mapping[str, Mapping[str, Any]]
    """The options of every reward: another reading of it is another reward."""
    generated: ClipQuality
    """On clips made by the video model from held-out prompts: what a policy's samples are like."""
    real: ClipQuality
    """On held-out real clips, where `repeated` is the teacher on the autoencoded video."""
    robustness: Mapping[str, tuple[NoisePoint, ...]]
    """By the reward's name, on generated clips, by rising level of noise; empty if not measured."""
    steady_shaky_auc: Mapping[str, Interval]
    """P(motion reward of a steady clip > of a shaky one) by "lgm", "teacher" and "autoencoded" (the teacher
    on autoencoded video), on real clips; empty unless it is known which are shaky."""

    def save(self, folder: Path | str) -> Path:
        """Writes `gate.json` into `folder`, atomically, and returns its path."""
        path = Path(folder) / GATE_FILE
        write_json(path, {"format_version": FORMAT_VERSION} | _to_json(asdict(self)))
        return path

    @classmethod
    def load(cls, folder: Path | str) -> "LGMGate":
        """The gate in `folder`.

        Raises:
            FileNotFoundError: if there is none.
            CorruptFileError: if `gate.json` is damaged.
            ValueError: if another version of the format wrote it.
        """
        path = Path(folder) / GATE_FILE
        content = read_json(path)
        version = content.get("format_version") if isinstance(content, dict) else None
        if version is None:
            raise CorruptFileError(f"{path} is no gate of a latent geometry model; train the model again")
        if version != FORMAT_VERSION:
            raise ValueError(
                f"{path} has format version {version}, but this version of vggrpo reads {FORMAT_VERSION}; "
                "install the version that wrote it, or train the model again"
            )
        # In the rewards' options alone None is a value; everywhere else it is a number that does not exist.
        values = {name: value if name == "options" else _from_json(value) for name, value in content.items()}
        try:
            return TypeAdapter(cls).validate_python(values)
        except ValidationError as error:
            raise CorruptFileError(f"{path} is damaged ({error}); train the model again") from error


def rank_agreement(
    lgm: ArrayLike,
    teacher: ArrayLike,
    repeated: ArrayLike,
    clusters: Sequence[Hashable] | None = None,
    seed: int = 0,
) -> RankAgreement:
    """The share of the ceiling that a reward reaches, with intervals that resample whole clusters (prompts).

    share = spearman(lgm, teacher) / spearman(teacher, repeated), both on the same clips of each resample.

    Args:
        lgm: the reward on latents, [N]; NaN where it failed, as below.
        teacher: by the teacher on the same clips' video, [N].
        repeated: by the teacher on the same video after one more pass through the autoencoder, [N].
        clusters: what each clip belongs to, [N]; each clip is its own if not given.
        seed: of the bootstrap.

    Raises:
        ValueError: if the lengths differ.
    """
    clips = _Clips.known_to_all(lgm, teacher, repeated, clusters=clusters)
    ours, reference, again = clips.columns

    def correlation(rows: Rows) -> float:
        return spearman(ours[rows], reference[rows])

    def ceiling(rows: Rows) -> float:
        return spearman(reference[rows], again[rows])

    def share(rows: Rows) -> float:
        return correlation(rows) / limit if (limit := ceiling(rows)) > 0 else math.nan

    return RankAgreement(
        correlation=clips.interval(correlation, seed),
        ceiling=clips.interval(ceiling, seed),
        share=clips.interval(share, seed),
        lgm=tuple(np.asarray(lgm, dtype=np.float64).tolist()),
        teacher=tuple(np.asarray(teacher, dtype=np.float64).tolist()),
        repeated=tuple(np.asarray(repeated, dtype=np.float64).tolist()),
    )


def noise_response(
    values: ArrayLike, reference: ArrayLike, clusters: Sequence[Hashable] | None = None, seed: int = 0
) -> NoiseResponse:
    """How a reward of perturbed latents follows that of the unperturbed ones, [N] both; NaN where one failed.

    Raises:
        ValueError: if the lengths differ.
    """
    clips = _Clips.known_to_all(values, reference, clusters=clusters)
    ours, theirs = clips.columns

    def error(rows: Rows) -> float:
        return float(np.median(np.abs(ours - theirs)[rows])) if len(rows) else math.nan

    return NoiseResponse(
        clips.interval(lambda rows: spearman(ours[rows], theirs[rows]), seed), clips.interval(error, seed)
    )


def steady_shaky_auc(values: ArrayLike, is_shaky: ArrayLike, seed: int = 0) -> Interval:
    """P(value of a steady clip > of a shaky one) + P(equal) / 2, values [N] with NaN where one failed.

    NaN if one kind is missing.

    Raises:
        ValueError: if the lengths differ.
    """
    clips = _Clips.known_to_all(values, is_shaky)
    column, shaky = clips.columns[0], clips.columns[1] > 0.5

    def separation(rows: Rows) -> float:
        steady, unsteady = column[rows][~shaky[rows]], column[rows][shaky[rows]]
        return auc(steady, unsteady) if len(steady) and len(unsteady) else math.nan

    return clips.interval(separation, seed)


@dataclass(frozen=True)
class _Clips:
    """The clips of which every value is known."""

    columns: FloatArray
    """[columns, clips]."""
    clusters: list[Hashable] | None
    missing: int
    """Clips that were left out."""

    @classmethod
    def known_to_all(cls, *columns: ArrayLike, clusters: Sequence[Hashable] | None = None) -> "_Clips":
        """The clips of columns of values [N], some of them NaN."""
        arrays = [np.asarray(column, dtype=np.float64) for column in columns]
        if len({array.shape for array in arrays}) > 1 or arrays[0].ndim != 1:
            *first, last = (str(array.size) for array in arrays)
            raise ValueError(
                f"the columns have {', '.join(first)} and {last} values, but each must be [N], one a clip"
            )
        rows = np.array(arrays)
        known = np.asarray(~np.isnan(rows).any(axis=0))
        kept = None
        if clusters is not None:
            kept = [c for c, keep in zip(clusters, known.tolist(), strict=True) if keep]
        return cls(rows[:, known], kept, int((~known).sum()))

    def interval(self, statistic: Callable[[Rows], float], seed: int) -> Interval:
        """A statistic of the clips with its bootstrap interval."""
        count = self.columns.shape[1]
        return replace(bootstrap_statistic(statistic, count, self.clusters, seed=seed), missing=self.missing)


def _to_json(value: Any) -> Any:
    """The same with None in place of numbers that do not exist."""
    if isinstance(value, Mapping):
        return {name: _to_json(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _from_json(value: Any) -> Any:
    """The inverse of `_to_json`, but for lists in place of tuples."""
    if isinstance(value, dict):
        return {name: _from_json(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_from_json(item) for item in value]
    return math.nan if value is None else value
