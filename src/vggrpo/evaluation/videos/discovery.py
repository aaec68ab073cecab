"""Which video files there are, and what is known about each: prompt, seed and kind."""

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from vggrpo.config.errors import ConfigError
from vggrpo.data.prompts import Prompt
from vggrpo.data.videos import VIDEO_SUFFIXES
from vggrpo.evaluation.videos.base import Clip, Kind, as_utf8

MANIFEST_SUFFIXES = (".jsonl", ".csv")
MANIFEST_FIELDS = ("path", "prompt", "prompt_id", "seed", "kind")
NAME_OF_GENERATE = re.compile(r"(?P<prompt_id>.+)_seed(?P<seed>\d+)")


def find_clips(source: Path) -> list[Clip]:
    """The clips of a folder or a manifest, in the order of their names (of a manifest: of its lines).

    In a folder, sub-folders included, the JSON file beside a video, as `vggrpo generate` writes it, says what
    it shows. Without one, a name `<prompt id>_seed<seed>` gives both, and a .txt file beside the video the
    prompt. Other names are fine; nothing is then known about the clip.

    A manifest is a .jsonl or .csv file with `path` (relative to it) and where known `prompt`, `prompt_id`,
    `seed` and `kind`. An id that is missing is made from the prompt.

    Raises:
        ConfigError: if there is no such folder or file, it holds no videos, or lines of the manifest are
            wrong: names every one.
    """
    if source.is_dir():
        paths = sorted(
            path
            for path in source.rglob("*")
            if path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".")
        )
        if not paths:
            raise ConfigError(f"{source} holds no videos ({', '.join(VIDEO_SUFFIXES)})")
        return [describe_clip(path, path.relative_to(source).as_posix()) for path in paths]
    if source.suffix.lower() not in MANIFEST_SUFFIXES:
        raise ConfigError(
            f"{source} is neither a folder of videos nor a manifest ({' or '.join(MANIFEST_SUFFIXES)})"
        )
    if not source.is_file():
        raise ConfigError(f"there is no manifest {source}")
    return _read_manifest(source)


@dataclass(frozen=True)
class Pairing:
    """The clips of two folders that show the same prompt and seed."""

    reference: dict[str, Clip]
    """By the name of the clip that is evaluated."""
    without: tuple[str, ...]
    """Names of evaluated clips that have no counterpart."""


def pair_clips(clips: Sequence[Clip], reference: Sequence[Clip], source: Path) -> Pairing:
    """Finds each clip's counterpart by prompt and seed (by name where there is no prompt).

    Raises:
        ConfigError: if a key occurs twice on a side, or no clip has a counterpart in `source`.
    """
    counterparts = _by_key(reference)
    pairs = {clip.name: counterparts[key] for key, clip in _by_key(clips).items() if key in counterparts}
    if not pairs:
        raise ConfigError(
            f"no clip has a counterpart in the reference {source}: they pair by prompt and seed, as "
            "`vggrpo generate` names them, by a manifest, or by equal names"
        )
    return Pairing(pairs, tuple(clip.name for clip in clips if clip.name not in pairs))


def _by_key(clips: Sequence[Clip]) -> dict[tuple[str, int | None], Clip]:
    found: dict[tuple[str, int | None], Clip] = {}
    for clip in clips:
        other = found.setdefault(clip.key, clip)
        if other is not clip:
            raise ConfigError(
                f"{other.path} and {clip.path} have the same prompt id {clip.key[0]} and seed {clip.key[1]}, "
                "so they cannot be paired with a reference; evaluate their folders apart, or give their "
                "seeds in a manifest"
            )
    return found


def describe_clip(path: Path, name: str) -> Clip:
    """A file as a clip, with what its neighbours and its name say about it (see `find_clips`)."""
    known: dict[str, Any] = {}
    notes: list[str] = []
    matched = NAME_OF_GENERATE.fullmatch(as_utf8(path.stem))
    if matched:
        known = {"prompt_id": matched["prompt_id"], "seed": int(matched["seed"])}
    clip = _clip(name, path, known)
    for neighbour, read in ((path.with_suffix(".txt"), _caption), (path.with_suffix(".json"), _sidecar)):
        try:
            if neighbour.is_file():
                more = known | read(neighbour)
                clip, known = _clip(name, path, more), more
        except (ValueError, OSError) as error:
            notes.append(f"what stands beside it about its prompt cannot be used ({error})")
    return replace(clip, notes=(*clip.notes, *notes))


def _caption(file: Path) -> dict[str, Any]:
    return {"prompt": file.read_text("utf-8").strip()}


def _sidecar(file: Path) -> dict[str, Any]:
    values = json.loads(file.read_text("utf-8"))
    if not isinstance(values, dict):
        raise ValueError("it is no object")
    return {field: values[field] for field in MANIFEST_FIELDS[1:] if field in values}


def _read_manifest(source: Path) -> list[Clip]:
    clips: list[Clip] = []
    problems: list[str] = []
    places: dict[str, int] = {}
    try:
        for number, values in _manifest_lines(source):
            try:
                if values is None:
                    raise ValueError("it is no JSON object")
                unknown = [field for field in values if field not in MANIFEST_FIELDS]
                if unknown:
                    raise ValueError(f"unknown field {unknown[0]!r}; known are {', '.join(MANIFEST_FIELDS)}")
                name = values.get("path")
                if not isinstance(name, str) or not name:
                    raise ValueError(f"path is {name!r}, expected the path of a video")
                if places.setdefault(name, number) != number:
                    raise ValueError(f"{name} is that of line {places[name]} again")
                clips.append(_clip(name, source.parent / name, values))
            except ValueError as error:
                problems.append(f"{source}:{number}: {error}")
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{source} cannot be read as UTF-8 {source.suffix[1:]} ({error})") from error
    if problems:
        raise ConfigError("\n".join(problems))
    if not clips:
        raise ConfigError(f"{source} holds no videos")
    return clips


def _manifest_lines(source: Path) -> Iterator[tuple[int, Mapping[str, Any] | None]]:
    """(line number, values); empty cells of a CSV file are absent. None where a line is no JSON object."""
    with source.open(encoding="utf-8-sig", newline="") as file:
        if source.suffix.lower() == ".csv":
            reader = csv.DictReader(file)
            for row in reader:
                yield reader.line_num, {str(field): cell for field, cell in row.items() if cell}
            return
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    values = json.loads(line)
                except json.JSONDecodeError:
                    values = None
                yield number, values if isinstance(values, dict) else None


def _clip(name: str, path: Path, values: Mapping[str, Any]) -> Clip:
    """Raises ValueError saying what is wrong with the values."""
    prompt, prompt_id, kind = (values.get(field) or None for field in ("prompt", "prompt_id", "kind"))
    for field, value in (("prompt", prompt), ("kind", kind)):
        if value is not None and not isinstance(value, str):
            raise ValueError(f"{field} is {value!r}, expected a text")
    for field, value in (("prompt", prompt), ("prompt_id", prompt_id)):
        if value is not None and str(value) != as_utf8(str(value)):
            raise ValueError(f"{field} is {value!r}, which is no valid Unicode; write it anew")
    seed = values.get("seed")
    if isinstance(seed, str) and seed.isdecimal():
        seed = int(seed)
    if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool)):
        raise ValueError(f"seed is {seed!r}, expected a whole number")
    notes: tuple[str, ...] = ()
    if kind is not None and kind not in get_args(Kind):
        notes = (f"its kind {kind!r} is neither static nor dynamic, so it counts among all clips only",)
        kind = None
    if prompt_id is None and prompt is not None:
        prompt_id = Prompt.from_text(prompt).id
    identity = None if prompt_id is None else str(prompt_id)
    return Clip(as_utf8(name), path, prompt, identity, seed, kind, notes)
