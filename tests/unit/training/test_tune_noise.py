"""`vggrpo tune-noise` on tiny models of the real classes: the measured grid, and resume."""

import contextlib
import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from matplotlib.image import imread
from torch.nn.functional import normalize

from tiny_models import tiny_any4d_config
from vggrpo.backbones import load_video_backbone
from vggrpo.backbones.any4d import Any4D, reset_parameters
from vggrpo.cli.main import main
from vggrpo.config import RewardSettings
from vggrpo.data import load_prompts
from vggrpo.evaluation import latent_moments
from vggrpo.geometry import intrinsics_from_fov, unproject
from vggrpo.io import derive_seed, load_tensors, read_video
from vggrpo.lgm import Connector, LatentGeometryModel
from vggrpo.rollout import sample_group, sample_ode
from vggrpo.training.rewards import build_rewards

CLIP = (9, 16, 16)
CELLS = ["ode", "flow_sde-0.001-0+2", "flow_sde-0.8-0+2"]
GROUPS = 3 * len(CELLS)


@pytest.fixture(scope="session")
def lgm(tmp_path_factory, tiny_pipeline):
    """The folder of a latent geometry model on the tiny pipeline's latents that has only learnt to see
    through a pinhole: without, its rewards would fail.
    """
    config = tiny_any4d_config(patch_size=4, dpt_layer_dims=(6, 6, 8, 8))
    geometry, generator = Any4D(config), torch.Generator().manual_seed(7)
    reset_parameters(geometry.network, depth=3.0, generator=generator)
    with torch.no_grad():
        for parameter in geometry.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    spec, point = load_video_backbone(str(tiny_pipeline)).latent_spec, geometry.stitch_point("E1")
    torch.manual_seed(3)
    connector = Connector(spec.channels, point.width, (2, 2), point.num_special_tokens)
    connector.position.normal_(generator=generator)
    model = LatentGeometryModel(geometry, connector, "E1", spec, "tiny", "tiny")
    model.train_all()
    pinhole = intrinsics_from_fov(torch.tensor(1.2), 8, 8).expand(1, 1, 3, 3)
    rays = unproject(torch.ones(1, 1, 8, 8), pinhole, torch.eye(4).expand(1, 1, 4, 4))[0, 0]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(30):
        scene = model(torch.randn(4, spec.channels, 3, 4, 4, generator=generator))
        rotation, centre = scene.camera_to_world[..., :3, :3], scene.camera_to_world[..., :3, 3]
        seen = torch.einsum("btji,bthwj->bthwi", rotation, scene.world_points - centre[:, :, None, None])
        optimizer.zero_grad()
        (normalize(seen, dim=-1) - normalize(rays, dim=-1)).square().mean().backward()
        optimizer.step()
    folder = tmp_path_factory.mktemp("lgm") / "model"
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def recipe(tmp_path_factory, tiny_pipeline, lgm):
    """A grid of two cells, one of next to no noise, on three prompts."""
    folder = tmp_path_factory.mktemp("recipe")
    (folder / "prompts.txt").write_text("a red box\na blue ball\na green cylinder\n")
    settings = {
        "base_model": str(tiny_pipeline),
        "lgm_path": str(lgm),
        "prompts": str(folder / "prompts.txt"),
        "num_frames": CLIP[0],
        "height": CLIP[1],
        "width": CLIP[2],
        "cfg_scale": 1.0,
        "noise_scales": [0.001, 0.8],
        "sde_window_lengths": [2],
        "train_steps": 4,
        "group_size": 3,
        "rollout_batch": 2,
        "tolerance": 100.0,
        "latent_tolerance": 100.0,
        "rewards": {"reprojection": {"relative": True, "compare": "subpixel"}},
    }
    (folder / "tune-noise.yaml").write_text(yaml.safe_dump(settings))
    return folder / "tune-noise.yaml"


@pytest.fixture(scope="session")
def tune(recipe):
    """Runs the command in this process: exit status, output, errors."""

    def run(output, *flags):
        out, err = io.StringIO(), io.StringIO()
        words = ["tune-noise", "--recipe", recipe, "--output", output, *flags]
        if "--resume" in flags:
            words = [words[0], *words[3:]]
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = main([str(word) for word in words])
        return status, out.getvalue(), err.getvalue()

    return run


@pytest.fixture(scope="session")
def finished(tmp_path_factory, tune):
    """A run, and what the command answered."""
    run = tmp_path_factory.mktemp("finished") / "run"
    return run, tune(run, "--decode")


def result(run):
    return json.loads((run / "tune_noise.json").read_text())


def figures(run, cell):
    return next(entry["figures"] for entry in result(run)["cells"] if entry["cell"] == cell)


def group_files(run):
    return sorted((run / "cells").rglob("*.safetensors"))


def test_the_command_leaves_table_plot_and_a_recommendation(finished):
    run, (status, out, err) = finished
    assert status == 0, err
    assert [entry["cell"] for entry in result(run)["cells"]] == CELLS
    assert (run / "tune_noise.csv").read_text().count("\n") == 1 + len(CELLS)
    picture = imread(run / "tune_noise.png")
    assert picture.shape[0] > 600
    assert len(np.unique(picture.reshape(-1, picture.shape[-1]), axis=0)) > 20
    assert result(run)["recommended"]["noise_scale"] == 0.8
    assert "recommended: vggrpo train --transition flow_sde --noise-scale 0.8" in out
    assert "ODE" in out
    assert str(run) in out


def test_a_cell_is_groups_of_rollouts_scored_through_the_lgm(finished, recipe, tiny_pipeline, lgm):
    """One group against sampling and scoring it here."""
    run, _ = finished
    settings = yaml.safe_load(recipe.read_text())
    prompt = load_prompts(settings["prompts"])[1]
    policy = load_video_backbone(str(tiny_pipeline))
    group = sample_group(
        policy,
        policy.encode_prompts([prompt.text])[0],
        policy.schedule(4),
        seeds=[derive_seed(0, "tune-noise", prompt.id, k) for k in range(3)],
        latent_shape=policy.latent_shape(*CLIP),
        noise_scale=0.8,
        window=(0, 2),
    )
    measured = load_tensors(run / "cells" / "flow_sde-0.8-0+2" / f"{prompt.id}.safetensors")
    scene = LatentGeometryModel.from_pretrained(lgm)(group.latents)
    rewards = build_rewards(RewardSettings.model_validate(settings["rewards"]))
    for name, reward in rewards.items():
        expected = reward(scene)
        assert expected.valid.all(), "the tiny geometry must give rewards for this test to mean something"
        torch.testing.assert_close(measured[f"reward/{name}"], expected.value, rtol=1e-4, atol=1e-5)
    for name, moment in latent_moments(group.latents).items():
        torch.testing.assert_close(measured[f"latent/{name}"], moment, rtol=1e-4, atol=1e-5)


def test_twins_are_the_odes_samples_of_the_same_noises(finished, recipe, tiny_pipeline):
    run, _ = finished
    prompt = load_prompts(yaml.safe_load(recipe.read_text())["prompts"])[0]
    policy = load_video_backbone(str(tiny_pipeline))
    latents = sample_ode(
        policy,
        policy.encode_prompts([prompt.text] * 3),
        policy.schedule(4),
        seeds=[derive_seed(0, "tune-noise", prompt.id, k) for k in range(3)],
        latent_shape=policy.latent_shape(*CLIP),
    )
    measured = load_tensors(run / "cells" / "ode" / f"{prompt.id}.safetensors")
    for name, moment in latent_moments(latents).items():
        torch.testing.assert_close(measured[f"latent/{name}"], moment, rtol=1e-4, atol=1e-5)


def test_as_the_noise_vanishes_rollouts_become_their_twins(finished):
    run, _ = finished
    ode, faint, loud = (figures(run, cell) for cell in CELLS)
    assert ode["exploration"]["mean"] == ode["loss"]["mean"] == ode["latent/shift"]["mean"] == 0
    assert 0 < faint["exploration"]["mean"] < 0.05 * loud["exploration"]["mean"]
    assert abs(faint["loss"]["mean"]) < 0.05
    assert faint["latent/shift"]["mean"] < 0.05 * loud["latent/shift"]["mean"]
    assert faint["informative"]["mean"] == loud["informative"]["mean"] == 1
    assert loud["reward/camera_motion/std"]["mean"] > 0


def test_decoded_samples_are_kept_and_measured(finished, recipe):
    run, _ = finished
    prompts = load_prompts(yaml.safe_load(recipe.read_text())["prompts"])
    assert {path.relative_to(run / "samples").as_posix() for path in (run / "samples").rglob("*.mp4")} == {
        f"{cell}/{prompt.id}.mp4" for cell in CELLS for prompt in prompts
    }
    video, fps = read_video(run / "samples" / "ode" / f"{prompts[0].id}.mp4")
    assert (video.shape, fps) == ((*CLIP, 3), 16)
    assert figures(run, "ode")["pixels/sharpness"]["mean"] == 0
    assert figures(run, CELLS[2])["pixels/sharpness"]["mean"] != 0


def test_a_second_run_in_the_folder_is_refused(finished, tune):
    run, _ = finished
    before = (run / "tune_noise.json").read_bytes()
    status, _, err = tune(run, "--decode")
    assert status == 1
    assert "already holds a run; add --resume to continue it" in err
    assert (run / "tune_noise.json").read_bytes() == before


def test_an_interrupted_grid_continues_without_measuring_again(finished, tune, tmp_path, monkeypatch):
    straight, run, replace = finished[0], tmp_path / "run", os.replace

    def interrupted_after_the_fifth_group(source, target):
        replace(source, target)
        if Path(target).parent.parent.name == "cells" and len(group_files(run)) == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", interrupted_after_the_fifth_group)
        status, _, err = tune(run, "--decode")
    assert status == 130, err
    assert not (run / "tune_noise.json").exists()
    done = {file: file.stat().st_mtime_ns for file in group_files(run)}
    assert len(done) == 5

    status, _, err = tune(run, "--resume")
    assert status == 0, err
    assert "continuing at 5" in err
    assert len(group_files(run)) == GROUPS
    assert {file: file.stat().st_mtime_ns for file in done} == done
    assert result(run) == result(straight)


def test_other_tolerances_need_no_new_measurement(finished, tune, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished[0], run)
    before = {file: file.stat().st_mtime_ns for file in group_files(run)}
    status, out, err = tune(run, "--resume", "--latent-tolerance", "1e-9")
    assert status == 0, err
    assert "no setting has loss and latent shift within the tolerances" in out
    assert result(run)["recommended"] is None
    assert {file: file.stat().st_mtime_ns for file in group_files(run)} == before
    status, _, err = tune(run, "--resume", "--group-size", "4")
    assert status == 1
    assert "group_size: 3 in the run, 4 now" in err


def test_a_run_of_other_inputs_is_not_continued(finished, tune, tmp_path, lgm):
    run, other = tmp_path / "run", tmp_path / "lgm"
    shutil.copytree(finished[0], run)
    shutil.copytree(lgm, other)
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(config | {"lgm_path": str(other)}))
    assert tune(run, "--resume")[0] == 0
    model = LatentGeometryModel.from_pretrained(lgm)
    with torch.no_grad():
        model.connector.conv.bias.add_(1.0)
    model.save_pretrained(other, replace=True)
    status, _, err = tune(run, "--resume")
    assert status == 1
    assert "was measured with another content of lgm_path" in err


def test_a_damaged_group_is_named(finished, tune, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished[0], run)
    file = group_files(run)[4]
    file.write_bytes(file.read_bytes()[:100])
    status, _, err = tune(run, "--resume")
    assert status == 1
    assert f"delete {file} and it is measured again" in err
    file.unlink()
    assert tune(run, "--resume")[0] == 0
    assert result(run) == result(finished[0])


def test_members_that_share_their_noise_differ_by_the_steps_alone(finished, tune, tmp_path):
    run = tmp_path / "run"
    status, _, err = tune(run, "--shared-noise")
    assert status == 0, err
    ode, _, loud = (figures(run, cell) for cell in CELLS)
    # Batches of other sizes round differently, so the ODE's members are the same but for rounding.
    assert ode["score/std"]["mean"] < 0.01 * loud["score/std"]["mean"]
    assert loud["exploration"]["mean"] == pytest.approx(loud["score/std"]["mean"], rel=0.01)


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (("--prompts", "none.txt"), "there is no prompt file none.txt"),
        (("--num-prompts", "5"), "5 prompts are asked for, but"),
        (("--height", "18"), "height is 18"),
        (("--num-frames", "8"), "num_frames is 8"),
        (("--lgm-path", "nowhere"), "nowhere holds no latent geometry model"),
        (("--base-model", "micro"), "this latent geometry model reads latents of tiny"),
        (("--sde-window-lengths", "2", "4"), "of 4 train_steps only [0, 3) can be stochastic"),
    ],
)
def test_what_is_wrong_is_said_before_a_run_exists(tune, tmp_path, flags, part):
    status, _, err = tune(tmp_path / "run", *flags)
    assert status in (1, 2)
    assert part in err
    assert not (tmp_path / "run").exists()


def test_two_prompts_are_too_few(tune, tmp_path):
    (tmp_path / "two.txt").write_text("a red box\na blue ball\n")
    status, _, err = tune(tmp_path / "run", "--prompts", tmp_path / "two.txt")
    assert status == 2
    assert "holds 2 prompts, but intervals need at least 3" in err
    assert not (tmp_path / "run").exists()


def test_the_run_folder_holds_what_it_says(finished):
    run, _ = finished
    names = {".lock", "config.yaml", "inputs.json", "cells", "samples", "text"}
    names |= {f"tune_noise.{suffix}" for suffix in ("json", "csv", "png")}
    assert {path.name for path in Path(run).iterdir()} == names
