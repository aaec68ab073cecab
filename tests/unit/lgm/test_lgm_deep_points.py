"""Stitch points behind inputs of the dense heads: auxiliary connectors make what is lost."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tiny_models import tiny_vggt
from vggrpo.backbones import GeometryBackbone, LatentSpec
from vggrpo.lgm import (
    Connector,
    LatentGeometryModel,
    LayerSearch,
    distillation_loss,
    find_layer,
    fit_ridge,
)

MakeBackbone = Callable[[], GeometryBackbone]
MakeClips = Callable[[int, int], tuple[Tensor, Tensor]]
MakeModel = Callable[[str], LatentGeometryModel]

LOST = {
    "M0": {"fused": 16},
    "M2": {"fused": 16, "hook1": 16},
    "M3": {"fused": 16, "hook1": 16, "hook2": 16},
    "A2": {"layer1": 32},
    "A4": {"layer1": 32, "layer2": 32, "layer3": 32},
}
RIDGE = 1e-2
HELD_OUT = 6


@pytest.fixture(scope="module")
def make_geometry(make_backbone: MakeBackbone) -> Callable[[str], GeometryBackbone]:
    """The small model that has a stitch point: Any4D (M...) or VGGT (A...)."""
    return lambda point: make_backbone() if point[0] == "M" else tiny_vggt()


@pytest.fixture(scope="module")
def searches(
    make_geometry: Callable[[str], GeometryBackbone], make_clips: MakeClips
) -> dict[str, LayerSearch]:
    """Of all deep points under test, with an ordinary one beside them."""
    clips = [make_clips(12, seed) for seed in range(2)]
    return {
        letter: find_layer(make_geometry(letter), clips, HELD_OUT, candidates, ridges=(RIDGE,))
        for letter, candidates in (("M", ("F", "M0", "M2", "M3")), ("A", ("A0", "A2", "A4")))
    }


@pytest.fixture(scope="module")
def make_model(
    make_geometry: Callable[[str], GeometryBackbone],
    searches: dict[str, LayerSearch],
    latent_spec: LatentSpec,
) -> MakeModel:
    """A freshly stitched model at a deep point."""

    def make(point: str) -> LatentGeometryModel:
        connector = searches[point[0]].connector(point)
        return LatentGeometryModel(make_geometry(point), connector, point, latent_spec, "video", "geometry")

    return make


@pytest.mark.parametrize("point", LOST)
def test_the_search_fits_a_connector_for_every_lost_input(searches, make_geometry, make_clips, point) -> None:
    connector = searches[point[0]].connector(point)
    assert connector.auxiliary_widths == LOST[point]
    assert searches[point[0]].result(point).row()["auxiliary"] == list(LOST[point])
    batches = [make_clips(12, seed) for seed in range(2)]
    latents, frames = (torch.cat(parts)[HELD_OUT:] for parts in zip(*batches, strict=True))
    tokens = make_geometry(point).tokens_at(frames, [point, *LOST[point]])
    for name, part in ((point, connector), *connector.auxiliary.items()):
        target = tokens[name][0].double()
        # View 0 carries marks of its own: it has a mean of its own at every position.
        means = torch.stack([target[:, 0].mean(0), target[:, 1:].mean((0, 1))])
        torch.testing.assert_close(part.position.flatten(1, 2).double(), means, rtol=1e-5, atol=1e-5)
        residual = target - means[torch.tensor([0, 1, 1])]
        expected = fit_ridge(latents, residual, torch.zeros_like(means[0]), RIDGE)
        torch.testing.assert_close(part.conv.weight.double(), expected.weight, rtol=1e-4, atol=1e-6)


def test_a_deep_point_is_as_bad_as_the_worst_that_must_be_made(searches, make_clips) -> None:
    search = searches["M"]
    errors = [search.result(point).held_out_error for point in ("M0", "M2", "M3")]
    # M2 and M3 have the lost inputs of M0 and more.
    assert 0 < errors[0] <= errors[1]
    for point in ("F", "M0", "M2", "M3"):
        result = search.result(point)
        assert result.fit_error < result.held_out_error
        assert result.downstream_error is not None


@pytest.mark.parametrize("point", ["M2", "A4"])
def test_view_0_is_marked_however_equal_the_latents(make_model, point) -> None:
    connector = make_model(point).connector
    latents = torch.rand(1, 3, 1, 6, 8).expand(-1, -1, 9, -1, -1)
    patches, specials = connector(latents)
    # The middle views have the same window of latents; only view 0 is told apart, by more than its border.
    torch.testing.assert_close(patches[:, 4], patches[:, 5])
    marks = connector.position_on((3, 4))
    assert (marks[0] - marks[1]).abs().mean() > 0.05
    assert marks.shape == (2, 3, 4, 16)
    assert connector.position_on((6, 8)).shape == (2, 6, 8, 16)
    assert specials.shape == (1, 9, connector.num_special_tokens, 16)


@pytest.mark.parametrize("point", LOST)
def test_a_deep_model_is_smaller_and_gradients_reach_every_latent(
    make_model, make_geometry, make_clips, point
):
    model = make_model(point)
    before = "F" if point[0] == "M" else "A0"
    shallow = make_geometry(point)
    shallow.drop_before(before)
    sizes = [sum(p.numel() for p in backbone.parameters()) for backbone in (model.backbone, shallow)]
    assert sizes[0] < sizes[1]
    latents = make_clips(2, 1)[0].requires_grad_()
    scene = model(latents)
    assert scene.depth_z.shape == (2, 3, 12, 16)
    (scene.depth_z.mean() + scene.camera_to_world[:, 1:].sum()).backward()
    assert latents.grad.isfinite().all()
    assert (latents.grad.abs().amax(dim=(0, 1, 3, 4)) > 0).all()
    with torch.no_grad():  # another size, and another number of views
        assert model(torch.rand(1, 3, 5, 4, 9)).depth_z.shape == (1, 5, 8, 20)


@pytest.mark.parametrize("point", ["M3", "A4"])
def test_distillation_trains_auxiliary_connectors_and_they_are_saved(
    make_model: MakeModel, make_geometry, make_clips: MakeClips, tmp_path: Path, point: str
) -> None:
    model = make_model(point)
    model.add_lora(rank=4, alpha=8)
    groups = {group["name"]: group["params"] for group in model.parameter_groups(3e-3, connector_lr=1e-4)}
    auxiliary = dict(model.connector.auxiliary.named_parameters())
    assert {id(parameter) for parameter in auxiliary.values()} <= {id(p) for p in groups["connector"]}
    start = {name: parameter.detach().clone() for name, parameter in auxiliary.items()}
    latents, frames = make_clips(1, 5)
    with torch.no_grad():
        teacher = make_geometry(point)(frames)
    optimizer = torch.optim.AdamW(model.parameter_groups(3e-3, connector_lr=1e-4), weight_decay=0)
    losses = []
    for _ in range(12):
        loss, _ = distillation_loss(model(latents), teacher)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    for name, before in start.items():
        if "special" not in name:  # auxiliary connectors have none
            assert not torch.equal(auxiliary[name], before), name

    model.save_pretrained(tmp_path / "lgm")
    loaded = LatentGeometryModel.from_pretrained(tmp_path / "lgm")
    assert loaded.connector.config == model.connector.config
    saved = loaded.connector.state_dict()
    assert all(torch.equal(saved[name], value) for name, value in model.connector.state_dict().items())
    with torch.no_grad():
        trained, again = model(latents).as_dict(), loaded(latents).as_dict()
    for name, value in trained.items():
        torch.testing.assert_close(again[name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_a_connector_without_what_is_lost_is_refused(make_geometry, latent_spec: LatentSpec) -> None:
    geometry = make_geometry("M2")
    point = geometry.stitch_point("M2")
    bare = Connector(3, point.width, (3, 4), point.num_special_tokens, reference_patches=True)
    with pytest.raises(ValueError, match=r"lose \{'fused': 16, 'hook1': 16\} .* at M2, but .* nothing"):
        LatentGeometryModel(geometry, bare, "M2", latent_spec, "v", "g")
    whole = Connector.for_point(point, 3, (3, 4))
    with pytest.raises(ValueError, match=r"the heads lose \{'fused': 16\} .* at M0, but the connector's aux"):
        LatentGeometryModel(geometry, whole, "M0", latent_spec, "v", "g")


def test_one_view_cannot_show_how_view_0_differs(make_geometry, make_clips: MakeClips) -> None:
    latents, frames = make_clips(4, 0)
    clips = [(latents[:, :, :1], frames[:, :1])]
    with pytest.raises(ValueError, match="the clips have one view, but M0 needs the tokens of later views"):
        find_layer(make_geometry("M0"), clips, 1, ["F", "M0"], downstream_clips=0)
