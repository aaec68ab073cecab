"""Plans: what they count is what runs do."""

import json
import shutil
import time
from pathlib import Path

import pytest
import torch
from tiny_lgm import lgm_settings
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from tiny_models import tiny_latent_geometry
from tiny_trainer import tiny_trainer
from vggrpo.backbones import dpt, load_geometry_backbone, load_video_backbone
from vggrpo.backbones.pipelines.lora import add_lora
from vggrpo.backbones.wan.official import OFFICIAL
from vggrpo.cli.main import main
from vggrpo.config import ConfigError, LGMSettings, TrainSettings, load_recipe
from vggrpo.lgm import Connector, LatentGeometryModel, distillation_loss
from vggrpo.training.lgm import make_trainable
from vggrpo.training.plan import Assumptions, models, plan_lgm, plan_training
from vggrpo.training.plan.counting import Known, empty_weights, measure, num_parameters, without_values
from vggrpo.training.plan.models import VideoPlan
from vggrpo.training.plan.plan import CUDA_BYTES, GIB, Phase, Remedy, problems
from vggrpo.training.plan.train import TrainPlanner, remedies
from vggrpo.training.plan.train_lgm import LGMPlanner
from vggrpo.training.plan.train_lgm import remedies as lgm_remedies
from vggrpo.training.ranks import Ranks, require_shares

aten = torch.ops.aten
WITHIN = 0.05


def counted(run) -> float:
    """Operations of a real computation by torch's own counter."""
    formulas = {
        aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
        aten._scaled_dot_product_flash_attention_for_cpu_backward: (
            lambda grad, q, k, v, *_, **__: sdpa_backward_flop_count(grad, q, k, v)
        ),
    }
    with FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        run()
    return counter.get_total_flops()


@pytest.mark.parametrize(
    "changes",
    [
        {"cfg_scale": 3.0},
        {"cfg_scale": 3.0, "efficiency": {"cfg_batched": True}},
        {"cfg_scale": 1.0, "kl_coef": 0.0, "rollout_batch": 2, "update_batch": 2},
        {"cfg_scale": 1.0, "kl_coef": 0.0, "sde_window_length": 1, "off_window_coef": 0.1},
        {
            "cfg_scale": 1.0,
            "kl_coef": 0.0,
            "sde_window_length": 1,
            "off_window_coef": 0.1,
            "off_window_members": 1,
        },
        {"cfg_scale": 1.0, "gradient_checkpointing": True, "sde_window_length": 1},
        {"train_steps": 4, "shared_noise": True, "sde_window_start": 2, "sde_window_length": 1},
        {"train_steps": 7, "sde_window_start": 2, "sde_window_length": 1, "ode_solver": "heun"},
        {
            "train_steps": 8,
            "sde_window_length": 2,
            "ode_solver": "unipc",
            "ode_stride": 2,
            "trajectory_dtype": "bfloat16",
        },
    ],
)
def test_operations_of_an_iteration_are_those_of_a_measured_one(tiny_pipeline, tmp_path, changes):
    values = {"prompts_per_rollout": 1, "updates_per_rollout": 2, "lora_targets": "attention+ffn", **changes}
    checkpointing = values.pop("gradient_checkpointing", False)
    trainer = tiny_trainer(tiny_pipeline, tmp_path / "run", lgm_path=tmp_path / "lgm", **values)
    if checkpointing:
        trainer.policy.transformer.enable_gradient_checkpointing()
    length = 24  # of the pipeline's tokenizer
    trainer.prompt_embeds = torch.randn(3, length, 16)
    if trainer.negative_prompt_embeds is not None:
        trainer.negative_prompt_embeds = torch.randn(length, 16)
    lgm = tiny_latent_geometry(trainer.policy.latent_spec)
    lgm.save_pretrained(tmp_path / "lgm")

    groups = []
    rollout = counted(lambda: groups.append(trainer.rollout(0)))
    update = counted(lambda: trainer.update(groups, torch.tensor([[1.0, -1.0, 0.5, -0.5]])))
    score = counted(lambda: lgm(groups[0].latents))
    settings = trainer.settings.model_copy(update={"gradient_checkpointing": checkpointing})
    planner = TrainPlanner(settings)
    phases = {phase.name: phase for phase in planner.phases(planner.costs())}
    assert planner.lgm_is_there
    assert phases["rollout"].flops == pytest.approx(rollout, rel=WITHIN)
    assert phases["LGM"].flops == pytest.approx(score, rel=WITHIN)
    assert phases["update"].flops == pytest.approx(update, rel=WITHIN)
    kept = (groups[0].states, groups[0].latents)
    assert planner.trajectory_bytes == sum(tensor.numel() * tensor.itemsize for tensor in kept)


def test_operations_of_a_distillation_are_those_of_a_measured_one(lgm_models):
    settings = lgm_settings(lgm_models, stitch_point="E1", num_frames=17, lora_rank=2)
    planner = LGMPlanner(settings)
    costs = planner.costs()
    video = load_video_backbone(settings.base_model)
    geometry = load_geometry_backbone(settings.geometry_model)
    latents = torch.randn(2, *video.latent_shape(17, 16, 16))
    frames = torch.rand(1, 17, 16, 16, 3)
    teach = counted(lambda: geometry(torch.rand(2, *planner.teacher.raster, 3)))
    scene = geometry(torch.rand(2, *planner.teacher.raster, 3))
    assert costs.teach.flops == pytest.approx(teach, rel=WITHIN)
    with torch.no_grad():
        assert costs.decode.flops == pytest.approx(
            counted(lambda: video.decode_latents(latents[:1])), rel=WITHIN
        )
        assert costs.encode.flops == pytest.approx(counted(lambda: video.encode_video(frames)), rel=WITHIN)

    point = geometry.stitch_point("E1")
    connector = Connector(4, point.width, (2, 2), point.num_special_tokens)
    model = LatentGeometryModel(geometry, connector, "E1", video.latent_spec, "tiny", "tiny")
    model.add_lora(2, 32.0)
    distil = counted(lambda: distillation_loss(model(latents), scene)[0].backward())
    assert costs.distil.flops == pytest.approx(distil, rel=WITHIN)
    assert planner.steps == 5 * 20 // 2


def test_a_distillation_with_less_memory_has_the_operations_of_a_measured_one(lgm_models, monkeypatch):
    monkeypatch.setattr(dpt, "PIXELS_AT_ONCE", 16 * 16)  # a view at once
    plain = lgm_settings(lgm_models, stitch_point="M2", num_frames=17, lora_rank=2)
    frugal = plain.model_copy(update={"gradient_checkpointing": True, "micro_batch": 1})
    known = Known()
    whole, less = (LGMPlanner(settings).costs(known).distil for settings in (plain, frugal))
    assert less.peak < whole.peak / 3

    video = load_video_backbone(frugal.base_model)
    geometry = load_geometry_backbone(frugal.geometry_model)
    connector = Connector.for_point(geometry.stitch_point("M2"), 4, (2, 2))
    model = LatentGeometryModel(geometry, connector, "M2", video.latent_spec, "tiny", "tiny")
    make_trainable(model, frugal)
    clips = torch.randn(2, *video.latent_shape(17, 16, 16)).split(1)
    scenes = [model(latents).detach() for latents in clips]

    def distil() -> None:
        for latents, scene in zip(clips, scenes, strict=True):
            distillation_loss(model(latents), scene)[0].backward()

    assert less.flops == pytest.approx(counted(distil), rel=WITHIN)
    assert less.flops > 1.1 * whole.flops


def test_a_distillation_that_goes_on_from_a_model_is_planned_with_that_model(lgm_models, tmp_path):
    settings = lgm_settings(lgm_models)
    video = load_video_backbone(settings.base_model)
    geometry = load_geometry_backbone(settings.geometry_model)
    connector = Connector.for_point(geometry.stitch_point("E1"), 4, (2, 2))
    model = LatentGeometryModel(geometry, connector, "E1", video.latent_spec, "tiny", "tiny")
    model.save_pretrained(tmp_path / "lgm")
    planner = LGMPlanner(settings.model_copy(update={"init": tmp_path / "lgm"}))
    assert num_parameters(planner.finished.model) == num_parameters(model)
    assert planner.point_is_known
    with pytest.raises(FileNotFoundError, match="holds no latent geometry model"):
        LGMPlanner(settings.model_copy(update={"init": tmp_path / "nowhere"}))


def blocks(number: int, device: str) -> nn.ModuleList:
    with torch.device(device):
        return nn.ModuleList(
            nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64)) for _ in range(number)
        )


@pytest.mark.parametrize("checkpointing", [False, True])
def test_memory_is_that_of_the_tensors_alive(checkpointing):
    """Per block: without checkpointing its input and both of its wide activations; with it, its input."""

    def run(layers: nn.ModuleList) -> None:
        x = torch.empty(1000, 64, requires_grad=True)
        for layer in layers:
            x = checkpoint(layer, x, use_reentrant=False) if checkpointing else layer(x)
        x.sum().backward()

    def peaks(device: str) -> list[int]:
        models = [blocks(number, device) for number in (4, 8)]
        if device == "cpu":
            return [measure(lambda model=model: run(model)).peak for model in models]
        with without_values():
            empty_weights(*models)
            return [measure(lambda model=model: run(model)).peak for model in models]

    peaks_with_values, peaks_without = peaks("cpu"), peaks("meta")
    assert peaks_with_values == peaks_without
    row = 4 * 1000
    gradients = 4 * (64 * 256 * 2 + 256 + 64)
    per_block = row * 64 if checkpointing else row * (64 + 256 + 256)
    growth = (peaks_without[1] - peaks_without[0]) / 4
    assert per_block <= growth <= per_block + gradients


@pytest.mark.parametrize(
    ("name", "transformer", "vae", "text_encoder"),
    [
        ("wan2.1-1.3b", 1_418_996_800, 126.9e6, 5.68e9),
        ("wan2.1-14b", 14.29e9, 126.9e6, 5.68e9),
        ("wan2.2-5b", 4_999_787_712, 704.7e6, 5.68e9),
    ],
)
def test_official_dimensions_give_the_published_numbers_of_parameters(name, transformer, vae, text_encoder):
    settings = load_recipe("wan2.2-5b/train", TrainSettings)
    plan = VideoPlan(name, settings, (81, 480, 832))
    exact = isinstance(transformer, int)
    assert num_parameters(plan.transformer) == pytest.approx(transformer, rel=1e-12 if exact else 1e-3)
    assert num_parameters(plan.vae) == pytest.approx(vae, rel=1e-3)
    assert plan.text_encoder_bytes == pytest.approx(2 * text_encoder, rel=1e-3)
    assert OFFICIAL[name].text_length == 512


def test_a_full_size_forward_has_the_known_operations():
    settings = load_recipe("wan2.1-1.3b/train", TrainSettings)
    plan = VideoPlan("wan2.1-1.3b", settings, (81, 480, 832))
    assert plan.latent_shape == (16, 21, 60, 104)
    with without_values():
        empty_weights(plan.transformer)
        cost = plan.denoise(1, guided=False)
    tokens, width, layers = 21 * 30 * 52, 1536, 30
    linear = 2 * tokens * (6 * width**2 + 2 * width * 8960) * layers
    attention = 4 * tokens * (tokens + 512) * width * layers
    assert cost.flops == pytest.approx(linear + attention, rel=0.01)
    assert 1.2 < cost.peak / GIB < 2.0


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_deep_models_cost_follows_from_a_few_blocks(tiny_pipeline, tmp_path, checkpointing, monkeypatch):
    shutil.copytree(tiny_pipeline, tmp_path / "deep")
    config = tmp_path / "deep" / "transformer" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_layers": 9}))
    settings = tiny_trainer(tiny_pipeline, tmp_path / "run").settings
    costs = []
    for few in (models.FEW_BLOCKS, (9, 9)):
        monkeypatch.setattr(models, "FEW_BLOCKS", few)
        plan = VideoPlan(str(tmp_path / "deep"), settings, (9, 64, 64), checkpointing)
        add_lora(plan.transformer, 4, 8.0)
        with without_values():
            empty_weights(plan.transformer)
            costs += [plan.denoise(2, True), plan.denoise_and_backpropagate(2, True, True)]
    for extrapolated, whole in zip(costs[:2], costs[2:], strict=True):
        assert extrapolated.flops == pytest.approx(whole.flops, rel=1e-9)
        assert extrapolated.peak == pytest.approx(whole.peak, rel=0.01)


def phase(name: str, gib: float) -> Phase:
    return Phase(name, 1.0, int(gib * GIB))


def test_what_does_not_fit_is_named_with_the_first_remedy_that_helps():
    settings = load_recipe("micro/train", TrainSettings)
    sizes = {"--a": {"update": 70.0, "rollout": 90.0}, "--b": {"update": 10.0, "rollout": 85.0}}
    choices = [Remedy(flags, settings.model_copy(update={"seed": i})) for i, flags in enumerate(sizes)]

    def measured(changed: TrainSettings) -> list[Phase]:
        return [phase(name, gib) for name, gib in list(sizes.values())[changed.seed].items()]

    found = problems([phase("update", 100), phase("rollout", 95)], choices, measured, Assumptions(100, 80))
    assert found[0] == "update needs 100.0 GiB and CUDA's own, but a GPU has 80: --a makes it 70.0 GiB"
    assert found[1].startswith("rollout needs 95.0 GiB")
    assert "with --b it still needs 85.0 GiB, so lower --height" in found[1]
    assert problems([phase("update", 70)], choices, measured, Assumptions(100, 80)) == []
    assert problems([phase("update", 79)], [], measured, Assumptions(100, 80)) != []


def test_remedies_of_a_distillation_begin_with_those_that_change_nothing():
    settings = load_recipe("micro/train-lgm", LGMSettings)
    found = lgm_remedies(settings)
    assert found[0].flags == "--gradient-checkpointing"
    assert found[1].flags == "--gradient-checkpointing --micro-batch 1"
    assert found[2].settings.batch_size == settings.batch_size // 2
    for remedy in found:
        LGMSettings.model_validate(remedy.settings.model_dump())


def test_remedies_keep_the_rules_of_the_settings():
    settings = load_recipe("micro/train", TrainSettings)
    found = remedies(settings)
    assert found[0].flags == "--gradient-checkpointing"
    assert "--rollout-batch 1 --update-batch 1" in found[-1].flags
    for remedy in found:
        TrainSettings.model_validate(remedy.settings.model_dump())
    sizes = [remedy.settings.update_batch for remedy in found]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize(
    ("gpus", "changes", "batches"),
    [
        (1, {}, [4, 3, 2, 1]),
        (2, {}, [3, 2, 1]),
        (4, {}, [3, 1]),
        (2, {"precision": "float32", "weights": "float32"}, [4, 3, 2, 1]),
    ],
)
def test_remedies_are_what_so_many_gpus_can_share(gpus, changes, batches):
    values = {"group_size": 48, "updates_per_rollout": 4, "rollout_batch": 6, "update_batch": 6}
    values["shared_noise"] = False
    half = {"precision": "bfloat16", "weights": "bfloat16", "gradient_checkpointing": True}
    recipe = load_recipe("micro/train", TrainSettings).model_dump()
    settings = TrainSettings.model_validate(recipe | values | half | changes)
    found = remedies(settings, gpus)
    for remedy in found:
        require_shares(Ranks(size=gpus), TrainSettings.model_validate(remedy.settings.model_dump()))
    assert list(dict.fromkeys(remedy.settings.rollout_batch for remedy in found)) == batches
    assert found[0].flags == f"--rollout-batch {batches[0]} --update-batch {batches[0]}"


def test_a_plan_says_what_would_make_it_fit(tiny_pipeline, tmp_path):
    settings = tiny_trainer(tiny_pipeline, tmp_path / "run", num_prompts=3, num_evaluation_prompts=2).settings
    settings = settings.model_copy(update={"rollout_batch": 4, "update_batch": 4})
    roomy = plan_training(settings, Assumptions(100, 80))
    assert roomy.problems == []
    update = max(part.memory for part in roomy.phases)
    tight = plan_training(settings, Assumptions(100, (update - 1000 + CUDA_BYTES) / GIB))
    assert any(
        "--gradient-checkpointing" in problem or "--update-batch" in problem for problem in tight.problems
    )

    with pytest.raises(ConfigError, match=r"5 processes share groups of 4"):
        plan_training(settings, Assumptions(100, 80, gpus=5))
    shared = plan_training(settings, Assumptions(100, 80, gpus=2))
    for one, half in zip(roomy.phases, shared.phases, strict=True):
        assert half.flops == pytest.approx(one.flops / 2)
    assert "the paper: 1536" in roomy.figures["in all"]


def test_dry_run_prints_a_plan_and_makes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--dry-run", "--tflops", "0.1"]) == 0
    shown = capsys.readouterr().out
    for words in (
        "7,857,152",
        "rollout",
        "update",
        "GPU-hours",
        "there is none in runs/lgm/model yet",
        "0.1 TFLOP/s",
    ):
        assert words in shown
    assert main(["train-lgm", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "distillation" in shown
    assert "every phase fits a GPU of 80 GiB" in shown
    assert list(Path(tmp_path).iterdir()) == []


def test_flags_of_a_plan_need_a_dry_run(capsys):
    assert main(["train", "--tflops", "100", "--gpus", "4"]) == 2
    assert "tflops and gpus only say what a plan assumes; add --dry-run" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wan2.1-1.3b", "wan2.2-5b"])
def test_plans_of_the_wan_recipes_need_no_weights_and_little_time(name):
    training = load_recipe(f"{name}/train", TrainSettings)
    distillation = load_recipe(f"{name}/train-lgm", LGMSettings)
    start = time.process_time()  # of one core, whatever else the machine does
    plan = plan_training(training, Assumptions(300, 80))
    between = time.process_time()
    assert plan_lgm(distillation, Assumptions(300, 141)).problems == []
    end = time.process_time()
    update = next(part for part in plan.phases if part.name == "update")
    assert 5 < update.memory / GIB < 60
    assert max(between - start, end - between) < 30
