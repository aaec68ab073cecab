"""Prompts from text and JSON Lines files, and from sets that have a name."""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from vggrpo.config.errors import ConfigError
from vggrpo.data.prompt import ID_PATTERN, Prompt
from vggrpo.data.prompt_sets import load_prompt_set, load_vbench_prompts, prompt_set_names

PROMPT_SUFFIXES = (".txt", ".jsonl", ".json")
STDIN = "-"
FIELDS = ("id", "prompt", "kind")


def load_prompts(path: Path | str) -> list[Prompt]:
    """The prompts of a file, in its order, or of a set of this package ("static-test"; `prompt_set_names`).

    A .txt file has one prompt a line; empty lines do not count. A .jsonl file has one object a line with
    "prompt" and, where wanted, "id" (made from the text otherwise) and "kind". A .json file is the prompt
    suite of a VBench installation; see `load_vbench_prompts`.

    Raises:
        ConfigError: if the file is missing, empty, not UTF-8 or of another kind, or lines are wrong: names
            every wrong line, among them repeated prompts and ids.
    """
    if str(path) in prompt_set_names():
        return load_prompt_set(str(path))
    path = Path(path)
    if path.suffix not in PROMPT_SUFFIXES:
        raise ConfigError(
            f"{path} is no prompt file: expected .txt (a prompt a line), .jsonl (an object a line with "
            f"{', '.join(FIELDS)}), VBench's .json, or one of the sets {', '.join(prompt_set_names())}"
        )
    if not path.is_file():
        raise ConfigError(f"there is no prompt file {path}")
    if path.suffix == ".json":
        return load_vbench_prompts(path)
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text ({error}); save it as UTF-8") from error
    return _parse_lines(lines, str(path), is_json=path.suffix == ".jsonl")


def read_prompts(values: Sequence[str]) -> list[Prompt]:
    """Prompts as a command line gives them: texts, a single file or set's name, or "-" for standard input.

    Standard input is read as a .jsonl file if its first filled line begins with {, else as a .txt file.

    Raises:
        ConfigError: as `load_prompts`; or if there is no prompt, one is empty, or one comes twice.
    """
    if list(values) == [STDIN]:
        lines = sys.stdin.read().splitlines()
        begins = next((line.lstrip() for _, line in _filled(lines)), "")
        return _parse_lines(lines, "standard input", is_json=begins.startswith("{"))
    if len(values) == 1 and (values[0].endswith(PROMPT_SUFFIXES) or values[0] in prompt_set_names()):
        return load_prompts(values[0])
    if not values:
        raise ConfigError("no prompts were given: give texts, a .txt or .jsonl file, or the name of a set")
    seen: dict[str, int] = {}
    for position, text in enumerate(values, start=1):
        if not text.strip():
            raise ConfigError(f"prompt {position} is empty; give it a text, or leave it out")
        first = seen.setdefault(_normalised(text), position)
        if first != position:
            raise ConfigError(f"prompt {position} is prompt {first} again: {text!r}")
    return [Prompt.from_text(text.strip()) for text in values]


def _parse_lines(lines: Sequence[str], source: str, is_json: bool) -> list[Prompt]:
    """The prompts of the lines of a file; see `load_prompts`."""
    problems: list[str] = []
    prompts: list[Prompt] = []
    places: dict[tuple[str, str], int] = {}
    for number, line in _filled(lines):
        try:
            prompt = _from_json(line) if is_json else Prompt.from_text(line.strip())
        except ValueError as error:
            problems.append(f"{source}:{number}: {error}")
            continue
        for what, value in (("prompt", _normalised(prompt.text)), ("id", prompt.id)):
            first = places.setdefault((what, value), number)
            if first != number:
                problems.append(f"{source}:{number}: the {what} {value!r} is that of line {first} again")
                break
        prompts.append(prompt)
    if problems:
        raise ConfigError("\n".join(problems))
    if not prompts:
        raise ConfigError(
            f'{source} holds no prompts; write one a line, as text or as JSON with "prompt" (.jsonl)'
        )
    return prompts


def _filled(lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    return ((number, line) for number, line in enumerate(lines, start=1) if line.strip())


def _normalised(text: str) -> str:
    return " ".join(text.split())


def _from_json(line: str) -> Prompt:
    """The prompt of a line.

    Raises:
        ValueError: saying what is wrong with the line.
    """
    try:
        entry = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"not valid JSON ({error.msg} at column {error.colno})") from error
    if not isinstance(entry, dict):
        raise ValueError(f"expected an object with {', '.join(FIELDS)}, got {line.strip()[:40]}")
    unknown = [name for name in entry if name not in FIELDS]
    if unknown:
        raise ValueError(f"unknown field {unknown[0]!r}; known are {', '.join(FIELDS)}")
    text, kind = entry.get("prompt"), entry.get("kind", "")
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"prompt is {text!r}, expected a text that is not empty")
    if not isinstance(kind, str):
        raise ValueError(f"kind is {kind!r}, expected a text")
    if "id" not in entry:
        return Prompt.from_text(text.strip(), kind)
    prompt_id = entry["id"]
    if isinstance(prompt_id, int) and not isinstance(prompt_id, bool):
        prompt_id = str(prompt_id)
    if not isinstance(prompt_id, str) or not ID_PATTERN.fullmatch(prompt_id):
        raise ValueError(
            f"id is {prompt_id!r}, expected at most 100 letters, digits, dots, dashes and underscores, "
            "a letter or digit first"
        )
    return Prompt(prompt_id, text.strip(), kind)
