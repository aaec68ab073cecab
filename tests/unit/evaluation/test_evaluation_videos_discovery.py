"""Which clips there are, what is known about them, and how two folders pair."""

import json
from pathlib import Path

import pytest

from vggrpo.config import ConfigError
from vggrpo.data import Prompt
from vggrpo.evaluation.videos import find_clips, pair_clips


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_what_generate_wrote_is_known(tmp_path: Path) -> None:
    touch(tmp_path, "a-1_seed7.mp4", "notes.txt", ".b.partial-1.mp4")
    sidecar = {"prompt": "a cat", "prompt_id": "a-1", "seed": 7, "kind": "dynamic", "fps": 8}
    (tmp_path / "a-1_seed7.json").write_text(json.dumps(sidecar))
    (clip,) = find_clips(tmp_path)
    assert (clip.name, clip.prompt, clip.prompt_id, clip.seed, clip.kind) == (
        *("a-1_seed7.mp4", "a cat", "a-1", 7, "dynamic"),
    )
    assert clip.key == ("a-1", 7)
    assert clip.cluster == "a-1"


def test_names_captions_and_nothing_at_all(tmp_path: Path) -> None:
    touch(tmp_path, "deep/x_seed3.MP4", "other.webm", "told.mov")
    (tmp_path / "told.txt").write_text("a red box\n")
    other, told, named = sorted(find_clips(tmp_path), key=lambda clip: Path(clip.name).name)[:3]
    assert (named.name, named.prompt, named.prompt_id, named.seed) == ("deep/x_seed3.MP4", None, "x", 3)
    assert (other.prompt, other.prompt_id, other.seed, other.kind) == (None, None, None, None)
    assert other.key == ("other.webm", None)
    assert told.prompt == "a red box"
    assert told.prompt_id == Prompt.from_text("a red box").id


@pytest.mark.parametrize(
    ("sidecar", "complaint"),
    [
        ("{", "Expecting property name"),
        ("[1]", "it is no object"),
        ('{"prompt": 3}', "prompt is 3, expected a text"),
        ('{"seed": "x"}', "seed is 'x', expected a whole number"),
        ('{"prompt": "\\ud83d"}', r"prompt is '\ud83d', which is no valid Unicode"),
    ],
)
def test_a_damaged_sidecar_is_a_note_and_not_the_end(tmp_path: Path, sidecar: str, complaint: str) -> None:
    touch(tmp_path, "a_seed1.mp4")
    (tmp_path / "a_seed1.json").write_text(sidecar)
    (tmp_path / "a_seed1.txt").write_text("a red box")
    (clip,) = find_clips(tmp_path)
    assert (clip.prompt, clip.prompt_id, clip.seed) == ("a red box", "a", 1)
    assert len(clip.notes) == 1
    assert complaint in clip.notes[0]


def test_an_unknown_kind_is_none_of_both(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    (tmp_path / "a.json").write_text('{"prompt": "p", "prompt_id": "a", "kind": "shaky", "seed": 0}')
    (clip,) = find_clips(tmp_path)
    assert clip.kind is None
    assert "kind 'shaky' is neither static nor dynamic" in clip.notes[0]


def test_manifests_of_both_kinds_say_the_same(tmp_path: Path) -> None:
    rows = [
        {"path": "v/b.mp4", "prompt": "one, two", "prompt_id": "p", "seed": 4, "kind": "static"},
        {"path": "a.mp4", "prompt": "three"},
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    (tmp_path / "m.csv").write_text(
        'path,prompt,prompt_id,seed,kind\nv/b.mp4,"one, two",p,4,static\na.mp4,three,,,\n'
    )
    clips = find_clips(tmp_path / "m.jsonl")
    assert clips == find_clips(tmp_path / "m.csv")
    assert [clip.name for clip in clips] == ["v/b.mp4", "a.mp4"]
    assert clips[0].path == tmp_path / "v/b.mp4"
    assert clips[0].key == ("p", 4)
    assert clips[1].key == (Prompt.from_text("three").id, None)


def test_every_wrong_line_of_a_manifest_is_named(tmp_path: Path) -> None:
    manifest = tmp_path / "m.jsonl"
    lines = [
        '{"path": "a.mp4"}',
        "nonsense",
        '{"prompt": "x"}',
        '{"path": "a.mp4"}',
        '{"path": "b", "sed": 1}',
    ]
    manifest.write_text("\n".join(lines))
    with pytest.raises(ConfigError) as error:
        find_clips(manifest)
    complaints = str(error.value).splitlines()
    assert len(complaints) == 4
    for complaint, words in zip(
        complaints,
        [
            ":2: it is no JSON",
            ":3: path is None",
            ":4: a.mp4 is that of line 1",
            ":5: unknown field 'sed'",
        ],
        strict=True,
    ):
        assert words in complaint


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("empty", "holds no videos"),
        ("clip.mp4", "neither a folder of videos nor a manifest"),
        ("absent.csv", "there is no manifest"),
        ("empty.jsonl", "holds no videos"),
    ],
)
def test_a_source_without_videos_is_refused(tmp_path: Path, name: str, complaint: str) -> None:
    (tmp_path / "empty").mkdir()
    touch(tmp_path, "clip.mp4", "empty.jsonl")
    with pytest.raises(ConfigError, match=complaint):
        find_clips(tmp_path / name)


def test_clips_pair_by_prompt_and_seed_whatever_their_names(tmp_path: Path) -> None:
    touch(tmp_path, "ours/p_seed1.mp4", "ours/p_seed2.mp4", "ours/free.mp4", "ours/only.mp4")
    touch(tmp_path, "theirs/x.mp4", "theirs/free.mp4")
    (tmp_path / "theirs/x.json").write_text('{"prompt_id": "p", "seed": 1}')
    pairing = pair_clips(find_clips(tmp_path / "ours"), find_clips(tmp_path / "theirs"), tmp_path)
    assert {name: clip.name for name, clip in pairing.reference.items()} == {
        "p_seed1.mp4": "x.mp4",
        "free.mp4": "free.mp4",
    }
    assert set(pairing.without) == {"p_seed2.mp4", "only.mp4"}


def test_what_cannot_be_paired_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "one/p_seed1.mp4", "two/q_seed1.mp4", "both/a/p_seed1.mp4", "both/b/p_seed1.mp4")
    with pytest.raises(ConfigError, match="no clip has a counterpart"):
        pair_clips(find_clips(tmp_path / "one"), find_clips(tmp_path / "two"), tmp_path / "two")
    with pytest.raises(ConfigError, match="have the same prompt id p and seed 1"):
        pair_clips(find_clips(tmp_path / "one"), find_clips(tmp_path / "both"), tmp_path / "both")
