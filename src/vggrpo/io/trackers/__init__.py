"""Where a run can be watched besides its folder: TensorBoard, Weights & Biases, Trackio."""

from vggrpo.io.trackers.base import Tracked, Tracker
from vggrpo.io.trackers.trackers import Trackers, require_trackers

__all__ = ["Tracked", "Tracker", "Trackers", "require_trackers"]
