"""Settings from a recipe, with flags on top."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, Self

import pytest
import tyro
from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from vggrpo.cli.recipes import parse_with_recipe
from vggrpo.config import ConfigError, RunSettings, Settings, TrainSettings, load_recipe
from vggrpo.io import RunFolder


class Group(Settings):
    """A nested group."""

    rate: PositiveFloat
    kind: Literal["a", "b"] = "a"


class Example(RunSettings):
    """An example command."""

    base_model: str = "micro"
    steps: PositiveInt = Field(description="how many steps")
    kl_coef: Annotated[float, tyro.conf.arg(aliases=["--kl-beta"]), Field(ge=0)] = 0.5
    sizes: tuple[PositiveInt, ...] = (1, 2)
    group: Group
    second: Group = Group(rate=2)

    @model_validator(mode="after")
    def _few_steps(self) -> Self:
        if self.steps > 1000:
            raise ValueError("steps above 1000 are too many")
        return self


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "r.yaml"
    path.write_text("steps: 5\ngroup:\n  rate: 1e-3\nsizes: [3]\n")
    return path


@pytest.fixture
def parse(recipe: Path) -> Callable[..., Example]:
    return lambda *argv: parse_with_recipe(Example, "example", ["--recipe", str(recipe), *argv])


def test_recipe_alone(parse: Callable[..., Example]) -> None:
    assert parse("--output", "x") == Example(
        output=Path("x"), steps=5, group=Group(rate=0.001), sizes=(3,), second=Group(rate=2)
    )


def test_flags_win_with_dashes_underscores_and_dots(parse: Callable[..., Example]) -> None:
    settings = parse(
        *("--output=y", "--steps", "7", "--base_model", "m", "--group.rate", "1e-2", "--second.kind=b"),
        *("--sizes", "4", "5", "--resume"),
    )
    assert settings == Example(
        output=Path("y"),
        steps=7,
        base_model="m",
        group=Group(rate=0.01),
        second=Group(rate=2, kind="b"),
        sizes=(4, 5),
        resume=True,
    )


@pytest.mark.parametrize("flag", ["--kl-beta", "--kl_beta", "--kl-coef", "--kl_coef"])
def test_alias(parse: Callable[..., Example], flag: str) -> None:
    assert parse("--output", "x", flag, "0.25").kl_coef == 0.25


def test_all_wrong_flags_are_reported_at_once(parse: Callable[..., Example]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse("--output", "x", "--steps", "0", "--second.rate", "-1", "--kl-beta", "-2")
    assert str(caught.value).splitlines()[1:] == [
        "  steps: is 0; should be greater than 0",
        "  kl_coef: is -2.0; should be greater than or equal to 0",
        "  second.rate: is -1.0; should be greater than 0",
    ]


def test_checks_across_settings_hold_for_flags(parse: Callable[..., Example]) -> None:
    with pytest.raises(ConfigError, match="steps above 1000 are too many"):
        parse("--output", "x", "--steps", "2000")


def test_wrong_recipe_is_reported_with_its_lines(recipe: Path, parse: Callable[..., Example]) -> None:
    recipe.write_text("stepps: 5\ngroup:\n  rate: -1\n")
    with pytest.raises(ConfigError) as caught:
        parse("--output", "x", "--steps", "3")
    assert str(caught.value).splitlines()[1:] == [
        "  line 1: stepps: unknown setting; did you mean steps?",
        "  line 3: group.rate: is -1; should be greater than 0",
    ]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--output", "x", "--stepps", "3"], "--stepps"),
        (["--output", "x", "stray"], "stray"),
        (["--output", "x", "--steps", "many"], "--steps"),
        (["--output", "x", "--group.kind", "c"], "--group.kind"),
        ([], "--output"),
    ],
)
def test_malformed_command_lines_exit_with_2(
    parse: Callable[..., Example], argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(*argv)
    assert caught.value.code == 2
    shown = capsys.readouterr()
    assert message in shown.out + shown.err


def test_help_shows_the_recipes_values(
    parse: Callable[..., Example], recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse("--help")
    assert caught.value.code == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for text in ("usage: vggrpo example", "An example command.", "how many steps (default: 5)", "--kl-beta"):
        assert text in shown
    assert "run folder to create (required)" in shown


def test_resuming_starts_from_the_settings_of_the_run(tmp_path: Path) -> None:
    original = Example(output=tmp_path / "run", steps=42, group=Group(rate=0.125), sizes=(9,))
    RunFolder.create(original.output, original)
    settings = parse_with_recipe(Example, "example", ["--output", str(original.output), "--resume"])
    assert settings == original.model_copy(update={"resume": True})
    RunFolder.open(original.output, settings)


def test_base_model_chooses_the_packaged_recipe() -> None:
    with pytest.raises(
        ConfigError, match=r"no packaged nonsense recipe for the base model wan2.1-1b; give one"
    ):
        parse_with_recipe(Example, "nonsense", ["--base-model", "wan2.1-1b"])
    with pytest.raises(ConfigError, match="for the base model micro;"):
        parse_with_recipe(Example, "nonsense", [])


@pytest.mark.parametrize(
    ("base", "geometry", "recipe"),
    [
        ("wan2.2-5b", "vggt", "wan2.2-5b/train-vggt"),
        ("Wan-AI/Wan2.2-TI2V-5B-Diffusers", "facebook/VGGT-1B", "wan2.2-5b/train-vggt"),
        ("Wan-AI/Wan2.2-TI2V-5B-Diffusers@main", "facebook/VGGT-1B@0123abc", "wan2.2-5b/train-vggt"),
        ("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "airlabshare/any4d-checkpoint", "wan2.1-1.3b/train"),
        ("models/Wan2.1-T2V-1.3B-Diffusers", "models/VGGT-1B/model.pt", "wan2.1-1.3b/train-vggt"),
        ("wan2.1-1b", "models--facebook--VGGT-1B/snapshots/0123abc", "wan2.1-1.3b/train-vggt"),
        ("wan2.1-1b", "models/other", "wan2.1-1.3b/train"),
        ("wan2.1-1b", "someone/VGGT-1B", "wan2.1-1.3b/train"),
    ],
)
def test_repositories_and_their_copies_have_the_recipes_of_the_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: str, geometry: str, recipe: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for place in (base, geometry):
        if place.startswith("models"):
            (tmp_path / place).mkdir(parents=True)
    argv = ["--base-model", base, f"--geometry-model={geometry}", "--output", "x", "--lgm-path", "lgm"]
    given = ["--prompts", "p", "--evaluation-prompts", "e"]
    settings = parse_with_recipe(TrainSettings, "train", [*argv, *given])
    own = {"base_model": base, "geometry_model": geometry, "output": "x", "lgm_path": "lgm"}
    assert settings == load_recipe(recipe, TrainSettings, own | {"prompts": "p", "evaluation_prompts": "e"})
    with pytest.raises(ConfigError, match="no packaged train recipe for the base model someone/wan"):
        parse_with_recipe(TrainSettings, "train", ["--base-model", "someone/wan"])


def test_recipe_flag_without_a_value_is_refused() -> None:
    with pytest.raises((ConfigError, SystemExit)):
        parse_with_recipe(Example, "nonsense", ["--recipe"])


def test_flags_of_the_write_up(tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(
        "geometry_model: any4d\nprompts: p.txt\nevaluation_prompts: e.txt\n"
        "num_frames: 81\nheight: 480\nwidth: 832\ncfg_scale: 5.0\nbase_model: micro\n"
    )
    line = (
        "--base-model wan2.2-5b --lgm-path DIR --lora-rank 32 --lora-alpha 64 --lr 1e-4 --group-size 64 "
        "--train-steps 10 --infer-steps 50 --clip-eps 1e-3 --kl-beta 0.004 --grad-clip 1.0"
    )
    settings = parse_with_recipe(
        TrainSettings, "train", ["--recipe", str(path), "--output", "x", *line.split()]
    )
    assert (settings.base_model, settings.kl_coef, settings.group_size) == ("wan2.2-5b", 0.004, 64)
