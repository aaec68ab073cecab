from pathlib import Path

import pytest

from vggrpo.config import ConfigError, load_recipe, read_recipe, recipe_names, recipe_path
from vggrpo.config.pretrain import GeometrySettings, VAESettings, VideoSettings


def test_packaged_recipes_resolve_by_name() -> None:
    assert "micro/train-vae" in recipe_names()
    for name in recipe_names():
        path = recipe_path(name)
        assert path.is_file()
        assert read_recipe(name).values, f"{name} is empty"


@pytest.mark.parametrize("model", [VAESettings, GeometrySettings, VideoSettings])
def test_pretraining_recipes_fit_their_settings(model: type) -> None:
    stage = {VAESettings: "train-vae", GeometrySettings: "train-geometry", VideoSettings: "train-video"}[
        model
    ]
    assert load_recipe(f"micro/{stage}", model).seed >= 0


@pytest.mark.parametrize("name", ["micro/tarin-vae", "micro-train-vae", "train-vae"])
def test_misspelt_recipe_names_get_the_nearest(name: str) -> None:
    with pytest.raises(ConfigError, match=r"neither a recipe nor a file; did you mean micro/train-vae\?"):
        recipe_path(name)


class TestExtending:
    def test_own_values_stand_on_top_of_the_others(self, tmp_path: Path) -> None:
        (tmp_path / "base.yaml").write_text("seed: 1\nloop:\n  steps: 5\n  lr: 0.1\n")
        (tmp_path / "middle.yaml").write_text("extends: base.yaml\nloop:\n  steps: 7\n")
        (tmp_path / "top.yaml").write_text("extends: middle.yaml\nseed: 3\n")
        file = read_recipe(tmp_path / "top.yaml")
        assert file.values == {"seed": 3, "loop": {"steps": 7, "lr": 0.1}}
        assert file.path == tmp_path / "top.yaml"

    def test_a_packaged_recipe_by_its_name(self, tmp_path: Path) -> None:
        (tmp_path / "mine.yaml").write_text("extends: micro/train-vae\nseed: 77\n")
        mine, packaged = load_recipe(tmp_path / "mine.yaml", VAESettings), read_recipe("micro/train-vae")
        assert mine.seed == 77
        assert mine == load_recipe("micro/train-vae", VAESettings, {"seed": 77})
        assert "extends" not in packaged.values

    def test_problems_name_the_line_of_the_own_file(self, tmp_path: Path) -> None:
        (tmp_path / "mine.yaml").write_text("# a comment\nextends: micro/train-vae\nseeed: 77\n")
        with pytest.raises(ConfigError, match=r"mine\.yaml:\n  line 3: seeed: unknown setting"):
            load_recipe(tmp_path / "mine.yaml", VAESettings)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("extends: micro/tarin-vae", r"did you mean micro/train-vae\?"),
            ("extends: nowhere.yaml", r"there is no recipe file nowhere\.yaml"),
            ("extends: [a, b]", r"mine\.yaml, line 1: extends is \['a', 'b'\]; expected one recipe"),
            ("extends: mine.yaml", r"the recipe .*mine\.yaml extends itself"),
        ],
    )
    def test_what_cannot_be_extended(self, tmp_path: Path, text: str, message: str) -> None:
        (tmp_path / "mine.yaml").write_text(text)
        with pytest.raises(ConfigError, match=message):
            read_recipe(tmp_path / "mine.yaml")
