"""TensorBoard: event files in the run folder, `tensorboard --logdir runs`."""

import io
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from vggrpo.io.histograms import Histogram
from vggrpo.io.trackers.base import Tracked, Tracker
from vggrpo.io.video import read_video

FOLDER = "tensorboard"
FLUSH_SECONDS = 20
MOST_ROWS, MOST_FPS = 192, 8.0
"""Of a shown video: TensorBoard takes animated GIFs only, which grow large."""


class TensorBoardTracker(Tracker):
    """Writes into the folder `tensorboard` of the run."""

    def __init__(self, run: Tracked) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(
            str(run.path / FOLDER),
            purge_step=run.done + 1,
            flush_secs=FLUSH_SECONDS,
        )

    def metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def histograms(self, step: int, histograms: Mapping[str, Histogram]) -> None:
        for name, one in histograms.items():
            edges, counts = np.array(one.edges), np.array(one.counts)
            middles = (edges[:-1] + edges[1:]) / 2
            self._writer.add_histogram_raw(
                name,
                min=edges[0],
                max=edges[-1],
                num=int(counts.sum()),
                sum=float(counts @ middles),
                sum_squares=float(counts @ middles**2),
                bucket_limits=edges[1:].tolist(),
                bucket_counts=counts.tolist(),
                global_step=step,
            )

    def video(self, step: int, name: str, path: Path) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        frames, fps = read_video(path)
        image = Summary.Image(
            height=frames.shape[1], width=frames.shape[2], colorspace=3, encoded_image_string=gif(frames, fps)
        )
        # SummaryWriter.add_video would need moviepy, for the same bytes.
        writer = self._writer._get_file_writer()
        writer.add_summary(Summary(value=[Summary.Value(tag=name, image=image)]), step)

    def close(self) -> None:
        self._writer.close()


def gif(frames: np.ndarray, fps: float) -> bytes:
    """Frames uint8 [T, H, W, 3] as an animated GIF of at most MOST_ROWS rows and about MOST_FPS."""
    every = max(1, round(fps / MOST_FPS))
    scale = min(1.0, MOST_ROWS / frames.shape[1])
    size = (max(1, round(frames.shape[2] * scale)), max(1, round(frames.shape[1] * scale)))
    shown = [Image.fromarray(cv2.resize(one, size, interpolation=cv2.INTER_AREA)) for one in frames[::every]]
    buffer = io.BytesIO()
    milliseconds = round(1000 * every / fps)
    shown[0].save(
        buffer, "GIF", save_all=True, append_images=shown[1:], duration=max(milliseconds, 20), loop=0
    )
    return buffer.getvalue()
