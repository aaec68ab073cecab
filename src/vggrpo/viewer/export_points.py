"""The coloured points of a scene, chosen once for every export, and PLY files of them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from vggrpo.geometry import valid_depth
from vggrpo.io import atomic_file
from vggrpo.viewer.scene_file import Scene4D


@dataclass(frozen=True)
class PointSelection:
    """Which pixels become points. Pixels without a surface, or with a point that is not finite, never do."""

    confidence_quantile: float = 0.0
    """The share of least confident points that is left out; without effect on a scene without confidence."""
    pixel_step: int = 1
    """Take every n-th pixel of every n-th row."""
    static_only: bool = False
    """Leave out what moves; without effect on a scene whose `static_mask` is unknown."""

    def __post_init__(self) -> None:
        if not 0 <= self.confidence_quantile < 1:
            raise ValueError(f"confidence_quantile is {self.confidence_quantile}, expected a share in [0, 1)")
        if self.pixel_step < 1:
            raise ValueError(f"pixel_step is {self.pixel_step}, expected at least 1")


@dataclass(frozen=True, eq=False)
class PointCloud:
    """N points in world coordinates, with the pixels that they are from, ordered by view, row and column."""

    positions: NDArray[np.floating]
    """[N, 3], OpenCV axes, scene units, in the dtype of the geometry."""
    colours: NDArray[np.uint8]
    """[N, 3] RGB."""
    pixels: NDArray[np.int64]
    """[N, 3] view, row, column."""
    confidence: NDArray[np.floating] | None
    """[N]; None if the scene has none."""
    static: NDArray[np.bool_] | None
    """[N], True where the point does not move; None if that is unknown."""

    def __len__(self) -> int:
        return len(self.positions)

    def of_view(self, view: int) -> "PointCloud":
        """The points of one view."""
        first, end = np.searchsorted(self.pixels[:, 0], [view, view + 1])
        part = slice(first, end)
        return PointCloud(
            self.positions[part],
            self.colours[part],
            self.pixels[part],
            None if self.confidence is None else self.confidence[part],
            None if self.static is None else self.static[part],
        )


ALL_POINTS = PointSelection()


def scene_points(scene: Scene4D, selection: PointSelection = ALL_POINTS) -> PointCloud:
    """The points of all views."""
    geometry = scene.geometry.take(0).to("cpu").detach()
    if geometry.dtype in (torch.bfloat16, torch.float16):
        geometry = geometry.to(dtype=torch.float32)
    points, confidence, static = geometry.world_points[0], geometry.confidence, geometry.static_mask
    keep = valid_depth(geometry.depth_z)[0] & points.isfinite().all(dim=-1)
    if confidence is not None and selection.confidence_quantile > 0 and bool(keep.any()):
        # A confidence that is not finite counts as the least.
        ranked = confidence[0].double().nan_to_num(nan=-torch.inf, posinf=-torch.inf)
        limit = np.quantile(ranked[keep].numpy(), selection.confidence_quantile, method="higher")
        keep &= ranked >= limit
    if static is not None and selection.static_only:
        keep &= static[0]
    on_grid = torch.zeros_like(keep)
    on_grid[:, :: selection.pixel_step, :: selection.pixel_step] = True
    keep &= on_grid
    return PointCloud(
        points[keep].numpy(),
        scene.colours.cpu()[keep].numpy(),
        keep.nonzero().numpy(),
        None if confidence is None else confidence[0][keep].numpy(),
        None if static is None else static[0][keep].numpy(),
    )


def write_ply(path: Path | str, cloud: PointCloud) -> None:
    """Writes points as a binary little-endian PLY file, atomically.

    Properties: x, y, z (OpenCV axes, scene units, lossless), red, green, blue, view (the number of the view),
    and, where known, confidence and static (1 = does not move).

    Raises:
        DiskFullError: if the space runs out.
    """
    real = cloud.positions.dtype.newbyteorder("<")
    columns: dict[str, tuple[np.dtype, NDArray]] = {
        **{axis: (real, cloud.positions[:, i]) for i, axis in enumerate("xyz")},
        **{name: (np.dtype("u1"), cloud.colours[:, i]) for i, name in enumerate(("red", "green", "blue"))},
        "view": (np.dtype("<i4"), cloud.pixels[:, 0]),
    }
    if cloud.confidence is not None:
        columns["confidence"] = (real, cloud.confidence)
    if cloud.static is not None:
        columns["static"] = (np.dtype("u1"), cloud.static)
    vertices = np.empty(len(cloud), [(name, dtype) for name, (dtype, _) in columns.items()])
    for name, (_, values) in columns.items():
        vertices[name] = values
    kinds = {"f4": "float", "f8": "double", "u1": "uchar", "i4": "int"}
    header = [
        "ply",
        "format binary_little_endian 1.0",
        "comment vggrpo: +x right, +y down, +z forward; scene units",
        f"element vertex {len(cloud)}",
        *(f"property {kinds[dtype.str[1:]]} {name}" for name, (dtype, _) in columns.items()),
        "end_header",
    ]
    with atomic_file(path) as temporary, open(temporary, "wb") as file:
        file.write(("\n".join(header) + "\n").encode("ascii"))
        file.write(vertices.tobytes())


def write_ply_frames(folder: Path | str, scene: Scene4D, cloud: PointCloud) -> None:
    """Writes `<folder>/frame_00004.ply` for each view, numbered by the video's frames; see `write_ply`."""
    for view, frame in enumerate(scene.frame_indices):
        write_ply(Path(folder) / f"{frame_name(frame)}.ply", cloud.of_view(view))


def frame_name(frame: int) -> str:
    """The stem of a frame's files, "frame_00004"."""
    return f"frame_{frame:05d}"
