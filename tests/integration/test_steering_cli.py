"""A steered video, its scene, and the page that shows it beside the unsteered one, by their commands."""

import json
import re

from commands import vggrpo

from vggrpo.viewer import load_scene

SAMPLING = ("--prompts", "a red box in a blue room", "--lgm-path", "micro", "--infer-steps", "4")
STEERING = ("--reward-guidance.scale", "100", "--reward-guidance.interval", "1", "--best-of", "2")


def test_generate_reconstruct_view(tmp_path):
    scenes = {}
    for name, flags in (("base", ()), ("steered", STEERING)):
        made = vggrpo("generate", *SAMPLING, *flags, "--output", tmp_path / name)
        assert made.status == 0, made.err
        (video,) = (tmp_path / name).glob("*.mp4")
        scenes[name] = tmp_path / f"{name}-scene"
        words = ("--lgm-path", "micro", "--output", scenes[name], "--export", "glb")
        seen = vggrpo("reconstruct", video, *words)
        assert seen.status == 0, seen.err
        assert (scenes[name] / "scene.glb").stat().st_size > 0
    sidecar = json.loads(next((tmp_path / "steered").glob("*.json")).read_text())
    assert [step["step"] for step in sidecar["result"]["guided_steps"]] == [1, 2, 3]
    assert sidecar["result"]["denoiser_evaluations"] == 2 * 4
    page = tmp_path / "page.html"
    files = [folder / "scene.safetensors" for folder in scenes.values()]
    shown = vggrpo("view", *files, "--export", page)
    assert shown.status == 0, shown.err
    data = json.loads(re.search(r'application/json">(.*?)</script>', page.read_text("utf-8"))[1])
    assert [scene["label"] for scene in data["scenes"]] == ["base-scene", "steered-scene"]
    for scene, file in zip(data["scenes"], files, strict=True):
        assert scene["views"] == load_scene(file).num_views == 5
        assert dict(scene["rewards"]).keys() == {"Camera motion", "Reprojection"}
    assert data["scenes"][0]["rewards"] != data["scenes"][1]["rewards"]
