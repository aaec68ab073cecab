"""The search for a stitch point: what it measures, what it recommends, and what it shows."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import pytest
import torch
from torch import Tensor

from vggrpo.backbones import GeometryBackbone, StitchPoint
from vggrpo.lgm import (
    LayerResult,
    LayerSearch,
    RidgeSolution,
    agreement,
    find_layer,
    fit_ridge,
    layer_table,
    plot_layer_search,
)
from vggrpo.lgm.downstream import NOTHING_SEEN_FLOOR, OutputErrors
from vggrpo.lgm.search import recommend

MakeBackbone = Callable[[], GeometryBackbone]
MakeClips = Callable[[int, int], tuple[Tensor, Tensor]]


@pytest.fixture(scope="module")
def search(make_backbone: MakeBackbone, make_clips: MakeClips) -> LayerSearch:
    return find_layer(make_backbone(), [make_clips(8, seed) for seed in range(4)], 8, ridges=(1e-9, 1e-2))


def test_all_points_are_candidates_in_the_models_order(search: LayerSearch) -> None:
    assert [result.point.name for result in search.results] == ["E0", "E1", "E2", "F"]
    assert (search.num_fit_clips, search.num_held_out_clips, search.grid) == (24, 8, (3, 4))


def test_exact_point_has_no_error_and_is_recommended(search: LayerSearch) -> None:
    first = search.results[0]
    assert first.held_out_error < 1e-6
    assert first.downstream_error is not None
    assert first.downstream_error < 1e-3
    assert first.solution.ridge == 1e-9
    assert search.recommended == "E0"


def test_deeper_points_are_harder(search: LayerSearch) -> None:
    """Attention and GELU are not linear: a convolution explains less of what comes after them."""
    for result in search.results[1:]:
        assert result.downstream_error is not None
        assert 0.01 < result.held_out_error < 1.5
        assert result.fit_error < result.held_out_error
        assert result.downstream_error > 0.01


def test_each_point_keeps_its_best_ridge(make_backbone: MakeBackbone, make_clips: MakeClips) -> None:
    batches = [make_clips(8, seed) for seed in range(4)]
    each = [
        find_layer(make_backbone(), batches, 8, ridges=(ridge,), downstream_clips=0) for ridge in (1e-9, 1e-2)
    ]
    both = find_layer(make_backbone(), batches, 8, ridges=(1e-9, 1e-2), downstream_clips=0)
    for one, other, best in zip(each[0].results, each[1].results, both.results, strict=True):
        assert best.held_out_error == min(one.held_out_error, other.held_out_error)


def test_special_tokens_and_positions_are_the_teachers(
    search: LayerSearch, backbone: GeometryBackbone, make_clips: MakeClips
) -> None:
    clips = [make_clips(8, seed) for seed in range(4)]
    fitted = torch.arange(32) >= 8
    frames = torch.cat([frames for _, frames in clips])[fitted]
    for name, (patches, specials) in backbone.tokens_at(frames, ["E0", "E2", "F"]).items():
        result = search.result(name)
        torch.testing.assert_close(result.special_tokens, specials.mean(dim=(0, 1)), rtol=1e-4, atol=1e-5)
        code = backbone.position_code(name, (3, 4))
        expected = patches.mean(dim=(0, 1)) if code is None else code
        torch.testing.assert_close(
            result.solution.position.flatten(0, 1).float(), expected, rtol=1e-4, atol=1e-5
        )


def test_fit_sees_no_held_out_clip(make_backbone: MakeBackbone, make_clips: MakeClips) -> None:
    latents, frames = make_clips(16, 0)
    kept = torch.arange(16) >= 4
    backbone = make_backbone()
    search = find_layer(backbone, [(latents, frames)], 4, ["E1"], ridges=(1e-2,), downstream_clips=0)
    patches, _ = backbone.tokens_at(frames[kept], ["E1"])["E1"]
    alone = fit_ridge(latents[kept], patches, None, 1e-2)
    torch.testing.assert_close(search.results[0].solution.matrix, alone.matrix, rtol=1e-6, atol=1e-8)


def test_batches_do_not_matter(make_backbone: MakeBackbone, make_clips: MakeClips) -> None:
    latents, frames = make_clips(12, 0)

    def stream(size: int) -> Iterator[tuple[Tensor, Tensor]]:
        yield from zip(latents.split(size), frames.split(size), strict=True)

    one, other = (find_layer(make_backbone(), stream(size), 3, ["E1"], ridges=(1e-2,)) for size in (12, 5))
    for (name, a), (_, b) in zip(one.results[0].row().items(), other.results[0].row().items(), strict=True):
        assert a == (b if isinstance(b, str) else pytest.approx(b, rel=1e-4)), name


def test_output_errors_are_those_of_the_stitched_model(
    search: LayerSearch, backbone: GeometryBackbone, make_clips: MakeClips
) -> None:
    clips = [make_clips(8, seed) for seed in range(4)]
    held_out = torch.arange(32) < 8
    latents, frames = (torch.cat(parts)[held_out] for parts in zip(*clips, strict=True))
    with torch.no_grad():
        patches, specials = search.connector("E2")(latents)
        student, teacher = backbone.finish_from("E2", patches, specials, (3, 4)), backbone(frames)
    expected = agreement(student, teacher)
    errors = search.result("E2").output_errors
    assert errors is not None
    assert errors.log_depth == pytest.approx(expected["depth_log"].mean().item(), rel=1e-3)
    assert errors.rotation_deg == pytest.approx(expected["rotation_deg"].mean().item(), rel=1e-3)


def test_downstream_error_is_relative_to_seeing_nothing() -> None:
    nothing = OutputErrors(log_depth=0.4, rotation_deg=8.0, translation=0.5)
    assert nothing.relative_to(nothing) == 1
    assert OutputErrors(0.2, 2.0, 0.0).relative_to(nothing) == pytest.approx((0.5 + 0.25 + 0.0) / 3)


def test_still_and_flat_clips_do_not_divide_by_zero(
    make_clips: MakeClips, make_backbone: MakeBackbone
) -> None:
    latents, frames = make_clips(8, 0)
    backbone = make_backbone()
    # One image for all views: the camera of every view is predicted from the same tokens.
    latents, frames = latents[:, :, :1].expand_as(latents), frames[:, :1].expand_as(frames)
    search = find_layer(backbone, [(latents, frames)], 4, ["E1"])
    assert search.nothing_seen is not None
    assert search.nothing_seen.rotation_deg >= NOTHING_SEEN_FLOOR.rotation_deg
    assert search.results[0].downstream_error is not None


def test_downstream_can_be_left_out(make_backbone: MakeBackbone, make_clips: MakeClips) -> None:
    search = find_layer(make_backbone(), [make_clips(24, 0)], 6, ridges=(1e-9,), downstream_clips=0)
    assert search.nothing_seen is None
    assert all(result.downstream_error is None for result in search.results)
    assert search.recommended == "E0"
    assert layer_table(search).splitlines()[1].split()[3] == "-"


def test_candidates_in_any_order(make_backbone: MakeBackbone, make_clips: MakeClips) -> None:
    search = find_layer(make_backbone(), [make_clips(8, 0)], 2, ["F", "E1"], downstream_clips=1)
    assert [result.point.name for result in search.results] == ["E1", "F"]


def result(name: str, held_out: float, downstream: float | None) -> LayerResult:
    solution = RidgeSolution(torch.zeros(1, 1, 1, 1, 1), torch.zeros(1), torch.zeros(1, 1, 1), 1e-4)
    point = StitchPoint(name, 1, 1)
    return LayerResult(point, held_out, held_out, None, downstream, solution, torch.zeros(1, 1))


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ([(0.30, 0.5), (0.35, 0.4), (0.60, 0.1)], "E1"),  # E2 explains far less of the tokens
        ([(0.30, 0.4), (0.35, 0.4)], "E0"),  # the earlier of equals
        ([(0.35, None), (0.30, None)], "E1"),
        ([(0.30, math.nan), (0.35, 0.4)], "E1"),
        ([(math.nan, 0.1), (0.35, 0.4), (0.34, 0.5)], "E1"),
    ],
)
def test_recommendation(figures: list[tuple[float, float | None]], expected: str) -> None:
    assert recommend([result(f"E{i}", *pair) for i, pair in enumerate(figures)]) == expected


def test_no_recommendation_without_finite_errors() -> None:
    with pytest.raises(ValueError, match=r"no stitch point \(E0, E1\) has finite errors"):
        recommend([result("E0", math.nan, None), result("E1", 0.3, math.inf)])


class TestReport:
    def test_json(self, search: LayerSearch) -> None:
        values = json.loads(json.dumps(search.as_dict(), allow_nan=False))
        assert values["recommended"] == "E0"
        assert [row["point"] for row in values["candidates"]] == ["E0", "E1", "E2", "F"]
        assert values["candidates"][1]["held_out_error"] == search.results[1].held_out_error
        assert values["nothing_seen"]["log_depth"] > 0

    def test_table(self, search: LayerSearch) -> None:
        header, *rows = layer_table(search).splitlines()
        assert header.split("  ")[0] == "point"
        assert [row[:4].rstrip() for row in rows] == ["E0 *", "E1", "E2", "F"]
        assert rows[1].split()[1] == f"{search.results[1].held_out_error:.3f}"
        assert {len(row) for row in rows} == {len(header)}

    @pytest.mark.parametrize("suffix", ["png", "svg"])
    def test_plot(self, search: LayerSearch, tmp_path: Path, suffix: str) -> None:
        path = tmp_path / f"layers.{suffix}"
        plot_layer_search(search, path)
        if suffix == "png":
            picture = cv2.imread(str(path))
            assert picture is not None
            assert picture.std() > 10
        else:
            assert path.read_text("utf-8").rstrip().endswith("</svg>")


class TestBadInput:
    def test_unknown_candidate(self, backbone: GeometryBackbone, make_clips: MakeClips) -> None:
        with pytest.raises(ValueError, match="'E9', but this geometry model has E0, E1, E2, F"):
            find_layer(backbone, [make_clips(4, 0)], 1, ["E9"])

    def test_too_few_clips(self, backbone: GeometryBackbone, make_clips: MakeClips) -> None:
        with pytest.raises(ValueError, match="of 2 clips 0 are to fit and 2 held out"):
            find_layer(backbone, [make_clips(2, 0)], 4)
        with pytest.raises(ValueError, match="of 0 clips"):
            find_layer(backbone, [], 4)

    def test_no_held_out_clips(self, backbone: GeometryBackbone, make_clips: MakeClips) -> None:
        with pytest.raises(ValueError, match="held_out_clips is 0"):
            find_layer(backbone, [make_clips(4, 0)], 0)

    def test_frames_of_another_raster(self, backbone: GeometryBackbone, make_clips: MakeClips) -> None:
        latents, frames = make_clips(4, 0)
        with pytest.raises(
            ValueError, match=r"frames have shape .* need \[4, 3, 12, 16, 3\].*teacher_frames"
        ):
            find_layer(backbone, [(latents, frames[:, :, :8])], 1)

    def test_one_view(self, backbone: GeometryBackbone, make_clips: MakeClips) -> None:
        latents, frames = make_clips(4, 0)
        with pytest.raises(ValueError, match="one view"):
            find_layer(backbone, [(latents[:, :, :1], frames[:, :1])], 1, ["E0"])

    def test_point_that_was_not_searched(self, search: LayerSearch) -> None:
        with pytest.raises(ValueError, match="'E5' was not searched; the candidates were E0, E1, E2, F"):
            search.connector("E5")


def test_results_are_immutable(search: LayerSearch) -> None:
    with pytest.raises(AttributeError):
        search.recommended = "F"  # type: ignore[misc]
    assert replace(search, recommended="F").connector().special_tokens.shape == (0, 16)
