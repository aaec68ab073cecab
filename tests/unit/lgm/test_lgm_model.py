"""The stitched model: exact where the connector is, saved and loaded bit for bit, trained by LoRA or as a
whole."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vggrpo.backbones import GeometryBackbone, LatentSpec
from vggrpo.config.errors import CorruptFileError
from vggrpo.geometry import SceneGeometry
from vggrpo.io import write_manifest
from vggrpo.lgm import Connector, LatentGeometryModel, agreement, distillation_loss, find_layer

MakeBackbone = Callable[[], GeometryBackbone]
MakeClips = Callable[[int, int], tuple[Tensor, Tensor]]
MakeModel = Callable[..., LatentGeometryModel]
POINTS = ("E0", "E1", "E2", "F")


@pytest.fixture(scope="session")
def make_model(make_backbone: MakeBackbone, make_clips: MakeClips, latent_spec: LatentSpec) -> MakeModel:
    """A freshly stitched model whose connector is the ridge solution at `point`."""
    search = find_layer(make_backbone(), [make_clips(24, 0)], 6, ridges=(1e-10,))

    def make(point: str = "E0") -> LatentGeometryModel:
        connector = search.connector(point)
        return LatentGeometryModel(
            make_backbone(), connector, point, latent_spec, "tiny-video", "tiny-geometry"
        )

    return make


def assert_same(a: SceneGeometry, b: SceneGeometry) -> None:
    """Bit for bit."""
    assert a.as_dict().keys() == b.as_dict().keys()
    for name, value in a.as_dict().items():
        assert torch.equal(value, b.as_dict()[name]), name


def test_stitched_model_is_the_teacher_where_latents_determine_the_tokens(
    backbone: GeometryBackbone, make_model: MakeModel, make_clips: MakeClips
) -> None:
    latents, frames = make_clips(2, 99)  # not among the clips of the fit
    with torch.no_grad():
        student, teacher = make_model("E0")(latents), backbone(frames)
    for name, value in teacher.as_dict().items():
        torch.testing.assert_close(student.as_dict()[name], value, rtol=1e-3, atol=1e-4, msg=name)
    errors = agreement(student, teacher)
    assert errors["depth_abs_rel"].max() < 1e-4
    assert errors["rotation_deg"].max() < 1e-2


@pytest.mark.parametrize("point", POINTS)
def test_scene_has_one_view_per_latent_frame(
    make_model: MakeModel, make_clips: MakeClips, point: str
) -> None:
    latents, _ = make_clips(2, 1)
    scene = make_model(point)(latents)
    assert scene.depth_z.shape == (2, 3, 12, 16)
    assert scene.scene_flow_from_ref is not None
    assert make_model(point)(torch.rand(1, 3, 2, 4, 9)).depth_z.shape == (1, 2, 8, 20)
    assert make_model(point).view_stride == 4


def test_layers_before_the_stitch_point_are_gone(
    backbone: GeometryBackbone, make_model: MakeModel, make_clips: MakeClips
) -> None:
    sizes = [sum(p.numel() for p in make_model(point).backbone.parameters()) for point in POINTS]
    assert sum(p.numel() for p in backbone.parameters()) > sizes[0] > sizes[1] > sizes[2] > sizes[3]
    with pytest.raises(ValueError, match="dropped"):
        make_model("E1").backbone(make_clips(1, 0)[1])


def test_frozen_until_told_to_train(make_model: MakeModel) -> None:
    model = make_model()
    assert model.trainable_parameters() == {}
    assert not model.training


@pytest.mark.parametrize("point", POINTS)
def test_gradients_reach_the_latents(make_model: MakeModel, make_clips: MakeClips, point: str) -> None:
    latents = make_clips(1, 2)[0].requires_grad_()
    scene = make_model(point)(latents)
    (scene.depth_z.mean() + scene.camera_to_world.sum() + scene.world_points.mean()).backward()
    assert latents.grad is not None
    assert latents.grad.isfinite().all()
    assert (latents.grad.abs().amax(dim=(0, 1, 3, 4)) > 0).all()


class TestSaving:
    @pytest.mark.parametrize("point", POINTS)
    def test_round_trip_is_exact(
        self, make_model: MakeModel, make_clips: MakeClips, tmp_path: Path, point: str
    ) -> None:
        model = make_model(point)
        model.save_pretrained(tmp_path / "lgm")
        loaded = LatentGeometryModel.from_pretrained(tmp_path / "lgm")
        latents, _ = make_clips(2, 3)
        with torch.no_grad():
            assert_same(loaded(latents), model(latents))
        assert (loaded.stitch_point, loaded.latent_spec) == (point, model.latent_spec)
        assert (loaded.video_model, loaded.geometry_model) == ("tiny-video", "tiny-geometry")
        assert loaded.adaptation == {"trainable": "none"}
        assert loaded.trainable_parameters() == {}
        assert not loaded.training

    def test_config_says_what_the_model_is(self, make_model: MakeModel, tmp_path: Path) -> None:
        model = make_model("E1")
        model.add_lora(rank=4, alpha=2)
        model.save_pretrained(tmp_path / "lgm")
        config = json.loads((tmp_path / "lgm" / "config.json").read_text())
        assert config["format_version"] == 1
        assert config["stitch_point"] == "E1"
        assert config["view_stride"] == 4
        assert config["latent_spec"]["fingerprint"] == model.latent_spec.fingerprint
        assert config["adaptation"] == {"trainable": "lora", "rank": 4, "alpha": 2}
        assert config["connector"]["grid"] == [3, 4]

    def test_lora_is_merged(self, make_model: MakeModel, make_clips: MakeClips, tmp_path: Path) -> None:
        model = make_model("E1")
        latents, _ = make_clips(2, 3)
        with torch.no_grad():
            untrained = model(latents)
            model.add_lora(rank=3, alpha=6)
            assert_same(model(latents), untrained)
            for name, parameter in model.trainable_parameters().items():
                if "lora_B" in name:
                    parameter.copy_(0.05 * torch.randn(parameter.shape))
            trained = model(latents)
            model.save_pretrained(tmp_path / "lgm")
            assert_same(model(latents), trained)  # saving leaves the model in training as it was
            loaded = LatentGeometryModel.from_pretrained(tmp_path / "lgm")(latents)
        assert (trained.depth_z - untrained.depth_z).abs().max() > 1e-3
        for name, value in trained.as_dict().items():
            torch.testing.assert_close(loaded.as_dict()[name], value, rtol=1e-4, atol=1e-5, msg=name)

    def test_a_loaded_model_can_be_trained_further(self, make_model: MakeModel, tmp_path: Path) -> None:
        model = make_model()
        model.add_lora(rank=2, alpha=2)
        model.save_pretrained(tmp_path / "lgm")
        loaded = LatentGeometryModel.from_pretrained(tmp_path / "lgm")
        loaded.add_lora(rank=2, alpha=2)
        assert loaded.trainable_parameters().keys() == model.trainable_parameters().keys()

    def test_existing_folder(self, make_model: MakeModel, tmp_path: Path) -> None:
        make_model().save_pretrained(tmp_path / "lgm")
        with pytest.raises(FileExistsError, match="exists already"):
            make_model("F").save_pretrained(tmp_path / "lgm")
        make_model("F").save_pretrained(tmp_path / "lgm", replace=True)
        assert LatentGeometryModel.from_pretrained(tmp_path / "lgm").stitch_point == "F"

    def test_no_model_there(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"holds no latent geometry model.*train-lgm"):
            LatentGeometryModel.from_pretrained(tmp_path / "nowhere")

    @pytest.mark.parametrize("file", ["connector.safetensors", "geometry/model.safetensors"])
    def test_damaged_weights(self, make_model: MakeModel, tmp_path: Path, file: str) -> None:
        make_model().save_pretrained(tmp_path / "lgm")
        path = tmp_path / "lgm" / file
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        with pytest.raises(CorruptFileError, match=path.name):
            LatentGeometryModel.from_pretrained(tmp_path / "lgm")

    def test_newer_format(self, make_model: MakeModel, tmp_path: Path) -> None:
        make_model().save_pretrained(tmp_path / "lgm")
        path = tmp_path / "lgm" / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 2}))
        write_manifest(tmp_path / "lgm")
        with pytest.raises(ValueError, match=r"format version 2, but this version of vggrpo reads 1"):
            LatentGeometryModel.from_pretrained(tmp_path / "lgm")


class TestTraining:
    @pytest.mark.parametrize("point", POINTS)
    def test_lora_is_on_every_remaining_linear_and_convolution(
        self, make_model: MakeModel, point: str
    ) -> None:
        model = make_model(point)
        layers = {name for name, m in model.backbone.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
        model.add_lora(rank=2, alpha=4)
        trained = model.trainable_parameters()
        assert {name.partition(".lora_")[0] for name in trained if ".lora_" in name} == {
            f"backbone.{name}" for name in layers
        }
        others = {name for name in trained if ".lora_" not in name}
        assert others == {"connector.conv.weight", "connector.conv.bias", "connector.special_tokens"}

    def test_lora_draws_from_its_seed_alone(self, make_model: MakeModel) -> None:
        state = torch.get_rng_state()
        models = [make_model() for _ in range(3)]
        for model, seed in zip(models, (1, 1, 2), strict=True):
            torch.manual_seed(seed * 17)
            before = torch.get_rng_state()
            model.add_lora(rank=2, alpha=4, seed=seed)
            assert torch.equal(torch.get_rng_state(), before)
        torch.set_rng_state(state)
        first, same, other = (
            torch.cat([p.flatten() for p in m.trainable_parameters().values()]) for m in models
        )
        assert torch.equal(first, same)
        assert not torch.equal(first, other)

    def test_train_all(self, make_model: MakeModel) -> None:
        model = make_model()
        model.train_all()
        assert model.trainable_parameters().keys() == dict(model.named_parameters()).keys()
        assert model.adaptation == {"trainable": "full"}

    def test_parameter_groups(self, make_model: MakeModel) -> None:
        model = make_model()
        model.add_lora(rank=2, alpha=4)
        connector, rest = model.parameter_groups(lr=3e-4, connector_lr=1e-5)
        assert (connector["name"], connector["lr"]) == ("connector", 1e-5)
        assert (rest["name"], rest["lr"]) == ("backbone", 3e-4)
        assert {id(p) for p in connector["params"]} == {id(p) for p in model.connector.parameters()}
        assert len(connector["params"]) + len(rest["params"]) == len(model.trainable_parameters())
        torch.optim.AdamW([connector, rest])

    @pytest.mark.parametrize(("how", "lr"), [("lora", 3e-3), ("full", 3e-4)])
    def test_distillation_brings_the_student_closer(
        self, backbone: GeometryBackbone, make_model: MakeModel, make_clips: MakeClips, how: str, lr: float
    ) -> None:
        model = make_model("E2")
        if how == "lora":
            model.add_lora(rank=4, alpha=8)
        else:
            model.train_all()
        latents, frames = make_clips(1, 5)
        with torch.no_grad():
            teacher = backbone(frames)
        optimizer = torch.optim.AdamW(model.parameter_groups(lr, connector_lr=1e-4), weight_decay=0)
        losses = []
        for _ in range(12):
            loss, _ = distillation_loss(model(latents), teacher)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.5 * losses[0]

    def test_nothing_to_train(self, make_model: MakeModel) -> None:
        with pytest.raises(ValueError, match="add_lora or train_all"):
            make_model().parameter_groups(lr=1e-3, connector_lr=1e-5)

    def test_lora_twice(self, make_model: MakeModel) -> None:
        model = make_model()
        model.add_lora(rank=2, alpha=4)
        with pytest.raises(ValueError, match="has LoRA already"):
            model.add_lora(rank=2, alpha=4)

    @pytest.mark.parametrize(("rank", "alpha"), [(0, 4.0), (2, 0.0)])
    def test_no_rank(self, make_model: MakeModel, rank: int, alpha: float) -> None:
        with pytest.raises(ValueError, match="must be above 0"):
            make_model().add_lora(rank=rank, alpha=alpha)


class TestLatents:
    def test_right_autoencoder(self, make_model: MakeModel, latent_spec: LatentSpec) -> None:
        make_model().check_latents(replace(latent_spec))

    def test_another_autoencoder(self, make_model: MakeModel, latent_spec: LatentSpec) -> None:
        other = replace(latent_spec, fingerprint="f" * 64)
        message = r"tiny-video \(autoencoder 0123456789ab, .* but wan9 has another .*ffffffffffff.*train-lgm"
        with pytest.raises(ValueError, match=message):
            make_model().check_latents(other, "wan9")

    def test_other_channels(self, make_model: MakeModel) -> None:
        with pytest.raises(ValueError, match=r"\[B, 3, T, H, W\]"):
            make_model()(torch.zeros(1, 16, 3, 6, 8))


class TestConnectorThatDoesNotFit:
    def test_unknown_point(self, backbone: GeometryBackbone, latent_spec: LatentSpec) -> None:
        with pytest.raises(ValueError, match="'E7', but this geometry model has E0, E1, E2, F"):
            LatentGeometryModel(backbone, Connector(3, 16, (3, 4), 1), "E7", latent_spec, "v", "g")

    @pytest.mark.parametrize(("width", "specials", "point"), [(8, 1, "E0"), (16, 0, "E0"), (16, 1, "F")])
    def test_tokens(
        self, backbone: GeometryBackbone, latent_spec: LatentSpec, width: int, specials: int, point: str
    ) -> None:
        with pytest.raises(
            ValueError, match=f"tokens of width {width} with {specials} special ones, but {point}"
        ):
            LatentGeometryModel(backbone, Connector(3, width, (3, 4), specials), point, latent_spec, "v", "g")

    def test_position_of_view_0(self, backbone: GeometryBackbone, latent_spec: LatentSpec) -> None:
        connector = Connector(3, 16, (3, 4), 1, reference_patches=True)
        with pytest.raises(ValueError, match="E0 needs a positional part for view 0 that is like that of"):
            LatentGeometryModel(backbone, connector, "E0", latent_spec, "v", "g")

    def test_channels(self, backbone: GeometryBackbone, latent_spec: LatentSpec) -> None:
        with pytest.raises(ValueError, match="reads 5 channels, but the latents of v have 3"):
            LatentGeometryModel(backbone, Connector(5, 16, (3, 4), 1), "E0", latent_spec, "v", "g")
