"""Prompt sets that can be named: those of this package, and the suite of a VBench installation.

The sets of this package are plain text, `<number> <caption>` a line, written for it in the manner of the
captions of DL3DV and RealEstate10K (static scenes, of which the camera's way is told) and of MiraData (scenes
in which things happen). No caption occurs in two sets.
"""

import json
from pathlib import Path

from vggrpo.config.errors import ConfigError
from vggrpo.data.prompt import Prompt

FOLDER = Path(__file__).resolve().parent.parent / "prompts"
KINDS = ("static", "dynamic")
SPLITS = ("train", "validation", "test")
BOTH = "all"
"""Static and dynamic scenes together, in this order."""


def prompt_set_names() -> tuple[str, ...]:
    """ "static-train", "static-validation", ..., "all-test"."""
    return tuple(f"{kind}-{split}" for kind in (*KINDS, BOTH) for split in SPLITS)


def load_prompt_set(name: str) -> list[Prompt]:
    """The prompts of a set of this package, each with its kind and an id such as "static-test-007".

    Raises:
        ConfigError: if there is no such set.
    """
    if name not in prompt_set_names():
        raise ConfigError(f"there is no prompt set {name}; sets are {', '.join(prompt_set_names())}")
    kind, _, split = name.partition("-")
    if kind == BOTH:
        return [prompt for part in KINDS for prompt in load_prompt_set(f"{part}-{split}")]
    lines = (FOLDER / f"{name}.txt").read_text("utf-8").splitlines()
    numbered = (line.split(" ", maxsplit=1) for line in lines)
    return [Prompt(f"{name}-{number}", caption, kind) for number, caption in numbered]


def load_vbench_prompts(path: Path) -> list[Prompt]:
    """The prompts of a VBench installation's `VBench_full_info.json`, in its order, each once.

    The file lists objects with "prompt_en" and the dimensions that it is for; a prompt may stand in it twice.
    VBench does not say which scenes are static, so kinds are unknown.

    Raises:
        ConfigError: if the file is no such list.
    """
    try:
        entries = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path} is not valid JSON ({error})") from error
    expected = 'expected a list of objects with "prompt_en", as in VBench_full_info.json of VBench'
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"{path} is no prompt suite: {expected}")
    prompts: dict[str, Prompt] = {}
    for place, entry in enumerate(entries):
        text = entry.get("prompt_en") if isinstance(entry, dict) else None
        if not isinstance(text, str) or not text.strip():
            raise ConfigError(f"{path}: entry {place} has no prompt; {expected}")
        prompts.setdefault(" ".join(text.split()), Prompt.from_text(text.strip()))
    return list(prompts.values())
