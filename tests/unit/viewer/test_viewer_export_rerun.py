"""Rerun recordings, verified and read by Rerun itself; without rerun-sdk, the sentence that says so."""

import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from exact_scenes import exact_scene

from vggrpo.config import ConfigError
from vggrpo.viewer import Scene4D, scene_points, write_rrd

INSTALLED = find_spec("rerun") is not None
needs_rerun = pytest.mark.skipif(not INSTALLED, reason='rerun-sdk is not installed (pip install ".[rerun]")')


@pytest.fixture(scope="module")
def scene() -> Scene4D:
    return exact_scene()


@pytest.mark.skipif(INSTALLED, reason="rerun-sdk is installed")
def test_without_rerun_nothing_is_written(scene: Scene4D, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'needs rerun-sdk, .*; run pip install "vggrpo\[rerun\]"'):
        write_rrd(tmp_path / "scene.rrd", scene, scene_points(scene))
    assert not list(tmp_path.iterdir())


def columns(path: Path, entity: str) -> dict[str, list]:
    """The values of an entity by column, in the order of its rows: the video's timelines and components."""
    from rerun.chunk import RrdReader

    found: dict[str, list] = {}
    for chunk in RrdReader(path).stream():
        if chunk.entity_path == entity:
            batch = chunk.to_record_batch()
            for name in set(batch.schema.names) - {"log_time", "log_tick"}:
                found.setdefault(name, []).extend(batch.column(name).to_pylist())
    return found


@needs_rerun
def test_rerun_verifies_and_reads_the_recording(scene: Scene4D, tmp_path: Path) -> None:
    path = tmp_path / "scene.rrd"
    cloud = scene_points(scene)
    write_rrd(path, scene, cloud)
    check = subprocess.run(
        [sys.executable, "-m", "rerun_cli", "rrd", "verify", str(path)], capture_output=True, text=True
    )
    assert check.returncode == 0, check.stderr
    points = columns(path, "/world/points")
    assert points["frame"] == list(scene.frame_indices)
    for view, positions in enumerate(points["Points3D:positions"]):
        np.testing.assert_array_equal(np.float32(positions), cloud.of_view(view).positions)
    packed = np.array(points["Points3D:colors"][0], np.uint32)
    colours = np.stack([packed >> shift & 255 for shift in (24, 16, 8)], axis=-1)
    np.testing.assert_array_equal(colours, cloud.of_view(0).colours)
    camera = columns(path, "/world/camera")
    translation = [row[0] for row in camera["Transform3D:translation"] if row]
    np.testing.assert_allclose(translation, scene.geometry.camera_to_world[0, :, :3, 3], atol=1e-7)
    K = np.array([row[0] for row in camera["Pinhole:image_from_camera"] if row]).reshape(-1, 3, 3)
    np.testing.assert_allclose(K.transpose(0, 2, 1), scene.geometry.intrinsics[0], rtol=1e-6)
    errors = [row[0] for row in columns(path, "/rewards/reprojection/view_error")["Scalars:scalars"]]
    np.testing.assert_array_equal(errors, [0.5, np.nan, 0.25])


@needs_rerun
def test_arrows_go_from_where_things_were_to_where_they_are(scene: Scene4D, tmp_path: Path) -> None:
    write_rrd(tmp_path / "scene.rrd", scene, scene_points(scene))
    flow = columns(tmp_path / "scene.rrd", "/world/flow")
    moving = ~scene.geometry.static_mask[0, 0]
    origins = np.float32(flow["Arrows3D:origins"][2])
    assert 0 < len(origins) <= int(moving.sum())
    where = {
        tuple(point): tuple(place)
        for place, point in zip(
            moving.nonzero().tolist(), scene.geometry.world_points[0, 0][moving].tolist(), strict=True
        )
    }
    for origin, vector in zip(origins.tolist(), flow["Arrows3D:vectors"][2], strict=True):
        row, column = where[tuple(origin)]
        np.testing.assert_array_equal(vector, scene.geometry.scene_flow_from_ref[0, 2, row, column])


@needs_rerun
def test_scenes_have_identities_of_their_own(scene: Scene4D, tmp_path: Path) -> None:
    from rerun.chunk import RrdReader

    identities = set()
    for name, changed in (("a", scene), ("b", replace(scene, label="other")), ("c", scene)):
        write_rrd(tmp_path / f"{name}.rrd", changed, scene_points(changed))
        (entry,) = RrdReader(tmp_path / f"{name}.rrd").recordings()
        identities.add(entry.recording_id)
    assert len(identities) == 2
