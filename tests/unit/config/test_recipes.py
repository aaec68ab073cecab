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
