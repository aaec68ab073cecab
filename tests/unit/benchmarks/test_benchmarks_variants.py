"""Every row of the ablations is a valid training that differs from the recipe in what it says."""

import json

import lgm_ablation
import pytest
import torch
from ablations import is_recipe, negated_lora
from harness.options import Options
from harness.variants import control_rows, lgm_rows, policy_rows
from harness.workspace import Workspace
from safetensors import safe_open
from safetensors.torch import save_file

from vggrpo.backbones.pipelines import LORA_FILE
from vggrpo.config import ConfigError, LGMSettings, RunError
from vggrpo.io.runs import settings_differences


@pytest.fixture
def workspace(tmp_path):
    return Workspace(Options(output=tmp_path))


@pytest.fixture
def recipe(workspace, tmp_path):
    return workspace.policy_settings(tmp_path / "lgm")


def test_policy_rows_are_valid_and_differ_by_what_they_say(workspace, recipe):
    rows = policy_rows(recipe)
    assert len({row.name for row in rows}) == len(rows)
    for row in rows:
        settings = workspace.policy_settings(recipe.lgm_path, row.name, 0, row.changes)
        changed = {
            line.split(":")[0] for line in settings_differences(recipe.model_dump(mode="json"), settings)
        }
        assert changed <= set(row.changes), row
        assert is_recipe(workspace, row, recipe) == (changed <= {"lgm_floor"}), row


def test_only_the_shuffled_control_is_another_training(workspace, recipe):
    trained = [row.label for row in control_rows() if not is_recipe(workspace, row, recipe)]
    assert trained == ["shuffled advantages"]


def test_a_negated_lora_subtracts_what_was_added(tmp_path):
    names = ("transformer.a.lora_A.weight", "transformer.a.lora_B.weight")
    down, up = torch.randn(2, 5), torch.randn(4, 2)
    save_file(dict(zip(names, (down, up), strict=True)), tmp_path / LORA_FILE, {"kept": "as it is"})
    folder = negated_lora(tmp_path, tmp_path / "negated")
    with safe_open(folder / LORA_FILE, framework="pt") as file:
        turned = [file.get_tensor(name) for name in names]
        assert file.metadata() == {"kept": "as it is"}
    assert torch.equal(turned[1] @ turned[0], -(up @ down))


def test_a_negated_lora_is_made_once(tmp_path):
    tensors = {"a.lora_A.weight": torch.ones(2, 5), "a.lora_B.weight": torch.ones(4, 2)}
    save_file(tensors, tmp_path / LORA_FILE)
    folder = negated_lora(tmp_path, tmp_path / "negated")
    # The order of the metadata may differ from process to process, and records belong to the exact bytes.
    (folder / LORA_FILE).write_bytes(b"as another process wrote it")
    negated_lora(tmp_path, folder)
    assert (folder / LORA_FILE).read_bytes() == b"as another process wrote it"


def test_a_lora_of_other_names_is_not_negated(tmp_path):
    save_file({"a.lora.up.weight": torch.ones(4, 2)}, tmp_path / LORA_FILE)
    with pytest.raises(ValueError, match=r"no tensor with \.lora_B\. in its name"):
        negated_lora(tmp_path, tmp_path / "negated")


def test_every_group_size_sees_as_many_samples(workspace, recipe):
    sizes = {}
    for row in policy_rows(recipe):
        if row.group == "group_size":
            settings = workspace.policy_settings(recipe.lgm_path, row.name, 0, row.changes)
            sizes[settings.group_size] = settings.group_size * settings.prompts_per_rollout
    assert sizes == dict.fromkeys((8, 16, 32, 64), recipe.group_size * recipe.prompts_per_rollout)


def test_rows_with_other_reward_options_do_without_the_gate(workspace, recipe):
    for row in policy_rows(recipe):
        settings = workspace.policy_settings(recipe.lgm_path, row.name, 0, row.changes)
        if settings.rewards != recipe.rewards:
            assert settings.lgm_floor == 0, row


def test_lgm_rows_are_valid_and_see_as_many_clips(workspace):
    recipe = workspace.settings(LGMSettings, "train-lgm", "recipe", 0, {})
    rows = lgm_rows(recipe, "E1", ["E0", "E1", "F"])
    assert {row.changes.get("stitch_point") for row in rows} == {None, "E0", "F"}
    clips = recipe.real_clips + recipe.generated_clips
    for row in rows:
        settings = workspace.settings(LGMSettings, "train-lgm", row.name, 0, row.changes)
        assert settings.real_clips + settings.generated_clips == clips
        assert (row.name == "recipe") == (not row.changes)


def test_a_search_that_ends_at_an_end_is_trained_once(workspace):
    recipe = workspace.settings(LGMSettings, "train-lgm", "recipe", 0, {})
    stitched = [row for row in lgm_rows(recipe, "E0", ["E0", "E1", "F"]) if row.group == "stitch"]
    assert [row.changes for row in stitched] == [{}, {"stitch_point": "F"}]


def test_runs_of_other_weights_are_refused(workspace, tmp_path):
    inputs = json.loads((tmp_path / "inputs.json").read_text())
    inputs["geometry_model"] = {"model.safetensors": "0" * 64}
    (tmp_path / "inputs.json").write_text(json.dumps(inputs))
    with pytest.raises(RunError, match="another content of geometry_model"):
        Workspace(Options(output=tmp_path))


def test_the_ablation_of_latent_geometry_models_takes_none_from_outside(monkeypatch):
    def begin(options):
        raise RuntimeError("begun")

    monkeypatch.setattr(lgm_ablation, "Workspace", begin)
    with pytest.raises(ConfigError, match="trains its own"):
        lgm_ablation.main(["--lgm", "elsewhere"])
    with pytest.raises(RuntimeError, match="begun"):
        lgm_ablation.main([])
