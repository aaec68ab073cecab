"""What every tracker does."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vggrpo.io.histograms import Histogram


@dataclass(frozen=True)
class Tracked:
    """The run that a tracker is told of."""

    path: Path
    """Its folder."""
    done: int = 0
    """Steps done before, by an earlier process: what a tracker has of later ones is void."""
    identity: str = ""
    """Tells this run from all others, also from those of the same folder name; kept when it is resumed."""
    project: str = "vggrpo"
    """Under which W&B and Trackio show it."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """JSON values."""

    @property
    def name(self) -> str:
        """As the folder's."""
        return self.path.resolve().name


class Tracker(ABC):
    """Shows a run somewhere. Any method may raise anything: `Trackers` keeps it from the run."""

    @abstractmethod
    def metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Finite numbers by name."""

    @abstractmethod
    def histograms(self, step: int, histograms: Mapping[str, Histogram]) -> None:
        """Histograms by name."""

    @abstractmethod
    def video(self, step: int, name: str, path: Path) -> None:
        """A video file."""

    @abstractmethod
    def close(self) -> None:
        """Hands over what is still on its way."""
