"""Published checkpoints of both networks: their names and shapes, the report on them, and files that are
wrong."""

import pickle
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file, save_file
from torch._subclasses.fake_tensor import FakeTensorMode

from vggrpo.backbones import load_geometry_backbone, weight_report
from vggrpo.backbones.any4d import Any4D, Any4DConfig
from vggrpo.backbones.checkpoint import read_checkpoint
from vggrpo.backbones.network_backbone import NetworkBackbone
from vggrpo.backbones.vggt import VGGT, VGGTConfig
from vggrpo.config.errors import ConfigError, CorruptFileError

NETWORKS: dict[str, type[NetworkBackbone]] = {"any4d": Any4D, "vggt": VGGT}

OFFICIAL_SHAPES = {
    "any4d": {
        "scale_token": (1024,),
        "encoder.model.cls_token": (1, 1, 1024),
        "encoder.model.pos_embed": (1, 1 + 37 * 37, 1024),
        "encoder.model.patch_embed.proj.weight": (1024, 3, 14, 14),
        "encoder.model.blocks.0.attn.qkv.weight": (3072, 1024),
        "encoder.model.blocks.23.ls2.gamma": (1024,),
        "info_sharing.proj_embed.weight": (768, 1024),
        "info_sharing.view_pos_table": (1, 768),
        "info_sharing.self_attention_blocks.0.attn.qkv.weight": (2304, 768),
        "dpt_feature_head.input_process.0.0.0.weight": (96, 1024, 1, 1),
        "dpt_feature_head.input_process.0.0.1.weight": (96, 96, 4, 4),
        "dpt_feature_head.scratch.refinenet1.resConfUnit1.conv1.weight": (256, 256, 3, 3),
        "dpt_regressor_head.conv2.2.weight": (6, 128, 1, 1),
        "scene_flow_dpt_regressor_head.conv2.2.weight": (3, 128, 1, 1),
        "pose_head.res_conv.0.res_conv1.weight": (784, 784, 1, 1),
        "pose_head.fc_rot.weight": (4, 784),
        "scale_head.output_proj.weight": (1, 196),
    },
    "vggt": {
        "aggregator.camera_token": (1, 2, 1, 1024),
        "aggregator.register_token": (1, 2, 4, 1024),
        "aggregator.patch_embed.register_tokens": (1, 4, 1024),
        "aggregator.patch_embed.pos_embed": (1, 1 + 37 * 37, 1024),
        "aggregator.patch_embed.blocks.23.mlp.fc2.weight": (1024, 4096),
        "aggregator.frame_blocks.0.attn.q_norm.weight": (64,),
        "aggregator.frame_blocks.0.ls1.gamma": (1024,),
        "aggregator.global_blocks.23.attn.qkv.weight": (3072, 1024),
        "camera_head.empty_pose_tokens": (1, 1, 9),
        "camera_head.poseLN_modulation.1.weight": (6144, 2048),
        "camera_head.trunk.3.attn.qkv.weight": (6144, 2048),
        "camera_head.pose_branch.fc1.weight": (1024, 2048),
        "camera_head.pose_branch.fc2.weight": (9, 1024),
        "depth_head.norm.weight": (2048,),
        "depth_head.projects.0.weight": (256, 2048, 1, 1),
        "depth_head.resize_layers.0.weight": (256, 256, 4, 4),
        "depth_head.resize_layers.1.weight": (512, 512, 2, 2),
        "depth_head.resize_layers.3.weight": (1024, 1024, 3, 3),
        "depth_head.scratch.layer4_rn.weight": (256, 1024, 3, 3),
        "depth_head.scratch.output_conv1.weight": (128, 256, 3, 3),
        "depth_head.scratch.output_conv2.0.weight": (32, 128, 3, 3),
        "depth_head.scratch.output_conv2.2.weight": (2, 32, 1, 1),
        "point_head.scratch.output_conv2.2.weight": (4, 32, 1, 1),
    },
}


def unused_by_any4d() -> dict[str, torch.Size]:
    """The published parts that read rays, depth, flow and cameras: UniCeption's encoders at their own widths.

    Dense inputs are folded to 1/14 of their sides, 196 pixels a channel.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for part, channels in (("ray_dirs", 3), ("depth", 1), ("scene_flow", 3)):
        weights = {
            "conv_in": (588, 196 * channels, 3, 3),
            "encoder.0.conv1": (768, 588, 3, 3),
            "encoder.0.conv2": (768, 768, 3, 3),
            "encoder.0.shortcut": (768, 588, 1, 1),
            "encoder.1.conv1": (1024, 768, 3, 3),
            "encoder.1.conv2": (1024, 1024, 3, 3),
            "encoder.1.shortcut": (1024, 768, 1, 1),
            "encoder.2": (1024, 1024, 1, 1),
            "norm_layer": (1024,),
        }
        shapes |= {f"{part}_encoder.{layer}.weight": shape for layer, shape in weights.items()}
    for part, channels in (("depth_scale", 1), ("cam_rot", 4), ("cam_trans", 3), ("cam_trans_scale", 1)):
        weights = {
            "encoder.0.0.0.0": (128, channels),
            "encoder.0.0.1": (256, 128),
            "encoder.0.1": (512, 256),
            "encoder.1": (1024, 512),
            "norm_layer": (1024,),
        }
        shapes |= {f"{part}_encoder.{layer}.weight": shape for layer, shape in weights.items()}
    biases = {name.removesuffix("weight") + "bias": shape[:1] for name, shape in shapes.items()}
    return {name: torch.Size(shape) for name, shape in (shapes | biases).items()}


@pytest.fixture(params=["any4d", "vggt"])
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def record(name: str, request: pytest.FixtureRequest):
    """The upstream record of the network."""
    return request.getfixturevalue("upstream" if name == "any4d" else "vggt_upstream")


@pytest.fixture
def state(record) -> dict[str, torch.Tensor]:
    return load_file(record.checkpoint)


def assert_same_weights(model: NetworkBackbone, other: NetworkBackbone) -> None:
    own, theirs = model.state_dict(), other.state_dict()
    assert own.keys() == theirs.keys()
    assert all(torch.equal(own[key], theirs[key]) for key in own)


class TestOfficialSize:
    def test_the_keys_have_the_published_shapes(self, name: str) -> None:
        network = NETWORKS[name]
        model = network.on_meta(network.config_type.official())
        key_map = network.key_map(model.config)
        shapes = {key_map.upstream_key(key): value.shape for key, value in model.network.state_dict().items()}
        for key, shape in OFFICIAL_SHAPES[name].items():
            assert shapes[key].numel() == torch.Size(shape).numel(), key
            assert [side for side in shapes[key] if side > 1] == [side for side in shape if side > 1], key

    def test_any4d_has_the_published_number_of_tensors(self) -> None:
        """882, less those of the encoders of other inputs: 10 in each of four, 18 in each of three."""
        assert len(Any4D.on_meta(Any4DConfig.official()).network.state_dict()) == 882 - 4 * 10 - 3 * 18

    def test_any4d_has_the_published_number_of_parameters_with_the_parts_that_are_left_aside(self) -> None:
        """613.65 million, of which images alone need 519.07."""
        model = Any4D.on_meta(Any4DConfig.official())
        live = sum(parameter.numel() for parameter in model.parameters())
        assert live == 519_071_553
        unused = unused_by_any4d()
        assert live + sum(shape.numel() for shape in unused.values()) == 613_651_829

        key_map = Any4D.key_map(model.config)
        own = {key_map.upstream_key(key): value for key, value in model.network.state_dict().items()}
        others = {name: torch.empty(shape, device="meta") for name, shape in unused.items()}
        keys = Any4D.compare_checkpoint(own | others)
        assert keys.fits, keys.problems
        assert keys.num_read == 882
        assert {name for names in keys.unused.values() for name in names} == unused.keys()

    def test_a_clip_of_the_papers_raster_passes_through(self, name: str) -> None:
        """480x832 in latents of 60x104, so 30x52 patches. Shapes only: fake tensors compute nothing."""
        network = NETWORKS[name]
        with FakeTensorMode():
            model = network(network.config_type.official())
            prediction = model.network.predict(torch.rand(2, 3, 30 * 14, 52 * 14, 3))
        assert prediction.log_depth.shape == (2, 3, 420, 728)
        assert prediction.quat_xyzw.shape == (2, 3, 4)

    def test_vggt_has_the_published_number_of_parameters(self) -> None:
        model = VGGT.on_meta(VGGTConfig.official())
        count = {n: sum(p.numel() for p in m.parameters()) for n, m in model.network.named_children()}
        mask_token = 1024  # stands for hidden patches in the encoder's training; no network here has it
        assert count["encoder"] + mask_token == 304_372_736
        millions = {key: value / 1e6 for key, value in count.items()}
        # A published figure of 909.11 counts the encoder to the aggregator.
        assert millions["encoder"] + millions["aggregator"] == pytest.approx(909.11, abs=0.006)
        assert millions["camera_head"] == pytest.approx(216.18, abs=0.006)
        assert millions["depth_head"] == pytest.approx(32.66, abs=0.006)
        assert millions["point_head"] == pytest.approx(32.66, abs=0.006)
        assert sum(count.values()) + mask_token == 1_190_596_120


class TestReport:
    def test_of_a_whole_checkpoint(self, name: str, record, state) -> None:
        report = weight_report(record.checkpoint, record.config)
        assert (report.network, report.fits) == (name, True)
        assert report.keys.num_read == len(state)
        assert report.keys.num_used_elements == sum(
            value.numel() for value in record.model().network.state_dict().values()
        )
        text = "\n".join(report.lines())
        assert f"{record.checkpoint}: {name}" in text
        assert "everything fits" in text

    def test_every_upstream_parameter_is_accounted_for(self, name: str, record) -> None:
        keys = weight_report(record.checkpoint, record.config).keys
        unused = sum(sum(names.values()) for names in keys.unused.values())
        code = record.config.multi_view_dim if name == "any4d" else 0  # upstream's code is no parameter
        unique = {"any4d": 576_272, "vggt": 484_056}
        assert keys.num_used_elements + unused - code == unique[name]
        assert keys.num_aliases == {"any4d": 152, "vggt": 0}[name]
        expected = {
            "any4d": {"ray_dirs_encoder.", "depth_encoder.", "scene_flow_encoder.", "depth_scale_encoder."}
            | {"cam_rot_encoder.", "cam_trans_encoder.", "cam_trans_scale_encoder."},
            "vggt": {"aggregator.patch_embed.mask_token"},
        }
        assert keys.unused.keys() == expected[name]

    def test_the_parts_that_any4d_leaves_aside_are_named_as_upstreams(self, upstream) -> None:
        prefixes = tuple(weight_report(upstream.checkpoint, upstream.config).keys.unused)
        found = {key for key in load_file(upstream.checkpoint) if key.startswith(prefixes)}
        assert found == unused_by_any4d().keys()

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_becomes_the_networks_own(
        self, name: str, record, state, tmp_path: Path, dtype: torch.dtype
    ) -> None:
        half = {key: value.to(dtype) for key, value in state.items()}
        save_file(half, tmp_path / "half.safetensors")
        report = weight_report(tmp_path / "half.safetensors", record.config)
        assert report.fits
        number = len(record.model().network.state_dict())
        word = str(dtype).removeprefix("torch.")
        assert f"{number} tensors are {word} in the file, and become float32" in "\n".join(report.lines())
        model = NETWORKS[name].from_upstream(tmp_path / "half.safetensors", record.config)
        assert {value.dtype for value in model.state_dict().values()} == {torch.float32}
        for key, value in record.model().state_dict().items():
            assert torch.equal(model.state_dict()[key], value.to(dtype).float()), key
        assert model(record.frames).depth_z.isfinite().all()
        model.save_pretrained(tmp_path / "ours")
        tensors = load_file(tmp_path / "ours" / "model.safetensors")
        save_file(
            {key: value.to(dtype) for key, value in tensors.items()}, tmp_path / "ours/model.safetensors"
        )
        assert_same_weights(NETWORKS[name].from_pretrained(tmp_path / "ours"), model)

    def test_whole_numbers_are_no_weights(self, record, state, tmp_path: Path) -> None:
        first = next(key for key in state if key.endswith("mlp.fc1.weight"))
        state[first] = state[first].to(torch.int32)
        save_file(state, tmp_path / "weights.safetensors")
        report = weight_report(tmp_path / "weights.safetensors", record.config)
        assert report.lines()[-1].endswith(f"does not fit: {first} holds int32, no floating-point numbers")

    def test_what_does_not_fit_is_named(self, record, state, tmp_path: Path) -> None:
        first, second, *_ = (key for key in state if key.endswith("mlp.fc1.weight"))
        del state[first]
        state[second] = torch.zeros(7, 3)
        state["surprise"] = torch.zeros(1)
        save_file(state, tmp_path / "weights.safetensors")
        report = weight_report(tmp_path / "weights.safetensors", record.config)
        assert not report.fits
        assert report.keys.missing == {first}
        assert report.keys.misshapen.keys() == {second}
        assert list(report.keys.unknown) == ["surprise"]
        last = report.lines()[-1]
        assert f"{first} is missing" in last
        assert f"{second} is [7, 3] where" in last
        assert "surprise is unknown" in last

    def test_of_a_checkpoint_of_other_dimensions(self, record) -> None:
        report = weight_report(record.checkpoint)
        assert not report.fits
        assert "; and " in report.lines()[-1]

    def test_vggts_tracker_is_left_aside(self, vggt_upstream, vggt: VGGT, tmp_path: Path) -> None:
        state = load_file(vggt_upstream.checkpoint) | {"track_head.tracker.weight": torch.zeros(3, 5)}
        save_file(state, tmp_path / "weights.safetensors")
        report = weight_report(tmp_path / "weights.safetensors", vggt_upstream.config)
        assert report.fits
        assert report.keys.unused["track_head."] == {"track_head.tracker.weight": 15}
        assert_same_weights(VGGT.from_upstream(tmp_path / "weights.safetensors", vggt_upstream.config), vggt)


class Exploit:
    """Pickled, it creates a file when it is unpickled."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self):
        return (Path.touch, (self.victim,))


class TestWrongFiles:
    @pytest.mark.parametrize("how", ["torch", "pickle"])
    def test_code_in_a_file_is_not_run(self, name: str, record, tmp_path: Path, how: str) -> None:
        victim, path = tmp_path / "victim", tmp_path / "model.pt"
        content = {"model": {"weight": torch.zeros(2)}, "extra": Exploit(victim)}
        if how == "torch":
            torch.save(content, path)
        else:
            path.write_bytes(pickle.dumps(content, protocol=2))
        with pytest.raises(
            CorruptFileError, match=r"model\.pt cannot be read as a PyTorch checkpoint of plain"
        ):
            NETWORKS[name].from_upstream(path, record.config)
        with pytest.raises(CorruptFileError, match=r"model\.pt cannot be read"):
            weight_report(path, record.config)
        assert not victim.exists()

    @pytest.mark.parametrize("kind", ["text", "page", "numbers", "legacy", "zip", "exploit"])
    def test_what_is_no_checkpoint_gets_one_sentence_of_ours(self, tmp_path: Path, kind: str) -> None:
        """torch's own text is many lines, and advises to read the file without its protection."""
        path, content = tmp_path / "model.pth", {"model": {"a.weight": torch.zeros(4, 4)}, "epoch": 3}
        if kind in ("legacy", "zip"):
            torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
            data = path.read_bytes()
            # A length, a name, an opcode: each byte is another way in which the reader fails.
            places = range(0, len(data), 7)
            wrong = [data[:place] + b"\xe7" + data[place + 1 :] for place in places]
        elif kind == "exploit":
            torch.save(content | {"extra": Exploit(tmp_path / "victim")}, path)
            wrong = [path.read_bytes()]
        else:
            wrong = {
                "text": [b"hello world\n", b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n"],
                "page": [b"<!DOCTYPE html><html><body>Not found</body></html>"],
                "numbers": [bytes([byte]) * 40 for byte in range(256)],
            }[kind]
        sentences: list[str] = []
        for data in wrong:
            path.write_bytes(data)
            try:
                read_checkpoint(path)  # a damaged value of an old file shows nowhere
            except CorruptFileError as error:
                sentences.append(str(error))
        assert len(sentences) == len(wrong) or (kind in ("legacy", "zip") and len(sentences) > 10)
        for sentence in sentences:
            assert "\n" not in sentence
            assert "weights_only" not in sentence
            assert "model.pth" in sentence
        assert not (tmp_path / "victim").exists()

    def test_a_file_that_may_not_be_read_is_not_called_damaged(self, tmp_path: Path, monkeypatch) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        (tmp_path / "model.pth").write_bytes(b"x")
        monkeypatch.setattr(torch, "load", refuse)
        with pytest.raises(PermissionError):
            read_checkpoint(tmp_path / "model.pth")

    @pytest.mark.parametrize("suffix", ["pt", "safetensors"])
    @pytest.mark.parametrize("kept", [0.0, 0.3, 0.999])
    def test_a_truncated_file(
        self, name: str, record, state, tmp_path: Path, suffix: str, kept: float
    ) -> None:
        path = tmp_path / f"model.{suffix}"
        torch.save(state, path) if suffix == "pt" else save_file(state, path)
        content = path.read_bytes()
        path.write_bytes(content[: int(kept * len(content))])
        with pytest.raises(CorruptFileError, match=rf"model\.{suffix}"):
            NETWORKS[name].from_upstream(path, record.config)

    def test_a_bit_that_flipped(self, name: str, record, state, tmp_path: Path) -> None:
        """PyTorch's files carry checksums of their tensors, at which torch does not look."""
        path = tmp_path / "model.pt"
        torch.save(state, path)
        content = bytearray(path.read_bytes())
        largest = max(state.values(), key=torch.Tensor.numel)
        content[content.index(largest.numpy().tobytes()) + 5] ^= 1
        path.write_bytes(content)
        with pytest.raises(CorruptFileError, match=r"model\.pt cannot be read"):
            NETWORKS[name].from_upstream(path, record.config)

    def test_another_networks_checkpoint(self, name: str, upstream, vggt_upstream) -> None:
        other = vggt_upstream if name == "any4d" else upstream
        title = NETWORKS[name].config_type.title
        message = (
            f"is not {title} of these dimensions: none of its .* tensors has a name that the network needs"
        )
        with pytest.raises(CorruptFileError, match=message):
            NETWORKS[name].from_upstream(other.checkpoint)

    def test_no_networks_checkpoint(self, tmp_path: Path) -> None:
        save_file({"decoder.weight": torch.zeros(2)}, tmp_path / "weights.safetensors")
        message = r"weights\.safetensors holds no network that is known here: none of its 1 tensors .* vggt"
        with pytest.raises(ConfigError, match=message):
            load_geometry_backbone(tmp_path / "weights.safetensors")
        with pytest.raises(ConfigError, match=message):
            weight_report(tmp_path / "weights.safetensors")


class TestLoadingByPath:
    """With official dimensions shrunk to the record's: the way a user's file is loaded."""

    @pytest.fixture(autouse=True)
    def _official_is_tiny(self, upstream, vggt_upstream, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Any4DConfig, "official", classmethod(lambda cls: upstream.config))
        monkeypatch.setattr(VGGTConfig, "official", classmethod(lambda cls: vggt_upstream.config))

    def test_a_file(self, name: str, record) -> None:
        loaded = load_geometry_backbone(record.checkpoint)
        assert type(loaded) is NETWORKS[name]
        assert_same_weights(loaded, record.model())
        assert not loaded.training
        assert not any(parameter.requires_grad for parameter in loaded.parameters())

    @pytest.mark.parametrize("wrapped", [False, True])
    def test_a_pytorch_file(self, name: str, record, state, tmp_path: Path, wrapped: bool) -> None:
        torch.save({"model": state, "epoch": 3} if wrapped else state, tmp_path / "weights.pt")
        assert_same_weights(load_geometry_backbone(str(tmp_path / "weights.pt")), record.model())

    def test_a_copy_of_the_published_repository(self, name: str, record, state, tmp_path: Path) -> None:
        if name == "any4d":
            torch.save({"model": state}, tmp_path / "any4d_4v_combined.pth")
        else:  # beside a configuration that is not ours
            (tmp_path / "config.json").write_text('{"img_size": 518, "patch_size": 14, "embed_dim": 1024}')
            save_file(state, tmp_path / "model.safetensors")
        assert_same_weights(load_geometry_backbone(tmp_path), record.model())
        assert weight_report(tmp_path).fits

    def test_our_own_folder(self, name: str, record, tmp_path: Path) -> None:
        model = record.model()
        model.drop_before("E2")
        model.save_pretrained(tmp_path)
        loaded = load_geometry_backbone(tmp_path)
        assert type(loaded) is NETWORKS[name]
        assert loaded.dropped_before == "E2"
        assert_same_weights(loaded, model)

    def test_the_report_on_our_own_folder(self, name: str, record, tmp_path: Path) -> None:
        model = record.model()
        model.drop_before("E2")
        model.save_pretrained(tmp_path)
        for place in (tmp_path, tmp_path / "model.safetensors"):
            report = weight_report(place)
            assert (report.network, report.fits) == (name, True)
            assert report.keys.num_used_elements == sum(t.numel() for t in model.state_dict().values())
        assert_same_weights(load_geometry_backbone(tmp_path / "model.safetensors"), model)
        tensors = load_file(tmp_path / "model.safetensors")
        missing = min(tensors)
        save_file(
            {key: value for key, value in tensors.items() if key != missing}, tmp_path / "model.safetensors"
        )
        assert f"does not fit: {missing} is missing" in weight_report(tmp_path).lines()[-1]

    def test_a_folder_that_says_another_network(self, record, name: str, tmp_path: Path) -> None:
        record.model().save_pretrained(tmp_path)
        other = VGGT if name == "any4d" else Any4D
        with pytest.raises(CorruptFileError, match=f'"model_type": "{other.config_type.model_type}"'):
            other.from_pretrained(tmp_path)

    def test_a_folder_without_weights(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"holds no geometry model, nor .*any4d_4v_combined\.pth"):
            load_geometry_backbone(tmp_path)

    @pytest.mark.parametrize(
        ("repository", "file"),
        [
            ("airlabshare/any4d-checkpoint", "any4d_4v_combined.pth"),
            ("facebook/VGGT-1B@0123abc", "model.safetensors"),
            ("someone/any4d-finetuned", "any4d_4v_combined.pth"),
            ("someone/vggt-finetuned@v2", "model.pt"),
            ("someone/vggt-finetuned", "model.safetensors"),
            ("someone/ours@main", "model.safetensors"),
        ],
    )
    def test_a_repository(
        self, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch, repository: str, file: str
    ) -> None:
        """The hub is a folder; what is fetched is named by repository, file and revision."""
        record = request.getfixturevalue("upstream" if "any4d" in repository else "vggt_upstream")
        if "ours" in repository:
            record.model().save_pretrained(tmp_path)
        elif file == "model.safetensors":
            save_file(load_file(record.checkpoint), tmp_path / file)
        else:
            torch.save({"model": load_file(record.checkpoint)}, tmp_path / file)
        asked = []

        def fetch(repo_id: str, filename: str, revision: str | None = None) -> str:
            asked.append((repo_id, filename, revision))
            if not (tmp_path / filename).is_file():
                raise LocalEntryNotFoundError(f"no {filename}")
            return str(tmp_path / filename)

        monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
        assert_same_weights(load_geometry_backbone(repository), record.model())
        name, _, revision = repository.partition("@")
        assert (name, file, revision or None) in asked
        assert {(repo, rev) for repo, _, rev in asked} == {(name, revision or None)}

    def test_a_repository_that_cannot_be_fetched(self) -> None:
        for repository in ("facebook/VGGT-1B@0123abc", "airlabshare/any4d-checkpoint@0123abc", "a/b@0123abc"):
            with pytest.raises(FileNotFoundError, match=f"repository {repository} cannot be fetched"):
                load_geometry_backbone(repository)
