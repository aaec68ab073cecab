"""Every problem of a settings file is reported at once, by path and line, with the nearest valid name."""

from pathlib import Path
from typing import Literal, Self

import pytest
from pydantic import Field, PositiveFloat, PositiveInt, ValidationError, model_validator

from vggrpo.config import ConfigError, Settings, load_recipe, validate


class Loop(Settings):
    """A nested group."""

    steps: PositiveInt = Field(description="optimizer steps in all")
    lr: PositiveFloat = 1e-4

    @model_validator(mode="after")
    def _not_both(self) -> Self:
        if self.steps > 100 and self.lr > 1:
            raise ValueError("steps above 100 need lr up to 1; lower one of them")
        return self


class Example(Settings):
    """Settings with one of everything."""

    name: str = "x"
    count: PositiveInt = 1
    """How many."""
    window: PositiveInt | Literal["all"] = "all"
    sizes: tuple[PositiveInt, ...] = (1,)
    weights: dict[str, PositiveFloat] = Field(default_factory=dict)
    flag: bool = False
    file: Path | None = None
    loop: Loop


def recipe(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, "utf-8")
    return path


def report(tmp_path: Path, text: str, **overrides: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_recipe(recipe(tmp_path, text), Example, overrides)
    return str(caught.value).splitlines()


def test_values_arrive_with_their_types(tmp_path: Path) -> None:
    text = (
        "name: ünï\nwindow: 3\nsizes: [4, 5]\nweights: {a: 1}\nflag: true\nfile: runs/a\n"
        "loop: {steps: 5, lr: 1e-3}\n"
    )
    settings = load_recipe(recipe(tmp_path, text), Example)
    assert settings == Example(
        name="ünï",
        window=3,
        sizes=(4, 5),
        weights={"a": 1.0},
        flag=True,
        file=Path("runs/a"),
        loop=Loop(steps=5, lr=0.001),
    )


@pytest.mark.parametrize("number", ["1e-4", "1E-4", "1.e-4", "0.0001", ".1e-3", "+1e-4"])
def test_every_way_to_write_a_small_number(tmp_path: Path, number: str) -> None:
    assert load_recipe(recipe(tmp_path, f"loop: {{steps: 1, lr: {number}}}"), Example).loop.lr == 1e-4


def test_all_problems_at_once_with_lines_and_paths(tmp_path: Path) -> None:
    lines = report(
        tmp_path,
        "# a comment\n"
        "cuont: 3\n"
        "window: every\n"
        "sizes:\n"
        "  - 2\n"
        "  - -2\n"
        "weights: {a: 1, b: heavy}\n"
        "flag: maybe\n"
        "loop:\n"
        "  stepps: 3\n",
    )
    assert lines[0] == f"7 problems in {tmp_path / 'recipe.yaml'}:"
    assert lines[1:] == [
        "  line 2: cuont: unknown setting; did you mean count?",
        "  line 3: window: is 'every'; should be a valid integer, unable to parse string as an integer, "
        "or should be 'all'",
        "  line 6: sizes[1]: is -2; should be greater than 0",
        "  line 7: weights.b: is 'heavy'; should be a valid number, unable to parse string as a number",
        "  line 8: flag: is 'maybe'; should be a valid boolean, unable to interpret input",
        "  line 10: loop.stepps: unknown setting; did you mean steps?",
        "  loop.steps: is required (optimizer steps in all)",
    ]


def test_unknown_name_without_a_near_one_lists_the_valid_ones(tmp_path: Path) -> None:
    lines = report(tmp_path, "loop: {steps: 1, zzz: 1}")
    assert lines[1] == "  line 1: loop.zzz: unknown setting; valid names are steps, lr"


def test_problem_between_settings_stands_at_their_group(tmp_path: Path) -> None:
    lines = report(tmp_path, "loop:\n  steps: 200\n  lr: 2\n")
    assert lines == [
        f"1 problem in {tmp_path / 'recipe.yaml'}:",
        "  line 1: loop: steps above 100 need lr up to 1; lower one of them",
    ]


def test_group_that_is_no_mapping(tmp_path: Path) -> None:
    lines = report(tmp_path, "loop: 3")
    assert lines[1].startswith("  line 1: loop: is 3; should be a valid dictionary")


def test_numbers_must_be_finite() -> None:
    with pytest.raises(ConfigError, match=r"loop\.lr: is inf; should be a finite number"):
        validate(Example, {"loop": {"steps": 1, "lr": float("inf")}}, "a test")


def test_settings_are_frozen() -> None:
    settings = Example(loop=Loop(steps=1))
    with pytest.raises(ValidationError, match="frozen"):
        settings.count = 2


def test_overrides_dotted_and_nested(tmp_path: Path) -> None:
    path = recipe(tmp_path, "count: 2\nloop: {steps: 1, lr: 0.5}\n")
    settings = load_recipe(path, Example, {"loop.lr": 0.25, "loop": {"steps": 7}, "sizes": [3]})
    assert settings == Example(count=2, loop=Loop(steps=7, lr=0.25), sizes=(3,))


def test_wrong_overrides_are_reported_likewise(tmp_path: Path) -> None:
    lines = report(tmp_path, "loop: {steps: 1}", **{"loop.steps": 0, "nmae": "x"})
    assert lines[0].endswith("recipe.yaml with overrides:")
    assert "  line 1: loop.steps: is 0; should be greater than 0" in lines
    assert "  nmae: unknown setting; did you mean name?" in lines


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1, 2\nb: 3\n", "line 2 is not valid YAML"),
        ("a: b: c\n", "line 1 is not valid YAML"),
        ("- 1\n- 2\n", "must be a mapping"),
        ("count: 1\nloop: {steps: 1}\ncount: 2\n", "lines 1 and 3: count"),
        ("loop:\n  steps: 1\n  steps: 2\n", r"lines 2 and 3: loop\.steps"),
        ("count: !!python/object:os.system {}\nloop: {steps: 1}\n", "line 1 is not valid YAML"),
    ],
)
def test_files_that_are_no_settings(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe(recipe(tmp_path, text), Example)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no recipe file"):
        load_recipe(tmp_path / "none.yaml", Example)
    (tmp_path / "latin.yaml").write_bytes("name: ä".encode("latin-1"))
    with pytest.raises(ConfigError, match="not a text file in UTF-8"):
        load_recipe(tmp_path / "latin.yaml", Example)


def test_empty_file_has_only_defaults(tmp_path: Path) -> None:
    lines = report(tmp_path, "# nothing\n")
    assert lines[1:] == ["  loop: is required"]
