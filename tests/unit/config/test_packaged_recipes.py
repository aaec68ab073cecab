"""Every recipe in the package: it loads, and says what it promises to say."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from vggrpo.cli.recipes import parse_with_recipe
from vggrpo.config import (
    ConfigError,
    EvaluateGeometrySettings,
    FindLayerSettings,
    GenerateSettings,
    GeometrySettings,
    LGMSettings,
    ReconstructSettings,
    RewardSettings,
    ScoreSettings,
    Settings,
    TrainSettings,
    TuneNoiseSettings,
    VAESettings,
    VideoSettings,
    WorldEvaluateSettings,
    canonical_name,
    load_recipe,
    model_names,
    read_recipe,
    recipe_names,
    recipe_path,
)

STAGES: dict[str, type[Settings]] = {
    "find-layer": FindLayerSettings,
    "train-lgm": LGMSettings,
    "tune-noise": TuneNoiseSettings,
    "train": TrainSettings,
    "generate": GenerateSettings,
    "train-vae": VAESettings,
    "train-geometry": GeometrySettings,
    "train-video": VideoSettings,
    "evaluate": WorldEvaluateSettings,
    "evaluate-geometry": EvaluateGeometrySettings,
    "score": ScoreSettings,
    "reconstruct": ReconstructSettings,
}
FROM_FLAGS: dict[str, dict[str, Any]] = {
    "generate": {"prompts": ["a red box"], "output": "videos"},
    "score": {"paths": ["videos"], "output": "scores", "lgm_path": "lgm"},
    "reconstruct": {"input": "video.mp4", "output": "scene", "lgm_path": "lgm"},
}
"""What a stage's recipe leaves to the command line."""
METHOD = ("find-layer", "train-lgm", "train", "generate", "tune-noise")
WAN = ("wan2.1-1.3b", "wan2.2-5b")
WRITE_UP = {
    "train-lgm": "--geometry-model any4d --base-model {} --lr 2e-4 --epochs 20 --lora-rank 64 "
    "--lora-alpha 32 --grad-clip 1.0",
    "train": "--base-model {} --lgm-path DIR --lora-rank 32 --lora-alpha 64 --lr 1e-4 --group-size 64 "
    "--train-steps 10 --infer-steps 50 --clip-eps 1e-3 --kl-beta 0.004 --grad-clip 1.0",
}
"""The command lines of the method's public write-up."""


def stage_of(name: str) -> str:
    """The stage of a recipe's name: "train" of "wan2.1-1.3b/train-vggt"."""
    name = name.rpartition("/")[2]
    return max((stage for stage in STAGES if f"{name}-".startswith(f"{stage}-")), key=len)


def load(name: str) -> Any:
    stage = stage_of(name)
    return load_recipe(name, STAGES[stage], FROM_FLAGS.get(stage))


def test_every_family_has_the_stages_of_the_method() -> None:
    promised = {f"{family}/{stage}" for family in ("micro", *WAN) for stage in METHOD}
    assert promised <= set(recipe_names())


@pytest.mark.parametrize("name", recipe_names())
def test_recipe_loads_and_belongs_to_its_family(name: str) -> None:
    family = name.rpartition("/")[0]
    settings = load(name)
    assert canonical_name(family, "video") == family
    if stage_of(name) in METHOD:
        assert settings.base_model == family
        assert {"num_frames", "height", "width"} <= read_recipe(name).values.keys()
    if "cfg_scale" in type(settings).model_fields:
        assert "cfg_scale" in read_recipe(name).values, "guidance is stated, never left to a default"


@pytest.mark.parametrize("name", recipe_names())
def test_models_of_a_recipe_are_known_by_name(name: str) -> None:
    values = read_recipe(name).values
    assert values.get("base_model", "micro") in model_names("video")
    assert values.get("geometry_model", "micro") in model_names("geometry")


def differences(one: Any, other: Any, place: str = "") -> set[str]:
    """Dotted names of the settings in which two settings objects differ."""
    found = set()
    for name, value in one:
        if isinstance(value, Settings):
            found |= differences(value, getattr(other, name), f"{place}{name}.")
        elif value != getattr(other, name):
            found.add(place + name)
    return found


@pytest.mark.parametrize("family", WAN)
def test_vggt_variants_differ_in_what_vggt_is_and_in_nothing_else(family: str) -> None:
    expected = {
        "find-layer": {"geometry_model", "output"},
        "train-lgm": {"geometry_model", "output", "loss.scene_flow", "rewards.reprojection.dynamic_filter"},
        "train": {"geometry_model", "output", "lgm_path", "rewards.reprojection.dynamic_filter"},
    }
    for stage, names in expected.items():
        base, variant = load(f"{family}/{stage}"), load(f"{family}/{stage}-vggt")
        assert differences(base, variant) == names
        assert variant.geometry_model == "vggt"
    lgm, train = load(f"{family}/train-lgm-vggt"), load(f"{family}/train-vggt")
    assert train.lgm_path == lgm.output / "model"
    assert lgm.rewards == train.rewards
    assert (lgm.loss.scene_flow, train.rewards.reprojection.dynamic_filter) == (0.0, False)


@pytest.mark.parametrize("family", WAN)
@pytest.mark.parametrize("stage", ["find-layer", "train-lgm"])
def test_the_geometry_model_chooses_the_variant(family: str, stage: str) -> None:
    flags = ["--base-model", family, "--geometry-model"]
    assert parse_with_recipe(STAGES[stage], stage, [*flags, "VGGT"]) == load(
        f"{family}/{stage}-vggt"
    ).model_copy(update={"geometry_model": "VGGT"})
    assert parse_with_recipe(STAGES[stage], stage, [*flags, "any4d"]) == load(f"{family}/{stage}")


@pytest.mark.parametrize("family", WAN)
@pytest.mark.parametrize("stage", METHOD)
def test_wan_recipes_comment_every_value_with_its_origin(family: str, stage: str) -> None:
    for line in recipe_path(f"{family}/{stage}").read_text("utf-8").splitlines():
        key = re.match(r" *(\w+): +\S", line)
        plain = key is None or key[1] in ("output", "candidates", "lgm_path", *load_parts())
        generate_base = stage == "generate" and line.startswith("base_model:")
        assert plain or generate_base or "#" in line, line


def load_parts() -> tuple[str, ...]:
    """The distillation weights, whose origin is said once for all of them."""
    return ("depth", "points", "rotation", "translation", "intrinsics", "scene_flow", "confidence")


@pytest.mark.parametrize("family", WAN)
def test_wan_lgm_recipe_has_the_papers_numbers(family: str) -> None:
    settings: LGMSettings = load(f"{family}/train-lgm")
    assert settings.geometry_model == "any4d"
    assert (settings.trainable, settings.lora_rank, settings.lora_alpha) == ("lora", 64, 32)
    assert (settings.lr, settings.weight_decay, settings.grad_clip) == (2e-4, 0.0, 1.0)
    assert (settings.epochs, settings.warmup_steps) == (20, 100)
    assert settings.real_clips > 0
    assert settings.generated_clips > 0
    assert settings.connector_lr_scale == pytest.approx(1 / 30, rel=1e-2)


@pytest.mark.parametrize("family", WAN)
def test_wan_train_recipe_has_the_papers_numbers(family: str) -> None:
    settings: TrainSettings = load(f"{family}/train")
    assert (settings.lora_rank, settings.lora_alpha) == (32, 64)
    assert (settings.lr, settings.weight_decay, settings.grad_clip) == (1e-4, 1e-4, 1.0)
    assert (settings.group_size, settings.clip_eps, settings.kl_coef) == (64, 1e-3, 0.004)
    assert (settings.train_steps, settings.infer_steps) == (10, 50)
    assert (settings.transition, settings.sde_window) == ("flow_sde", range(9))
    assert settings.reward_weights.camera_motion == settings.reward_weights.reprojection == 0.5
    assert settings.updates_per_rollout > 1, "with one update a rollout the ratio is always 1"


@pytest.mark.parametrize("family", WAN)
@pytest.mark.parametrize("stage", ["train-lgm", "train"])
def test_wan_recipes_read_the_rewards_as_the_paper(family: str, stage: str) -> None:
    reading = load(f"{family}/{stage}").rewards.reprojection
    assert (reading.relative, reading.exclude_own, reading.compare) == (False, False, "pixel")
    assert (reading.min_overlap, reading.occlusion_tolerance, reading.worst_k) == (0.0, None, 3)
    assert load(f"{family}/{stage}").rewards == RewardSettings()


@pytest.mark.parametrize("stage", ["train-lgm", "train"])
def test_micro_recipes_use_rewards_that_withstand_optimisation(stage: str) -> None:
    robust = load(f"micro/{stage}").rewards.reprojection
    assert (robust.relative, robust.exclude_own, robust.compare) == (True, True, "subpixel")
    assert robust.min_overlap > 0


@pytest.mark.parametrize("family", ["micro", *WAN])
def test_stages_of_a_family_fit_together(family: str) -> None:
    search, lgm, train = (load(f"{family}/{stage}") for stage in METHOD[:3])
    for name in ("geometry_model", "num_frames", "height", "width"):
        assert len({getattr(settings, name) for settings in (search, lgm, train)}) == 1, name
    assert lgm.rewards == train.rewards
    assert lgm.cfg_scale == train.cfg_scale
    assert train.lgm_path == lgm.output / "model"
    generate = load(f"{family}/generate")
    assert (generate.num_frames, generate.height, generate.width) == (
        train.num_frames,
        train.height,
        train.width,
    )
    assert train.rollout_batch >= train.update_batch


@pytest.mark.parametrize(
    ("family", "strides", "grid"),
    [("wan2.1-1.3b", (4, 8, 16), (21, 30, 52)), ("wan2.2-5b", (4, 16, 32), (31, 22, 40))],
)
def test_wan_sizes_fit_the_autoencoder_and_the_denoiser(
    family: str, strides: tuple[int, int, int], grid: tuple[int, int, int]
) -> None:
    time, space, multiple = strides
    settings: TrainSettings = load(f"{family}/train")
    assert (settings.num_frames - 1) % time == 0
    assert settings.height % multiple == settings.width % multiple == 0
    tokens = (-(-settings.height // space // 2), -(-settings.width // space // 2))
    assert ((settings.num_frames - 1) // time + 1, *tokens) == grid


@pytest.mark.parametrize("family", [*WAN, "wan2.1-1b"])
@pytest.mark.parametrize("stage", ["train-lgm", "train"])
def test_the_write_ups_command_lines_are_the_recipes_settings(family: str, stage: str) -> None:
    model = STAGES[stage]
    settings = parse_with_recipe(model, stage, WRITE_UP[stage].format(family).split())
    changes = {"lgm_path": "DIR"} if stage == "train" else {}
    recipe = f"{canonical_name(family, 'video')}/{stage}"
    assert settings == load_recipe(recipe, model, {**changes, "base_model": family})


@pytest.mark.parametrize("family", WAN)
def test_files_that_the_user_must_supply_are_named_when_they_are_missing(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vggrpo.training.sources import open_prompts, open_videos

    monkeypatch.chdir(tmp_path)
    train: TrainSettings = load(f"{family}/train")
    lgm: LGMSettings = load(f"{family}/train-lgm")
    for prompts in (train.prompts, train.evaluation_prompts, lgm.prompts):
        with pytest.raises(ConfigError, match=f"prompt file {re.escape(prompts)}; .* with --prompts"):
            open_prompts(prompts, "train")
    with pytest.raises(ConfigError, match=f"video folder {re.escape(lgm.real_videos)}; .* --real-videos"):
        open_videos(lgm, 1)
    for stage, names in (
        ("train-lgm", ("real_videos", "prompts")),
        ("train", ("prompts", "evaluation_prompts")),
    ):
        text = recipe_path(f"{family}/{stage}").read_text("utf-8")
        for name in names:
            assert re.search(rf"^{name}: .*# YOURS TO SUPPLY", text, re.MULTILINE), f"{stage}: {name}"


@pytest.mark.parametrize("family", ["micro", *WAN])
def test_generate_without_prompts_names_the_flag(family: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_with_recipe(GenerateSettings, "generate", ["--base-model", family, "--output", "videos"])
    assert caught.value.code == 2
    shown = capsys.readouterr()
    assert "--prompts" in shown.out + shown.err


def test_a_model_without_a_recipe_gets_a_sentence() -> None:
    with pytest.raises(ConfigError, match=r"no packaged train recipe .* wan2.1-14b; give one with --recipe"):
        parse_with_recipe(TrainSettings, "train", ["--base-model", "wan2.1-14b"])


PAPER_INDEX = Path(__file__).parents[3] / "docs" / "paper_index.md"


def paper_index_rows() -> list[tuple[str, str, list[str]]]:
    """(stage, dotted setting, values for Wan 1.3B, Wan 5B and micro) of every row with a setting."""
    stage, rows = "", []
    for line in PAPER_INDEX.read_text("utf-8").splitlines():
        if command := re.match(r"`vggrpo (train-lgm|train)`", line):
            stage = command[1]
        if row := re.match(r"\| `([\w.]+)` \|", line):
            rows.append((stage, row[1], [cell.strip() for cell in line.split("|")[3:6]]))
    return rows


def test_paper_index_lists_the_settings_of_the_paper() -> None:
    listed = {(stage, setting) for stage, setting, _ in paper_index_rows()}
    papers = ("lr", "weight_decay", "grad_clip", "lora_rank", "lora_alpha", "infer_steps")
    assert {(stage, setting) for stage in ("train-lgm", "train") for setting in papers} <= listed
    assert {("train-lgm", "epochs"), ("train-lgm", "warmup_steps"), ("train", "group_size")} <= listed
    assert {("train", "clip_eps"), ("train", "kl_coef"), ("train", "train_steps")} <= listed


FILES = {"output", "lgm_path", "real_videos", "prompts", "evaluation_prompts"}
"""Settings that name files, of which the index says so once for all."""


def stated(values: Mapping[str, Any], place: str = "") -> Iterator[str]:
    """Dotted names of the settings that a recipe states."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from stated(value, f"{place}{name}.")
        else:
            yield place + name


@pytest.mark.parametrize("family", WAN)
@pytest.mark.parametrize("stage", ["train-lgm", "train"])
def test_every_line_of_a_wan_recipe_has_its_row_in_the_paper_index(family: str, stage: str) -> None:
    rows = {setting for row_stage, setting, _ in paper_index_rows() if row_stage in (stage, "train")}
    assert set(stated(read_recipe(f"{family}/{stage}").values)) - FILES <= rows


@pytest.mark.parametrize(("stage", "setting", "shown"), paper_index_rows())
def test_paper_index_shows_the_recipes_values(stage: str, setting: str, shown: list[str]) -> None:
    for family, cell in zip((*WAN, "micro"), shown, strict=True):
        value = load(f"{family}/{stage}")
        for part in setting.split("."):
            value = getattr(value, part)
        remedy = f"docs/paper_index.md shows {cell} for {family}/{stage}: {setting}, the recipe says {value}"
        if isinstance(value, bool):
            assert cell == ("yes" if value else "no"), remedy
        elif isinstance(value, int | float):
            assert float(cell) == pytest.approx(value), remedy
        else:
            assert cell == ("none" if value is None else value), remedy
