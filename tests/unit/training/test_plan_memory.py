"""What switches of memory do in a plan."""

import pytest
import torch
from safetensors.torch import save_file

from tiny_models import tiny_vggt, tiny_wan
from tiny_trainer import tiny_trainer
from vggrpo.backbones import load_video_backbone
from vggrpo.backbones.any4d import Any4D
from vggrpo.backbones.pipelines.lora import add_lora
from vggrpo.backbones.vggt import VGGT
from vggrpo.config import (
    ConfigError,
    CorruptFileError,
    EfficiencySettings,
    LGMSettings,
    TrainSettings,
    load_recipe,
)
from vggrpo.training.plan.counting import Cost, Known, empty_weights, measure, module_bytes, without_values
from vggrpo.training.plan.models import VideoPlan, geometry_on_meta
from vggrpo.training.plan.plan import efficiency_changes
from vggrpo.training.plan.train import TrainPlanner, remedies
from vggrpo.training.plan.train_lgm import LGMCosts, LGMPlanner
from vggrpo.training.plan.train_lgm import remedies as lgm_remedies


def with_efficiency(settings: TrainSettings, **switches: bool) -> TrainSettings:
    return settings.model_copy(update={"efficiency": EfficiencySettings(**switches)})


@pytest.fixture
def settings(tiny_pipeline, tmp_path) -> TrainSettings:
    return tiny_trainer(tiny_pipeline, tmp_path / "run", num_prompts=3, num_evaluation_prompts=2).settings


def test_activations_on_the_cpu_leave_the_gpu_and_cost_no_operation(tiny_pipeline, settings):
    def update(**switches: bool):
        plan = VideoPlan(str(tiny_pipeline), with_efficiency(settings, **switches), (9, 64, 64), True)
        add_lora(plan.transformer, 4, 8.0)
        with without_values():
            empty_weights(plan.transformer)
            return plan, plan.denoise_and_backpropagate(1, True, False)

    _, kept = update()
    plan, moved = update(offload_activations=True)
    assert moved.flops == kept.flops
    # The inputs of the blocks of both passes of the guidance, tokens x width in float32.
    _, views, height, width = plan.latent_shape
    _, patch_height, patch_width = plan.transformer.config.patch_size
    tokens = views * height // patch_height * width // patch_width
    dim = plan.transformer.config.num_attention_heads * plan.transformer.config.attention_head_dim
    blocks = len(plan.transformer.blocks)
    assert kept.peak - moved.peak >= 2 * (blocks - 1) * tokens * dim * 4


def test_guidance_in_one_pass_is_counted_with_its_memory(tiny_pipeline, settings):
    plans = [
        VideoPlan(str(tiny_pipeline), with_efficiency(settings, cfg_batched=batched), (9, 64, 64))
        for batched in (False, True)
    ]
    with without_values():
        for plan in plans:
            empty_weights(plan.transformer)
        two, one = (plan.denoise(2, True) for plan in plans)
        unguided = [plan.denoise(2, False) for plan in plans]
    assert one.flops == two.flops
    assert unguided[0] == unguided[1]
    assert 1.6 * two.peak < one.peak < 2.2 * two.peak

    video = load_video_backbone(tiny_pipeline, efficiency=EfficiencySettings(cfg_batched=True))
    latents, embeds = torch.randn(2, *plans[1].latent_shape), torch.randn(2, *plans[1].text_shape)
    assert video.transformer is not None  # loading it is not measured
    with torch.no_grad():
        done = measure(lambda: video.velocity(latents, 0.5, embeds, embeds, 3.0))
    assert one.peak == pytest.approx(done.peak, rel=0.1)
    assert one.flops == pytest.approx(done.flops, rel=0.05)


def test_guidance_in_two_passes_is_a_remedy(settings):
    batched = with_efficiency(settings, cfg_batched=True)
    first = next(remedy for remedy in remedies(batched) if "cfg" in remedy.flags)
    assert first.flags.endswith("--efficiency.no-cfg-batched")
    assert not first.settings.efficiency.cfg_batched
    assert not remedies(batched)[-1].settings.efficiency.cfg_batched
    assert not any("cfg" in remedy.flags for remedy in remedies(settings))


@pytest.mark.parametrize("kind", ["wan2.1", "wan2.2"])
def test_tiled_decoding_is_counted_as_it_is_done(kind, tmp_path, settings):
    folder = tiny_wan(tmp_path / kind, kind)
    clip = (5, 320, 448)
    plan = VideoPlan(str(folder), with_efficiency(settings, tiled_decoding=True), clip)
    with without_values():
        empty_weights(plan.vae)
        counted = plan.decode()
    video = load_video_backbone(folder, efficiency=EfficiencySettings(tiled_decoding=True))
    latents = torch.randn(1, *plan.latent_shape)
    with torch.no_grad():
        done = measure(lambda: video.decode_latents(latents))
    # Tiles at the edges are smaller; the plan counts whole ones.
    assert done.flops <= counted.flops <= 2.5 * done.flops
    assert 0.8 * done.peak <= counted.peak <= 2.5 * done.peak


def test_idle_parts_on_the_cpu_are_not_counted(settings):
    known = Known()
    plain = TrainPlanner(settings)
    costs = plain.costs(known)
    offloaded = TrainPlanner(with_efficiency(settings, offload=True))
    assert offloaded.costs(known) == costs, "nothing is measured again for it"
    less = plain.evaluation(costs).memory - offloaded.evaluation(costs).memory
    assert 0 < less <= module_bytes(plain.video.transformer)


def test_remedies_end_with_what_changes_pixels(settings):
    flags = [remedy.flags for remedy in remedies(settings)]
    offload = "--efficiency.offload --efficiency.offload-activations"
    assert flags[-2].endswith(offload)
    assert flags[-1].endswith(f"{offload} --efficiency.tiled-decoding")
    last = remedies(settings)[-1].settings
    assert last.efficiency == EfficiencySettings(offload=True, offload_activations=True, tiled_decoding=True)
    assert remedies(last) == []
    assert efficiency_changes(last.efficiency, ("offload", "tiled_decoding")) == []


def test_a_geometry_model_on_the_disk_is_known_by_its_names(tmp_path, capsys):
    """As `load_geometry_backbone` knows it, of the official dimensions; values of weights are not read."""
    copy = tmp_path / "VGGT-1B"
    copy.mkdir()
    (copy / "config.json").write_text('{"img_size": 518, "patch_size": 14, "embed_dim": 1024}')
    save_file({"aggregator.camera_token": torch.zeros(1)}, copy / "model.safetensors")
    published = tmp_path / "any4d_4v_combined.pth"
    torch.save(
        {"model": {"encoder.model.cls_token": torch.zeros(1), "info_sharing.x": torch.zeros(1)}}, published
    )
    for place, network in ((copy, VGGT), (copy / "model.safetensors", VGGT), (published, Any4D)):
        model = geometry_on_meta(str(place))
        assert type(model) is network
        assert model.config == network.config_type.official()
    tiny_vggt().save_pretrained(tmp_path / "ours")
    assert geometry_on_meta(str(tmp_path / "ours")).config == tiny_vggt().config

    save_file({"decoder.weight": torch.zeros(1)}, copy / "model.safetensors")
    with pytest.raises(ConfigError, match="holds no network that is known here"):
        geometry_on_meta(str(copy))
    (copy / "model.safetensors").write_bytes(b"")
    with pytest.raises(CorruptFileError, match=r"model\.safetensors is damaged"):
        geometry_on_meta(str(copy))
    with pytest.raises(ConfigError, match="only the weights of someone/vggt say which network it is"):
        geometry_on_meta("someone/vggt")


@pytest.mark.parametrize("trainable", ["lora", "full"])
def test_the_gate_needs_the_model_as_saved_and_those_that_it_is_compared_with(trainable):
    settings = load_recipe("micro/train-lgm", LGMSettings, {"trainable": trainable})
    planner = LGMPlanner(settings)
    gate = planner.phases(LGMCosts(*[Cost(1.0, peak=0)] * 6))[-1]
    assert gate.name == "gate"
    models = (planner.finished.model, planner.teacher.model, planner.video.vae)
    assert gate.memory == sum(map(module_bytes, models))


def test_a_latent_geometry_models_clips_need_one_part_at_a_time():
    settings = load_recipe("micro/train-lgm", LGMSettings)
    planner = LGMPlanner(settings)
    costs = planner.costs()
    clips = planner.phases(costs)[0].memory
    video, teacher = planner.video, module_bytes(planner.teacher.model)
    largest = max(module_bytes(video.transformer), video.text_encoder_bytes)
    assert clips >= teacher + module_bytes(video.vae) + largest
    offloaded = LGMPlanner(
        settings.model_copy(update={"efficiency": EfficiencySettings(offload=True)})
    ).phases(costs)[0]
    assert teacher + largest <= offloaded.memory < clips
    assert "--efficiency.tiled-decoding" in lgm_remedies(settings)[-1].flags
