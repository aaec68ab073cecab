"""Per-sample measurements as columns, and their file."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vggrpo.config.errors import CorruptFileError
from vggrpo.io import read_json, write_json

KEY_COLUMNS = ("prompt_id", "sample", "kind", "prompt")


@dataclass
class EvaluationRecords:
    """One row a sample: `prompt_id`, `sample` (index of its noise), `kind`, `prompt`, and one float column a
    metric.

    A metric that could not be measured on a sample (a failed reward) is NaN.
    """

    columns: dict[str, list[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.columns:
            _check(self.columns)

    def __len__(self) -> int:
        return len(self.columns.get("prompt_id", ()))

    @property
    def metrics(self) -> list[str]:
        """The names of the metric columns."""
        return [name for name in self.columns if name not in KEY_COLUMNS]

    @property
    def keys(self) -> list[tuple[str, int]]:
        """(prompt_id, sample) of every row."""
        if not self.columns:
            return []
        return list(zip(self.columns["prompt_id"], self.columns["sample"], strict=True))

    def values(self, metric: str) -> NDArray[np.float64]:
        """One metric [N].

        Raises:
            ValueError: if it was not measured.
        """
        if metric not in self.columns or metric in KEY_COLUMNS:
            raise ValueError(
                f"metric {metric!r} was not measured; these were: {', '.join(self.metrics) or 'none'}"
            )
        return np.array(self.columns[metric], dtype=np.float64)

    def take(self, rows: Sequence[int]) -> "EvaluationRecords":
        """Some rows, in the order given."""
        return EvaluationRecords({name: [column[i] for i in rows] for name, column in self.columns.items()})

    def extend(self, other: "EvaluationRecords") -> None:
        """Appends the rows of `other`.

        Raises:
            ValueError: if it has other columns.
        """
        if not self.columns:
            self.columns = {name: list(column) for name, column in other.columns.items()}
            return
        if self.columns.keys() != other.columns.keys():
            different = sorted(self.columns.keys() ^ other.columns.keys())
            raise ValueError(f"records have different columns: {', '.join(different)} in one of the two only")
        for name, column in other.columns.items():
            self.columns[name].extend(column)

    def save(self, path: Path | str) -> None:
        """Writes JSON, atomically; NaN becomes null."""
        plain = {name: [_null(value) for value in column] for name, column in self.columns.items()}
        write_json(Path(path), {"columns": plain})

    @classmethod
    def load(cls, path: Path | str) -> "EvaluationRecords":
        """Reads what `save` wrote.

        Raises:
            CorruptFileError: if the file is damaged or holds something else.
        """
        loaded = read_json(path)
        if not isinstance(loaded, dict) or not isinstance(loaded.get("columns"), dict):
            raise CorruptFileError(f'{path} holds no evaluation records (an object with "columns")')
        columns = loaded["columns"]
        try:
            for name in columns.keys() - set(KEY_COLUMNS):
                columns[name] = [float("nan") if value is None else value for value in columns[name]]
            return cls(columns)
        except (TypeError, ValueError) as error:
            raise CorruptFileError(f"{path} holds no evaluation records ({error})") from error


def _null(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _check(columns: Mapping[str, Sequence[Any]]) -> None:
    absent = [name for name in KEY_COLUMNS if name not in columns]
    if absent:
        raise ValueError(f"records lack the column {', '.join(absent)}")
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"the columns of records have different lengths: {lengths}")
