"""Every command of docs/reproduction.md is one that the program takes; no weights are needed to know."""

import re
import shlex
from pathlib import Path

import pytest
import tyro

from vggrpo.cli.doctor import DoctorSettings
from vggrpo.cli.main import COMMANDS
from vggrpo.cli.recipes import parse_with_recipe
from vggrpo.config import (
    CompareSettings,
    EvaluateSettings,
    FindLayerSettings,
    GenerateSettings,
    Settings,
    TuneNoiseSettings,
)
from vggrpo.config.evaluate import EvaluateSetupSettings
from vggrpo.config.models import model_table
from vggrpo.config.plan import LGMFlags, TrainFlags

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reproduction.md").read_text("utf-8")
LINES = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
FROM_RECIPES: dict[str, type[Settings]] = {
    "find-layer": FindLayerSettings,
    "train-lgm": LGMFlags,
    "tune-noise": TuneNoiseSettings,
    "train": TrainFlags,
    "generate": GenerateSettings,
}
FROM_FLAGS: dict[str, type[Settings]] = {"doctor": DoctorSettings, "compare": CompareSettings}


def words_of(line: str) -> list[str]:
    """What follows `vggrpo`, also under torchrun; empty if the line is another program's."""
    words = shlex.split(line)
    return words[words.index("vggrpo") + 1 :] if "vggrpo" in words else []


def parsed(line: str) -> Settings:
    """The settings that a line of the page asks for."""
    command, *flags = words_of(line)
    if command in FROM_RECIPES:
        return parse_with_recipe(FROM_RECIPES[command], command, flags)
    if command == "evaluate":
        if "--setup" in flags:
            return tyro.cli(EvaluateSetupSettings, args=flags)
        return tyro.cli(EvaluateSettings, args=["--folder", *flags])
    return tyro.cli(FROM_FLAGS[command], args=flags)


@pytest.mark.parametrize("line", [line for line in LINES if words_of(line)])
def test_a_command_of_the_page_is_taken(line: str) -> None:
    assert words_of(line)[0] in COMMANDS
    assert isinstance(parsed(line), Settings)


@pytest.mark.parametrize("line", [line for line in LINES if not words_of(line)])
def test_other_programs_get_what_is_there(line: str) -> None:
    program, *words = shlex.split(line)
    if program == "hf":
        known = {
            entry.hub: entry.file
            for entry in [*model_table().video.values(), *model_table().geometry.values()]
        }
        assert words[0] == "download"
        assert words[1] in known
        assert words[2:] in ([], [known[words[1]]])
    elif program == "python":
        assert (ROOT / words[0]).is_file()
    else:
        assert line == "pip install -e ."


def test_each_stage_finds_what_the_one_before_leaves() -> None:
    by_command: dict[str, list[Settings]] = {}
    for line in LINES:
        if words_of(line):
            by_command.setdefault(words_of(line)[0], []).append(parsed(line))
    (lgm, _), (train, _) = by_command["train-lgm"], by_command["train"]
    assert isinstance(lgm, LGMFlags)
    assert isinstance(train, TrainFlags)
    assert lgm.output / "model" == train.lgm_path
    base, aligned = by_command["generate"]
    assert isinstance(base, GenerateSettings)
    assert isinstance(aligned, GenerateSettings)
    assert aligned.lora == (train.output / "lora",)
    assert base.seeds == aligned.seeds
    _, of_base, of_aligned = by_command["evaluate"]
    assert isinstance(of_base, EvaluateSettings)
    assert isinstance(of_aligned, EvaluateSettings)
    assert (of_base.folder, of_aligned.folder) == (base.output, aligned.output)
    assert of_aligned.reference == base.output
    (compared,) = by_command["compare"]
    assert isinstance(compared, CompareSettings)
    assert compared.runs == (of_base.output, of_aligned.output)
