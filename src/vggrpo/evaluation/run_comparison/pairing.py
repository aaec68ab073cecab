"""Which clips of several evaluations enter a comparison, and whether they are pairs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from vggrpo.config.errors import ConfigError
from vggrpo.evaluation.evaluated import EvaluatedClips, Key
from vggrpo.evaluation.report.numbers import counted
from vggrpo.evaluation.report.words import join_words


@dataclass(frozen=True)
class Pairing:
    """The clips of every run that enter."""

    is_paired: bool
    places: tuple[tuple[int, ...], ...]
    """Of each run. With pairs, entry i of every run is the same prompt and seed."""
    kinds: tuple[str | None, ...]
    """With pairs, the kind of scene of each; else empty."""
    notes: tuple[str, ...]

    def places_of(self, run: EvaluatedClips, number: int, subset: str) -> list[int]:
        """The clips of run `number` that belong to a subset: "all", "static" or "dynamic"."""
        places = self.places[number]
        if subset == "all":
            return list(places)
        kinds = self.kinds if self.is_paired else [run.clips[place].kind for place in places]
        return [place for place, kind in zip(places, kinds, strict=True) if kind == subset]


def pair_runs(
    runs: Sequence[EvaluatedClips], labels: Sequence[str], pairing: Literal["auto", "paired", "unpaired"]
) -> Pairing:
    """The clips that all runs have, as pairs; or all clips of each run, with the reason.

    Raises:
        ConfigError: if pairing is insisted on and impossible.
    """
    if pairing == "unpaired":
        return _unpaired(runs, "Runs are compared as independent samples, as asked.")
    obstacle, places = _places(runs, labels)
    if obstacle and pairing == "paired":
        raise ConfigError(f"the runs cannot be paired: {obstacle}; use --pairing unpaired")
    if obstacle:
        return _unpaired(
            runs, f"Runs are compared as independent samples, which takes larger differences: {obstacle}."
        )
    shared = [key for key in places[0] if all(key in other for other in places[1:])]
    return Pairing(
        True,
        tuple(tuple(own[key] for key in shared) for own in places),
        tuple(_kind(runs, places, key) for key in shared),
        _pairing_notes(runs, labels, len(shared)),
    )


def _places(runs: Sequence[EvaluatedClips], labels: Sequence[str]) -> tuple[str | None, list[dict[Key, int]]]:
    """What keeps the runs from being paired (None if nothing does), and each run's clips by key."""
    trainings = [label for label, run in zip(labels, runs, strict=True) if run.of_training]
    if 0 < len(trainings) < len(runs):
        others = [label for label in labels if label not in trainings]
        noises = f"the clips of {join_words(trainings)} are of the noises of a training"
        return f"{noises}, those of {join_words(others)} are video files with seeds", []
    try:
        places = [run.by_key() for run in runs]
    except ValueError as error:
        return str(error), []
    if not set(places[0]).intersection(*places[1:]):
        return f"{join_words(list(labels))} share no clip of the same prompt and seed", []
    return None, places


def _unpaired(runs: Sequence[EvaluatedClips], note: str) -> Pairing:
    return Pairing(False, tuple(tuple(range(len(run.clips))) for run in runs), (), (note,))


def _kind(runs: Sequence[EvaluatedClips], places: Sequence[dict[Key, int]], key: Key) -> str | None:
    """As the first run that knows it says."""
    known = (run.clips[own[key]].kind for run, own in zip(runs, places, strict=True))
    return next((kind for kind in known if kind is not None), None)


def _pairing_notes(runs: Sequence[EvaluatedClips], labels: Sequence[str], shared: int) -> tuple[str, ...]:
    left_out = [
        f"{len(run.clips) - shared:,} of {label}"
        for run, label in zip(runs, labels, strict=True)
        if len(run.clips) > shared
    ]
    words = f"All figures are over the {counted(shared, 'clip')} that every run has."
    return (f"{words} Left out: {join_words(left_out)}.",) if left_out else ()
