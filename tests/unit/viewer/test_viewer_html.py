"""Exported pages without a browser: the payload decoded and compared with the scene, the markup parsed."""

import base64
import json
import math
import zlib
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exact_scenes import HEIGHT, WIDTH, exact_scene

from vggrpo.config import ConfigError
from vggrpo.viewer import Scene4D, scene_fragment, scene_page, scene_script, write_scene_page
from vggrpo.viewer.html_payload import ERROR_REACH, NOT_COMPARED, STATIC, VALID, scene_payload
from vggrpo.viewer.prepared import prepare_scene

HOSTILE = 'a <b>box</b> </script><script>alert(1)</script> & "two" \u2028 <!-- '
TYPES = {"u8": np.dtype("u1"), "u16": np.dtype("<u2"), "f32": np.dtype("<f4")}


class Elements(HTMLParser):
    """Every element with its attributes and text; tags must fit."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: dict[str, list[str]] = {}
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in {"meta", "br"}:
            self.open.append(tag)
            self.text.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.text[self.open[-1]][-1] += data


def decoded(payload: dict[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of a payload, read by its own description of itself."""
    data, at, arrays = zlib.decompress(base64.b64decode(payload["data"])), 0, {}
    for entry in payload["arrays"]:
        kind, count = TYPES[entry["type"]], math.prod(entry["shape"])
        part = np.frombuffer(data, np.uint8, count * kind.itemsize, at)
        at += len(part)
        if entry["type"] == "u16":
            part = np.stack([part[:count], part[count:]], axis=-1)
        values = np.ascontiguousarray(part).reshape(-1).view(kind)
        if entry["delta"]:
            values = np.cumsum(values.astype(np.int64)) % (1 << (8 * kind.itemsize))
        arrays[entry["name"]] = values.reshape(entry["shape"])
    assert at == len(data)
    return arrays


def positions(payload: dict[str, Any], quantised: np.ndarray) -> np.ndarray:
    low, high = np.array(payload["low"]), np.array(payload["high"])
    return low + np.moveaxis(quantised, 0, -1) / 65535 * (high - low)


@pytest.fixture(scope="module")
def scene() -> Scene4D:
    return exact_scene()


@pytest.fixture(scope="module")
def payload(scene: Scene4D) -> dict[str, Any]:
    return json.loads(json.dumps(scene_payload(prepare_scene(scene)), allow_nan=False))


def test_the_payload_holds_the_scene(scene: Scene4D, payload: dict[str, Any]) -> None:
    arrays, geometry = decoded(payload), scene.geometry
    unit = float(geometry.depth_z.median())
    step = np.subtract(payload["high"], payload["low"]) / 65535
    drawn = (arrays["flags"] & VALID).astype(bool)
    assert drawn.all()
    found = positions(payload, arrays["position"])
    assert (np.abs(found - geometry.world_points[0].numpy() / unit) <= 0.51 * step).all()
    assert (np.moveaxis(arrays["colour"], 0, -1) == scene.colours.numpy()).all()
    assert geometry.static_mask is not None
    static = (arrays["flags"] & STATIC).astype(bool)
    assert (static == geometry.static_mask[0].numpy()).all()
    assert 0 < static.mean() < 1
    camera = geometry.camera_to_world[0, :, :3].numpy().copy()
    camera[..., 3] /= unit
    np.testing.assert_allclose(arrays["camera"], camera, atol=1e-6)
    K = geometry.intrinsics[0].numpy()
    np.testing.assert_array_equal(arrays["intrinsics"], K[:, [0, 1, 0, 1], [0, 1, 2, 2]])
    assert payload["times"] == [0.0, 0.5, 1.0]
    assert payload["rewards"] == [["Camera motion", 0.75], ["Reprojection", None]]
    # Confidence rises with the pixel's number, so its rank is the pixel's place.
    ranks = (np.arange(drawn.size) + 1) / drawn.size
    assert np.abs(arrays["confidence"].reshape(-1) / 255 - ranks).max() <= 1.01 / 255


def test_arrows_are_the_scene_flow_of_what_moves(scene: Scene4D, payload: dict[str, Any]) -> None:
    geometry = scene.geometry
    assert geometry.scene_flow_from_ref is not None
    assert geometry.static_mask is not None
    paths = positions(payload, decoded(payload)["arrows"])
    assert len(paths) == payload["numArrows"] > 5
    unit = float(geometry.depth_z.median())
    moving = ~geometry.static_mask[0, 0]
    start = geometry.world_points[0, 0][moving]
    candidates = ((start + geometry.scene_flow_from_ref[0][:, moving]) / unit).permute(1, 0, 2).numpy()
    distance = np.abs(paths[:, None] - candidates[None]).max(axis=(2, 3)).min(axis=1)
    assert distance.max() < 1e-3
    assert np.linalg.norm(paths[:, -1] - paths[:, 0], axis=-1).min() > 0.02


def test_the_heat_map_tells_errors_from_what_was_not_compared(scene: Scene4D) -> None:
    geometry = scene.geometry
    depth = geometry.depth_z.clone()
    depth[:, 1] *= 1.05
    broken = replace(scene, geometry=replace(geometry, depth_z=depth))
    prepared = prepare_scene(broken)
    error = decoded(scene_payload(prepared))["error"]
    static = prepared.static
    assert (error[~static] == NOT_COMPARED).all()
    compared = error != NOT_COMPARED
    assert compared[static].mean() > 0.5
    np.testing.assert_allclose(
        error[compared] / (NOT_COMPARED - 1) * ERROR_REACH,
        np.minimum(prepared.error[compared], ERROR_REACH),
        atol=0.51 * ERROR_REACH / (NOT_COMPARED - 1),
    )
    clean = prepare_scene(scene)
    assert prepared.view_error[1] > 0.03 > 30 * clean.view_error.max()


def test_lengths_do_not_depend_on_the_scale_of_the_scene(scene: Scene4D) -> None:
    geometry = scene.geometry
    assert geometry.scene_flow_from_ref is not None
    cameras = geometry.camera_to_world.clone()
    cameras[..., :3, 3] *= 37
    larger = replace(
        geometry,
        camera_to_world=cameras,
        depth_z=geometry.depth_z * 37,
        world_points=geometry.world_points * 37,
        scene_flow_from_ref=geometry.scene_flow_from_ref * 37,
    )
    one, other = prepare_scene(scene), prepare_scene(replace(scene, geometry=larger))
    assert other.scale == pytest.approx(37 * one.scale)
    for name in ("points", "camera_to_world", "acceleration", "arrows", "centre", "radius"):
        np.testing.assert_allclose(getattr(other, name), getattr(one, name), atol=2e-5, err_msg=name)


def test_acceleration_is_that_of_the_camera_motion_reward() -> None:
    scene = exact_scene()
    centres = scene.geometry.camera_to_world[0, :, :3, 3].double() / scene.geometry.depth_z.double().median()
    v = centres.diff(dim=0)
    expected = (v[1] - v[0]).norm() / (v[1].norm() + v[0].norm() + 0.01)
    np.testing.assert_allclose(prepare_scene(scene).acceleration, [expected] * 3, rtol=1e-4)
    short = replace(
        scene, geometry=scene.geometry.select([0, 1]), colours=scene.colours[:2], frame_indices=(0, 4)
    )
    assert prepare_scene(short).acceleration.tolist() == [0.0, 0.0]


def test_a_reward_that_the_scene_does_not_bring_is_computed(scene: Scene4D) -> None:
    rewards = dict(prepare_scene(replace(scene, rewards={})).rewards)
    assert set(rewards) == {"Camera motion", "Reprojection"}
    assert rewards["Reprojection"] > 0.99


def test_far_and_missing_points_are_left_out_and_counted(scene: Scene4D) -> None:
    points, depth = scene.geometry.world_points.clone(), scene.geometry.depth_z.clone()
    points[0, 0, 0, 0] = 1e6
    points[0, 1, 2, 3] = torch.nan
    depth[0, 2, 4, 5] = 0.0
    prepared = prepare_scene(
        replace(scene, geometry=replace(scene.geometry, world_points=points, depth_z=depth))
    )
    missing = np.argwhere(~prepared.valid).tolist()
    assert missing == [[0, 0, 0], [1, 2, 3], [2, 4, 5]]
    assert prepared.too_far == 1
    assert np.isfinite(prepared.points).all()
    payload = scene_payload(prepared)
    assert max(payload["high"]) < 50
    assert (decoded(payload)["flags"] & VALID).sum() == prepared.valid.size - 3


def test_a_scene_that_says_little_is_drawn_all_the_same(scene: Scene4D) -> None:
    bare = replace(scene.geometry, confidence=None, scene_flow_from_ref=None, static_mask=None)
    payload = scene_payload(prepare_scene(replace(scene, geometry=bare)))
    assert not payload["knowsMotion"]
    assert payload["numArrows"] == 0
    arrays = decoded(payload)
    assert "confidence" not in arrays
    assert "arrows" not in arrays
    assert (arrays["flags"] == VALID | STATIC).all()
    moving = prepare_scene(replace(scene, geometry=replace(scene.geometry, static_mask=None)))
    assert moving.knows_motion
    assert not moving.static.all()


def test_scenes_that_cannot_be_drawn_are_named(scene: Scene4D) -> None:
    camera = scene.geometry.camera_to_world.clone()
    camera[0, 1, 0, 3] = torch.nan
    with pytest.raises(ValueError, match="'exact' cannot be drawn: the camera of view 1 is not finite"):
        scene_fragment([replace(scene, geometry=replace(scene.geometry, camera_to_world=camera))])
    empty = replace(scene.geometry, depth_z=torch.zeros_like(scene.geometry.depth_z))
    with pytest.raises(ValueError, match="no view sees a surface"):
        scene_fragment([replace(scene, geometry=empty)])
    with pytest.raises(ValueError, match="scenes holds 3 scenes"):
        scene_fragment([scene] * 3)


def test_the_page_is_complete_and_text_stays_text(scene: Scene4D, tmp_path: Path) -> None:
    hostile = replace(scene, label=HOSTILE, prompt=HOSTILE)
    path = write_scene_page(tmp_path / "scene.html", [hostile, scene])
    page = path.read_text("utf-8")
    elements = Elements(page)
    assert [tag for tag, _ in elements.found].count("script") == 2
    assert not {"link", "iframe", "object", "img", "b"} & {tag for tag, _ in elements.found}
    for _, attributes in elements.found:
        assert not {"src", "href"} & attributes.keys()
    assert "http://" not in page
    assert "https://" not in page
    assert "url(" not in page
    policy = next(attrs["content"] for _, attrs in elements.found if attrs.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert elements.text["title"] == [f"{HOSTILE} / exact"]
    data = json.loads(elements.text["script"][0])
    assert [entry["label"] for entry in data["scenes"]] == [HOSTILE, "exact"]
    assert data["scenes"][0]["prompt"] == HOSTILE
    assert decoded(data["scenes"][1])["position"].shape == (3, 3, HEIGHT, WIDTH)
    assert scene_page([hostile, scene]) == page, "the same scenes give the same page, byte for byte"


def test_a_fragment_brings_no_code_of_its_own(scene: Scene4D) -> None:
    elements = Elements(scene_fragment([scene]))
    assert [tag for tag, _ in elements.found] == ["vggrpo-scene", "script"]
    assert "standalone" not in elements.found[0][1]
    assert "</script" not in scene_script().lower()


def test_a_page_needs_a_name_of_a_page(scene: Scene4D, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"scene\.txt is no name of a page"):
        write_scene_page(tmp_path / "scene.txt", [scene])
