"""A latent geometry model of VGGT: the same classes, its own stitch points and special tokens."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tiny_models import tiny_vggt
from vggrpo.backbones import LatentSpec
from vggrpo.backbones.vggt import VGGT
from vggrpo.lgm import Connector, LatentGeometryModel, LayerSearch, agreement, distillation_loss, find_layer

MakeClips = Callable[[int, int], tuple[Tensor, Tensor]]
MakeModel = Callable[[str], LatentGeometryModel]
POINTS = ("E0", "E1", "E2", "A0", "A1")


@pytest.fixture(scope="module")
def search(make_clips: MakeClips) -> LayerSearch:
    return find_layer(tiny_vggt(), [make_clips(12, seed) for seed in range(2)], 6, ridges=(1e-9, 1e-2))


@pytest.fixture(scope="module")
def make_model(search: LayerSearch, latent_spec: LatentSpec) -> MakeModel:
    """A freshly stitched model whose connector is the ridge solution at a point."""

    def make(point: str) -> LatentGeometryModel:
        connector = search.connector(point)
        return LatentGeometryModel(tiny_vggt(), connector, point, latent_spec, "tiny-video", "tiny-vggt")

    return make


def test_the_search_finds_the_point_at_which_latents_determine_the_tokens(search: LayerSearch) -> None:
    assert [result.point.name for result in search.results] == list(POINTS)
    assert search.recommended == "E0"
    assert search.result("E0").held_out_error < 1e-6
    assert search.result("E0").downstream_error < 1e-3
    assert all(0.01 < search.result(point).held_out_error < 1.5 for point in POINTS[1:])


def test_special_tokens_start_from_the_teachers(search: LayerSearch, make_clips: MakeClips) -> None:
    frames = torch.cat([make_clips(12, seed)[1] for seed in range(2)])[6:]
    tokens = tiny_vggt().tokens_at(frames, POINTS)
    for name, (_, special) in tokens.items():
        expected = special.mean(dim=(0, 1))
        if name == "A1":
            expected = torch.stack([special[:, 0].mean(dim=0), special[:, 1:].mean(dim=(0, 1))])
        torch.testing.assert_close(search.result(name).special_tokens, expected, rtol=1e-4, atol=1e-5)
    assert [search.result(name).special_tokens.shape for name in POINTS] == [
        *[(3, 16)] * 3,
        (0, 16),
        (2, 3, 16),
    ]


def test_stitched_model_is_the_teacher_where_latents_determine_the_tokens(
    make_model: MakeModel, make_clips: MakeClips
) -> None:
    latents, frames = make_clips(2, 99)
    with torch.no_grad():
        student, teacher = make_model("E0")(latents), tiny_vggt()(frames)
    assert student.as_dict().keys() == teacher.as_dict().keys()
    errors = agreement(student, teacher)
    assert errors.keys() == {"depth_abs_rel", "depth_log", "rotation_deg", "translation_error", "focal_log"}
    assert errors["depth_abs_rel"].max() < 1e-3
    assert errors["rotation_deg"].max() < 0.05


@pytest.mark.parametrize("point", POINTS)
def test_a_scene_has_one_view_per_latent_frame_and_gradients_to_the_latents(
    make_model: MakeModel, make_clips: MakeClips, point: str
) -> None:
    model = make_model(point)
    latents = make_clips(2, 1)[0].requires_grad_()
    scene = model(latents)
    assert scene.depth_z.shape == (2, 3, 12, 16)
    assert scene.scene_flow_from_ref is None
    (scene.depth_z.mean() + scene.camera_to_world[:, 1:].sum()).backward()
    assert latents.grad.isfinite().all()
    assert (latents.grad.abs().amax(dim=(0, 1, 3, 4)) > 0).all()
    with torch.no_grad():  # another size, and another number of views
        assert model(torch.rand(1, 3, 5, 4, 9)).depth_z.shape == (1, 5, 8, 20)


@pytest.mark.parametrize("point", ["E1", "A0", "A1"])
def test_round_trip_is_exact_with_lora_merged(
    make_model: MakeModel, make_clips: MakeClips, tmp_path: Path, point: str
) -> None:
    model = make_model(point)
    layers = {name for name, m in model.backbone.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    latents, _ = make_clips(2, 3)
    with torch.no_grad():
        untrained = model(latents)
        model.add_lora(rank=2, alpha=4)
        trained_names = model.trainable_parameters()
        assert {name.partition(".lora_")[0] for name in trained_names if ".lora_" in name} == {
            f"backbone.{name}" for name in layers
        }
        for name, parameter in trained_names.items():
            if "lora_B" in name:
                parameter.copy_(0.05 * torch.randn(parameter.shape))
        trained = model(latents)
        model.save_pretrained(tmp_path / "lgm")
        loaded = LatentGeometryModel.from_pretrained(tmp_path / "lgm")
        again = loaded(latents)
    assert (trained.depth_z - untrained.depth_z).abs().max() > 1e-3
    assert type(loaded.backbone) is VGGT
    assert loaded.connector.reference_specials == (point == "A1")
    for name, value in trained.as_dict().items():
        torch.testing.assert_close(again.as_dict()[name], value, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("point", ["E2", "A1"])
def test_distillation_brings_the_student_closer(
    make_model: MakeModel, make_clips: MakeClips, point: str
) -> None:
    model = make_model(point)
    model.add_lora(rank=4, alpha=8)
    latents, frames = make_clips(1, 5)
    with torch.no_grad():
        teacher = tiny_vggt()(frames)
    optimizer = torch.optim.AdamW(model.parameter_groups(3e-3, connector_lr=1e-4), weight_decay=0)
    losses = []
    for _ in range(12):
        loss, parts = distillation_loss(model(latents), teacher)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert "scene_flow" not in parts
    assert losses[-1] < 0.7 * losses[0]
    assert all(
        parameter.grad is not None and parameter.grad.isfinite().all()
        for parameter in model.trainable_parameters().values()
    )


def test_view_0_keeps_special_tokens_of_its_own() -> None:
    connector = Connector(3, 16, (3, 4), 3, reference_specials=True)
    with torch.no_grad():
        connector.special_tokens.copy_(torch.randn(2, 3, 16))
    copy = Connector.from_config(connector.config)
    copy.load_state_dict(connector.state_dict())
    _, special = copy(torch.rand(2, 3, 4, 6, 8))
    assert special.shape == (2, 4, 3, 16)
    for view in range(4):
        assert torch.equal(special[1, view], connector.special_tokens[min(view, 1)])


def test_a_connector_without_them_is_refused(latent_spec: LatentSpec) -> None:
    with pytest.raises(ValueError, match="A1 needs special tokens for view 0 that are of its own"):
        LatentGeometryModel(tiny_vggt(), Connector(3, 16, (3, 4), 3), "A1", latent_spec, "v", "g")
    connector = Connector(3, 16, (3, 4), 3, reference_specials=True)
    with pytest.raises(
        ValueError, match="E1 needs special tokens for view 0 that are like those of the other"
    ):
        LatentGeometryModel(tiny_vggt(), connector, "E1", latent_spec, "v", "g")


def test_one_view_cannot_show_the_others_special_tokens(make_clips: MakeClips) -> None:
    latents, frames = make_clips(4, 0)
    clips = [(latents[:, :, :1], frames[:, :1])]
    with pytest.raises(ValueError, match="the clips have one view, but A1 needs the tokens of later views"):
        find_layer(tiny_vggt(), clips, 1, ["A1"], downstream_clips=0)
    assert find_layer(tiny_vggt(), clips, 1, ["E1", "A0"], downstream_clips=0).num_fit_clips == 3
