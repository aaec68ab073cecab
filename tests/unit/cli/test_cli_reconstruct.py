"""`vggrpo reconstruct` through the entry point, on tiny models with random weights."""

import math
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from tiny_models import tiny_any4d_config, tiny_vggt
from vggrpo.backbones import load_geometry_backbone, load_video_backbone
from vggrpo.backbones.any4d import Any4D
from vggrpo.cli.main import main
from vggrpo.geometry import SceneGeometry, median_depth, static_mask_from_flow
from vggrpo.io import load_tensors, read_video, save_tensors, write_json, write_video
from vggrpo.lgm import Connector, LatentGeometryModel
from vggrpo.rewards import ReprojectionReward
from vggrpo.viewer import Scene4D, depth_colours, load_scene
from vggrpo.world import render_clips, sample_scene

SIDE, FRAMES = 16, 9


@pytest.fixture(scope="module")
def models(tiny_pipeline, tmp_path_factory) -> Path:
    """A folder with a recipe of the tiny pipeline, a `geometry` model, a `vggt`, and an `lgm`."""
    folder = tmp_path_factory.mktemp("models")
    reprojection = {"relative": True, "flow_threshold": 0.05}
    settings = {"base_model": str(tiny_pipeline), "rewards": {"reprojection": reprojection}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(settings))
    torch.manual_seed(0)
    geometry = Any4D(tiny_any4d_config())
    geometry.reset_parameters(depth=3.0, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():  # so that its rays fan out
        for parameter in geometry.network.dense_head.parameters():
            parameter.add_(torch.randn(parameter.shape), alpha=0.05)
    for name, model in (("geometry", geometry), ("vggt", tiny_vggt())):
        (folder / name).mkdir()
        model.save_pretrained(folder / name)
    point = geometry.stitch_point("E1")
    connector = Connector(4, point.width, (2, 2), point.num_special_tokens)
    spec = load_video_backbone(tiny_pipeline).latent_spec
    lgm = LatentGeometryModel(geometry, connector, "E1", spec, str(tiny_pipeline), "tiny")
    lgm.save_pretrained(folder / "lgm")
    return folder


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    clips = render_clips([sample_scene("validation", 3)], height=SIDE, width=SIDE, num_frames=FRAMES)
    write_video(path, (clips.frames[0] * 255).round().to(torch.uint8), 8.0)
    write_json(path.with_suffix(".json"), {"prompt": clips.captions[0], "seed": 0})
    return path


@pytest.fixture(scope="module")
def latents(models, video, tiny_pipeline, tmp_path_factory) -> Path:
    """As `vggrpo generate --save-latents` writes them."""
    path = tmp_path_factory.mktemp("latents") / "clip.safetensors"
    backbone = load_video_backbone(tiny_pipeline)
    record = {"prompt": "a red box", "fps": 24.0, "model": {"autoencoder": backbone.latent_spec.fingerprint}}
    save_tensors(path, {"latents": backbone.encode_video(frames_of(video))[0]}, record)
    return path


@pytest.fixture
def reconstruct(models, tmp_path):
    def run(*words: object) -> int:
        words = ("--recipe", models / "recipe.yaml", "--output", tmp_path / "out", *words)
        return main(["reconstruct", *map(str, words)])

    return run


def frames_of(video: Path) -> torch.Tensor:
    return torch.from_numpy(read_video(video)[0])[None].float() / 255


def written(tmp_path: Path) -> Scene4D:
    return load_scene(tmp_path / "out" / "scene.safetensors")


def assert_geometry(scene: Scene4D, expected: SceneGeometry) -> None:
    for name, tensor in expected.as_dict().items():
        torch.testing.assert_close(scene.geometry.as_dict()[name], tensor, msg=name)


@torch.no_grad()
def test_a_video_is_encoded_for_the_latent_geometry_model(
    reconstruct, models, video, tiny_pipeline, tmp_path, capsys
):
    assert reconstruct(video, "--lgm-path", models / "lgm") == 0
    printed = capsys.readouterr().out
    assert "3 views of 16x16 pixels" in printed
    scene = written(tmp_path)
    assert f"camera_motion: {scene.rewards['camera_motion'].value:.4f}" in printed
    expected = LatentGeometryModel.from_pretrained(models / "lgm")(
        load_video_backbone(tiny_pipeline).encode_video(frames_of(video))
    )
    assert_geometry(scene, expected)
    pixels = torch.from_numpy(read_video(video)[0])
    assert torch.equal(scene.colours, pixels[::4])
    assert (scene.fps, scene.frame_indices, scene.label) == (8.0, (0, 4, 8), "clip")
    assert scene.prompt == render_clips([sample_scene("validation", 3)], num_frames=1).captions[0]
    assert scene.source["model_sees"] == "latents"

    threshold = 0.05 * median_depth(expected.depth_z)
    assert torch.equal(scene.geometry.static_mask, static_mask_from_flow(expected, threshold))
    reward = ReprojectionReward(relative=True, flow_threshold=0.05)(expected)
    assert scene.rewards["reprojection"].value == pytest.approx(float(reward.value))
    assert scene.rewards["reprojection"].parts["overlap"] == pytest.approx(
        reward.parts["overlap"][0].tolist()
    )


@torch.no_grad()
def test_latents_need_no_video_model(reconstruct, models, latents, tmp_path):
    recipe = models / "elsewhere.yaml"
    recipe.write_text("base_model: /there/is/no/such/folder\n")
    assert reconstruct(latents, "--recipe", recipe, "--lgm-path", models / "lgm", "--no-decode") == 0
    scene = written(tmp_path)
    model = LatentGeometryModel.from_pretrained(models / "lgm")
    assert_geometry(scene, model(load_tensors(latents)["latents"][None]))
    assert torch.equal(scene.colours, depth_colours(scene.geometry.depth_z[0]))
    assert (scene.fps, scene.prompt, scene.source["colours"]) == (24.0, "a red box", "depth")


@torch.no_grad()
def test_latents_are_decoded_for_colours(reconstruct, models, latents, tiny_pipeline, tmp_path):
    assert reconstruct(latents, "--lgm-path", models / "lgm", "--fps", 12) == 0
    scene = written(tmp_path)
    frames = load_video_backbone(tiny_pipeline).decode_latents(load_tensors(latents)["latents"][None])
    difference = scene.colours.float() - frames[0, ::4] * 255
    assert difference.abs().max() <= 0.51
    assert (scene.fps, scene.source["colours"]) == (12.0, "video")


@torch.no_grad()
def test_an_uncut_model_sees_the_pixels(reconstruct, models, video, latents, tiny_pipeline, tmp_path):
    assert reconstruct(video, "--geometry-model", models / "geometry") == 0
    model = load_geometry_backbone(models / "geometry")
    assert_geometry(written(tmp_path), model(frames_of(video)[:, ::4]))
    flags = ("--geometry-model", models / "geometry", "--overwrite")
    assert (
        reconstruct(video, *flags, "--view-stride", 3, "--num-frames", 8, "--height", 23, "--width", 27) == 0
    )
    scene = written(tmp_path)
    assert scene.frame_indices == (0, 3, 6)
    assert scene.colours.shape == (3, 24, 24, 3), "the nearest multiples of the patches of 8 pixels"
    assert reconstruct(video, *flags, "--height", 32, "--width", 64, "--max-side", 17) == 0
    assert written(tmp_path).colours.shape == (3, 8, 16, 3)
    assert reconstruct(latents, *flags) == 0
    frames = load_video_backbone(tiny_pipeline).decode_latents(load_tensors(latents)["latents"][None])
    assert_geometry(written(tmp_path), model(frames[:, ::4]))


def test_a_model_without_flow_leaves_the_mask_unknown(reconstruct, models, video, tmp_path, capsys):
    assert reconstruct(video, "--geometry-model", models / "vggt", "--num-frames", 5) == 0
    scene = written(tmp_path)
    assert scene.geometry.static_mask is None
    assert scene.geometry.scene_flow_from_ref is None
    printed = capsys.readouterr().out
    assert "the geometry model has no scene flow: what moves is taken for static" in printed
    assert "camera_motion: scene has 2 views, but the camera's acceleration needs at least 3" in printed
    assert math.isnan(scene.rewards["camera_motion"].value)


def test_exports_lie_beside_the_scene(reconstruct, models, video, tmp_path):
    exports = ("npz", "ply", "ply-frames", "glb", "colmap", "depth")
    words = (video, "--geometry-model", models / "vggt", "--pixel-step", 2, "--export", *exports)
    assert reconstruct(*words) == 0
    files = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*")}
    frames = [f"frame_{frame:05d}" for frame in (0, 4, 8)]
    assert files == {
        *("scene.safetensors", "scene.npz", "points.ply", "scene.glb", "depth/depth.json"),
        *(f"points/{frame}.ply" for frame in frames),
        *(f"depth/{frame}.png" for frame in frames),
        *(f"colmap/images/{frame}.png" for frame in frames),
        *(f"colmap/sparse/0/{name}.txt" for name in ("cameras", "images", "points3D")),
    }
    assert torch.equal(load_scene(tmp_path / "out" / "scene.npz").colours, written(tmp_path).colours)


def test_an_existing_folder_is_kept(reconstruct, models, video, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    assert reconstruct(video, "--geometry-model", models / "geometry") == 2
    assert (
        "exists already; choose another --output, or replace it with --overwrite" in capsys.readouterr().err
    )
    again = (video, "--geometry-model", models / "geometry", "--overwrite")
    assert reconstruct(*again) == 2
    assert "has no scene.safetensors, so it is not replaced" in capsys.readouterr().err
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"
    (tmp_path / "out" / "mine.txt").rename(tmp_path / "out" / "scene.safetensors")
    assert reconstruct(*again) == 0
    assert written(tmp_path).num_views == 3


GEOMETRY, LGM = ("--geometry-model", "{geometry}"), ("--lgm-path", "{lgm}")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("{video}",), "give either lgm_path, a latent geometry model"),
        (("{video}", *GEOMETRY, *LGM), "give either lgm_path"),
        (("nowhere.mp4", *GEOMETRY), "there is no file nowhere.mp4"),
        (("{folder}", *GEOMETRY), "there is no file"),
        (("{text}", *GEOMETRY), "is truncated or not a video file"),
        (("{other}", *LGM), "holds depth_z, but no `latents`"),
        (("{video}", "--geometry-model", "vgt"), "did you mean vggt?"),
        (("{latents}", "--geometry-model", "vgt"), "did you mean vggt?"),
        (("{video}", "--lgm-path", "nowhere"), "nowhere holds no latent geometry model"),
        (("{video}", *LGM, "--num-frames", "8"), "needs 4n + 1 frames; use 5 or 9; change the video with"),
        (("{video}", *LGM, "--num-frames", "13"), "num_frames is 13, but"),
        (("{video}", *LGM, "--height", "18", "--width", "16"), "height is 18, but the autoencoder needs"),
        (("{video}", *LGM, "--height", "16"), "give both height and width"),
        (("{video}", *LGM, "--view-stride", "2"), "view_stride is 2, but a latent geometry model"),
        (("{video}", *LGM, "--max-side", "99"), "max_side is 99, but a latent geometry model"),
        (("{video}", *LGM, "--no-decode"), "decode is off, but the input is a video"),
        (("{latents}", *GEOMETRY, "--no-decode"), "decode is off, but geometry_model sees decoded frames"),
        (("{latents}", *LGM, "--height", "16", "--width", "16"), "height is 16, but latents are taken"),
        (("{latents}", *LGM, "--base-model", "{wan}"), "has another autoencoder"),
        (("{foreign}", *LGM), "of the autoencoder 999999999999; give --base-model, and --lgm-path"),
        (("{foreign}", *GEOMETRY), "of the autoencoder 999999999999; give --base-model"),
        (("{channels}", *LGM), "is for latents of 4 channels"),
        (("{broken}", *LGM), "hold numbers that are not finite"),
        (("{batch}", *LGM), "expected one video's, [C, T, H, W]"),
        (("{video}", *GEOMETRY, "--pixel-step", "2"), "there is no export of points"),
        (("{video}", *GEOMETRY, "--export", "glb", "glb"), "name each only once"),
        (("{video}", *GEOMETRY, "--device", "cuda:77"), "device is 'cuda:77'"),
    ],
)
def test_bad_input_is_a_sentence_and_leaves_nothing(
    reconstruct, models, video, latents, inputs, tmp_path, capsys, monkeypatch, words, message
):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded before the input was refused")

    monkeypatch.setattr("vggrpo.backbones.pipelines.backbone.load_module", refuse)
    monkeypatch.setattr(LatentGeometryModel, "from_pretrained", refuse)
    monkeypatch.setattr("vggrpo.backbones.network_backbone.NetworkBackbone.from_pretrained", refuse)
    places = {
        "video": video,
        "latents": latents,
        "geometry": models / "geometry",
        "lgm": models / "lgm",
        "folder": tmp_path,
        **inputs,
    }
    assert reconstruct(*(word.format(**places) for word in words)) in (1, 2)
    complaint = capsys.readouterr().err
    assert message in complaint
    assert "VGGRPO_DEBUG" not in complaint
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, tiny_pipeline) -> dict[str, Path]:
    """Files that cannot be reconstructed, and a video model of another autoencoder."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "text.mp4").write_text("this is no video")
    zeros = torch.zeros(4, 3, 4, 4)
    broken = zeros.clone()
    broken[0, 0, 0, 0] = torch.nan
    for name, tensors, record in (
        ("other", {"depth_z": zeros}, {}),
        ("foreign", {"latents": zeros}, {"model": {"autoencoder": "9" * 64}}),
        ("channels", {"latents": torch.zeros(16, 3, 4, 4)}, {}),
        ("broken", {"latents": broken}, {}),
        ("batch", {"latents": torch.stack([zeros, zeros])}, {}),
    ):
        save_tensors(folder / f"{name}.safetensors", tensors, record)
    shutil.copytree(tiny_pipeline, folder / "wan")
    config = folder / "wan" / "vae" / "config.json"
    config.write_text(config.read_text().replace('"latents_mean": [\n    0.5', '"latents_mean": [\n    0.25'))
    return {path.stem: path for path in folder.iterdir()}


def test_rerun_is_asked_for_before_anything_is_done(
    reconstruct, models, video, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("vggrpo.viewer.export_scene.find_spec", lambda name: None)
    assert reconstruct(video, "--geometry-model", models / "geometry", "--export", "rrd") == 2
    assert 'run pip install "vggrpo[rerun]"' in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
