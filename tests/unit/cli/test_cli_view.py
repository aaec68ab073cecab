"""`vggrpo view` through the entry point."""

import json
import socket
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from vggrpo.cli.main import main
from vggrpo.viewer import Scene4D, save_scene
from vggrpo.world import render_clips, sample_scene


@pytest.fixture(scope="module")
def scene_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    clips = render_clips([sample_scene("test", 0)], views="keys", height=18, width=24, num_frames=9)
    colours = (clips.frames[0] * 255).round().to(torch.uint8)
    path = tmp_path_factory.mktemp("scenes") / "scene.safetensors"
    save_scene(path, Scene4D(clips.geometry, colours, 8.0, (0, 4, 8), "stored", clips.captions[0]))
    return path


def scenes_of(page: Path) -> list[dict[str, object]]:
    scripts: list[str] = []

    class Scripts(HTMLParser):
        def handle_data(self, data: str) -> None:
            if self.cdata_elem == "script":
                scripts.append(data)

    Scripts().feed(page.read_text("utf-8"))
    return json.loads(scripts[0])["scenes"]


def test_two_scenes_become_one_page(
    scene_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "new" / "pair.html"
    words = ["view", str(scene_file), str(scene_file), "--export", str(page), "--labels", "before", "after"]
    assert main(words) == 0
    assert f"{page} (0." in capsys.readouterr().out
    scenes = scenes_of(page)
    assert [scene["label"] for scene in scenes] == ["before", "after"]
    assert [name for name, _ in scenes[0]["rewards"]] == ["Camera motion", "Reprojection"]
    kept = page.read_bytes()
    assert main(words) == 2
    assert "exists already; choose another name, or add --overwrite" in capsys.readouterr().err
    assert page.read_bytes() == kept
    assert main(["view", str(scene_file), "--export", str(page), "--overwrite"]) == 0
    assert [scene["label"] for scene in scenes_of(page)] == ["stored"]


def test_two_scenes_of_one_name_can_be_told_apart(scene_file: Path, tmp_path: Path) -> None:
    files = [tmp_path / folder / scene_file.name for folder in ("base", "aligned")]
    for file in files:
        file.parent.mkdir()
        file.write_bytes(scene_file.read_bytes())
    beside = tmp_path / "aligned" / "again.scene.safetensors"
    beside.write_bytes(scene_file.read_bytes())
    page = tmp_path / "page.html"
    for paths, labels in (
        (files, ["base", "aligned"]),
        ([files[1], beside], ["scene", "again"]),
        ([files[0], files[0]], ["stored (1)", "stored (2)"]),
    ):
        assert main(["view", *map(str, paths), "--export", str(page), "--overwrite"]) == 0
        assert [scene["label"] for scene in scenes_of(page)] == labels


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--export", "page.txt"], "should end in .html"),
        (["--export", "page.html", "--port", "9000"], "an exported page is not served"),
        (["--overwrite"], "without export no file is written"),
        (["--labels", "a", "b"], "labels names 2 scenes, but there are 1"),
        (["--port", "0"], "greater than or equal to 1"),
    ],
)
def test_settings_that_do_not_fit_are_explained(
    scene_file: Path, words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["view", str(scene_file), *words])
    assert complaint in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_files_that_are_no_scenes_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = str(tmp_path / "page.html")
    assert main(["view", str(tmp_path / "missing.npz"), "--export", page]) == 2
    assert "there is no scene file" in capsys.readouterr().err
    (tmp_path / "broken.npz").write_bytes(b"PK no zip")
    assert main(["view", str(tmp_path / "broken.npz"), "--export", page]) == 1
    assert "broken.npz is damaged" in capsys.readouterr().err
    (tmp_path / "video.mp4").touch()
    assert main(["view", str(tmp_path / "video.mp4"), "--export", page]) == 2
    assert "video.mp4 is no scene file" in capsys.readouterr().err
    assert not Path(page).exists()


def test_a_taken_port_is_refused_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unread = tmp_path / "scene.npz"
    unread.touch()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert main(["view", str(unread), "--port", str(port)]) == 2
    expected = f"port {port} of 127.0.0.1" if find_spec("viser") else "needs viser"
    assert expected in capsys.readouterr().err
