import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tiny_models import tiny_any4d_config
from vggrpo.backbones import VideoBackbone, load_video_backbone
from vggrpo.backbones.any4d import Any4D
from vggrpo.data import Prompt
from vggrpo.evaluation import (
    EvaluationRecords,
    HeldOutEvaluator,
    HeldOutSettings,
    KeyFrameTeacher,
    SampledBlock,
    camera_motion_amount,
    compare,
    flow_jerk,
    group_diversity,
    rows_of,
    time_reward_paths,
)
from vggrpo.evaluation.diversity import clip_thumbnail
from vggrpo.evaluation.heldout import geometry_errors
from vggrpo.geometry import SceneGeometry, intrinsics_from_fov, so3_exp, unproject
from vggrpo.lgm import Connector, LatentGeometryModel
from vggrpo.rewards import CameraMotionReward, ReprojectionReward

PROMPTS = [
    Prompt("still", "a red box in a gray room, the camera pans left", "static"),
    Prompt("moving", "a blue sphere in a white room, the blue sphere spins", "dynamic"),
    Prompt("third", "a green cylinder in a gray room", "static"),
]
SETTINGS = HeldOutSettings(num_frames=9, height=16, width=32, num_noises=2, num_steps=2, micro_batch=4)
REWARDS = {"camera_motion": CameraMotionReward(), "reprojection": ReprojectionReward()}

Geometry = Callable[[Tensor], SceneGeometry]
MakeEvaluator = Callable[..., HeldOutEvaluator]


def small_any4d() -> Any4D:
    config = tiny_any4d_config(encoder_depth=1, dpt_layer_dims=(4, 4, 8, 8))
    model = Any4D(config)
    generator = torch.Generator().manual_seed(3)
    model.reset_parameters(depth=3.0, generator=generator)
    with torch.no_grad():  # away from the plain start, at which nothing depends on the picture
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
        model.network.dense_head.regressor.out.weight.mul_(10)
    return model.requires_grad_(False).eval()


def pinhole(geometry: Callable[[Tensor], SceneGeometry]) -> Callable[[Tensor], SceneGeometry]:
    """The untrained network's cameras and depths as a scene that rewards can score; its rays fit none."""

    def call(inputs: Tensor) -> SceneGeometry:
        scene = geometry(inputs)
        depth = scene.depth_z.abs() + 1
        intrinsics = intrinsics_from_fov(1.0, scene.height, scene.width).expand_as(scene.intrinsics)
        points = unproject(depth, intrinsics, scene.camera_to_world)
        return SceneGeometry(scene.camera_to_world, intrinsics, depth, points)

    return call


@pytest.fixture(scope="module")
def video(tiny_pipeline: Path) -> VideoBackbone:
    return load_video_backbone(tiny_pipeline)


@pytest.fixture(scope="module")
def teacher(video: VideoBackbone) -> Geometry:
    return pinhole(KeyFrameTeacher(small_any4d(), video.latent_spec))


@pytest.fixture(scope="module")
def lgm(video: VideoBackbone) -> Geometry:
    geometry = small_any4d()
    point = geometry.stitch_point("E0")
    torch.manual_seed(4)
    connector = Connector(video.latent_spec.channels, point.width, (2, 4), point.num_special_tokens)
    return pinhole(LatentGeometryModel(geometry, connector, "E0", video.latent_spec, "tiny", "tiny"))


@pytest.fixture
def make_evaluator(video: VideoBackbone, lgm: Geometry, teacher: Geometry) -> MakeEvaluator:
    def make(prompts=PROMPTS, settings=SETTINGS, **options) -> HeldOutEvaluator:
        return HeldOutEvaluator(video, lgm, teacher, REWARDS, prompts, settings, **options)

    return make


def test_every_sample_is_measured_once_by_every_metric(make_evaluator: MakeEvaluator) -> None:
    blocks: list[SampledBlock] = []
    records = make_evaluator().evaluate(on_block=lambda _, block: blocks.append(block))
    assert records.keys == [(prompt.id, k) for prompt in PROMPTS for k in (0, 1)]
    assert records.columns["kind"] == ["static", "static", "dynamic", "dynamic", "static", "static"]
    expected = {f"{source}/{name}" for source in ("lgm", "teacher") for name in REWARDS}
    assert expected < set(records.metrics)
    assert {"flow_jerk", "camera_path", "sharpness", "diversity", "fidelity/rotation_deg"} < set(
        records.metrics
    )
    assert {"camera_extent", "flow_drift", "object_presence"} < set(records.metrics)
    frames = torch.cat([block.frames for block in blocks])
    assert frames.shape == (6, 9, 16, 32, 3)
    np.testing.assert_allclose(records.values("flow_jerk"), flow_jerk(frames).numpy(), rtol=1e-5)
    assert all(np.isfinite(records.values(name)).all() for name in records.metrics)
    diversity = float(group_diversity(clip_thumbnail(frames[2:4])))
    assert records.columns["diversity"][2:4] == pytest.approx([diversity, diversity])


def test_columns_hold_the_rewards_of_latents_and_of_decoded_frames(
    make_evaluator: MakeEvaluator, lgm: Geometry, teacher: Geometry
) -> None:
    blocks: list[SampledBlock] = []
    records = make_evaluator(PROMPTS[:2]).evaluate(on_block=lambda _, block: blocks.append(block))
    (block,) = blocks
    reward = REWARDS["camera_motion"]
    with torch.no_grad():
        by_latents, by_frames = reward(lgm(block.latents)), reward(teacher(block.frames))
    np.testing.assert_allclose(records.values("lgm/camera_motion"), by_latents.value.numpy(), rtol=1e-4)
    np.testing.assert_allclose(records.values("teacher/camera_motion"), by_frames.value.numpy(), rtol=1e-4)
    assert by_frames.valid.all()
    assert (by_latents.value - by_frames.value).abs().max() > 1e-3


def test_the_same_model_gives_the_same_records_and_no_change(make_evaluator: MakeEvaluator) -> None:
    first, second = make_evaluator().evaluate(), make_evaluator().evaluate()
    for row in rows_of(compare(first, second), "all").values():
        assert row.change.mean == 0
        assert row.verdict == "no clear change"


def test_records_do_not_depend_on_batching_or_on_the_other_prompts(make_evaluator: MakeEvaluator) -> None:
    whole = make_evaluator().evaluate()
    single = HeldOutSettings(9, 16, 32, num_noises=2, num_steps=2, micro_batch=1)
    alone = make_evaluator(PROMPTS[1:2], single).evaluate()
    for name in whole.metrics:
        np.testing.assert_allclose(
            alone.values(name), whole.values(name)[2:4], rtol=2e-3, atol=1e-4, err_msg=name
        )


def test_an_interrupted_evaluation_continues_where_it_was(
    make_evaluator: MakeEvaluator, tmp_path: Path
) -> None:
    def stop(records: EvaluationRecords, block: SampledBlock) -> None:
        records.save(tmp_path / "part.json")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_evaluator().evaluate(on_block=stop)
    part = EvaluationRecords.load(tmp_path / "part.json")
    assert part.keys == [("still", 0), ("still", 1), ("moving", 0), ("moving", 1)]
    new_blocks: list[SampledBlock] = []
    continued = make_evaluator().evaluate(part, on_block=lambda _, block: new_blocks.append(block))
    assert [block.keys for block in new_blocks] == [[("third", 0), ("third", 1)]]
    assert len(part) == 4
    whole = make_evaluator().evaluate()
    assert continued.keys == whole.keys
    np.testing.assert_allclose(
        continued.values("teacher/camera_motion"), whole.values("teacher/camera_motion")
    )


def test_progress_rises_to_the_number_of_samples(make_evaluator: MakeEvaluator) -> None:
    evaluator = make_evaluator()
    seen: list[tuple[float, int]] = []
    evaluator.evaluate(on_progress=lambda done, total: seen.append((done, total)))
    done = [step for step, _ in seen]
    assert done == sorted(done)
    assert seen[-1] == (6.0, 6)
    assert len(done) > 4


def test_a_failed_reward_is_missing_and_not_zero(
    video: VideoBackbone, lgm: Geometry, teacher: Geometry
) -> None:
    impossible = {"reprojection": ReprojectionReward(min_overlap=0.999, exclude_own=True)}
    records = HeldOutEvaluator(video, lgm, teacher, impossible, PROMPTS[:1], SETTINGS).evaluate()
    assert np.isnan(records.values("lgm/reprojection")).all()


def test_a_teacher_that_sees_nothing_costs_one_clip_and_not_the_evaluation(
    teacher: Geometry,
) -> None:
    with torch.no_grad():
        scene = teacher(torch.rand(3, 9, 16, 32, 3, generator=torch.Generator().manual_seed(0)))
    depth = scene.depth_z.clone()
    depth[1] = 0
    errors = geometry_errors(scene, dataclasses.replace(scene, depth_z=depth))
    for name, values in errors.items():
        assert values.isnan().tolist() == [False, True, False], name
        assert float(values[[0, 2]].abs().max()) < 1e-3
    blind = geometry_errors(scene, dataclasses.replace(scene, depth_z=torch.zeros_like(depth)))
    assert all(values.isnan().all() for values in blind.values())


def test_one_noise_has_no_diversity(make_evaluator: MakeEvaluator) -> None:
    records = make_evaluator(PROMPTS[:1], HeldOutSettings(9, 16, 32, num_noises=1, num_steps=1)).evaluate()
    assert "diversity" not in records.metrics


def test_bad_prompts_and_settings_are_named(make_evaluator: MakeEvaluator) -> None:
    with pytest.raises(ValueError, match="prompts is empty"):
        make_evaluator([])
    with pytest.raises(ValueError, match="'still' twice"):
        make_evaluator([PROMPTS[0], PROMPTS[0]])
    with pytest.raises(ValueError, match="prompt_embeds has 1 rows for 3 prompts"):
        make_evaluator(prompt_embeds=torch.zeros(1, 4, 16))
    with pytest.raises(ValueError, match="num_steps is 0"):
        HeldOutSettings(9, 16, 32, num_steps=0)
    with pytest.raises(ValueError, match="num_frames is 10"):
        make_evaluator(settings=HeldOutSettings(10, 16, 32))


def test_camera_motion_amount_of_a_known_path() -> None:
    views, angle = 5, 0.1
    pose = torch.eye(4).repeat(1, views, 1, 1)
    steps = torch.arange(views)
    pose[0, :, 0, 3] = 0.5 * steps
    pose[0, :, :3, :3] = so3_exp(torch.stack([0 * steps, angle * steps, 0 * steps], -1).float())
    depth = torch.full((1, views, 4, 4), 4.0)
    scene = SceneGeometry(pose, torch.eye(3).repeat(1, views, 1, 1), depth, torch.zeros(1, views, 4, 4, 3))
    amount = camera_motion_amount(scene)
    assert float(amount["camera_path"]) == pytest.approx(4 * 0.5 / 4.0)
    assert float(amount["camera_extent"]) == pytest.approx(4 * 0.5 / 4.0)
    assert float(amount["camera_turn"]) == pytest.approx(np.degrees(4 * angle), rel=1e-4)


def test_a_camera_that_goes_to_and_fro_has_a_path_but_little_extent() -> None:
    pose = torch.eye(4).repeat(1, 5, 1, 1)
    pose[0, :, 0, 3] = torch.tensor([0.0, 0.4, 0.0, 0.4, 0.0])
    scene = SceneGeometry(
        pose, torch.eye(3).repeat(1, 5, 1, 1), torch.full((1, 5, 4, 4), 2.0), torch.zeros(1, 5, 4, 4, 3)
    )
    amount = camera_motion_amount(scene)
    assert float(amount["camera_path"]) == pytest.approx(4 * 0.4 / 2)
    assert float(amount["camera_extent"]) == pytest.approx(0.4 / 2)


def test_the_stochastic_sampler_is_the_ode_without_stochastic_steps_and_another_with_them(
    make_evaluator: MakeEvaluator,
) -> None:
    ode = make_evaluator(PROMPTS[:2]).evaluate()
    stochastic = dataclasses.replace(SETTINGS, sampler="sde")
    none = make_evaluator(PROMPTS[:2], dataclasses.replace(stochastic, window=(0, 0))).evaluate()
    some, again = (make_evaluator(PROMPTS[:2], stochastic).evaluate() for _ in range(2))
    assert none.columns == ode.columns
    assert some.columns == again.columns
    assert (some.values("brightness") != ode.values("brightness")).all()


def test_an_unknown_sampler_is_named() -> None:
    with pytest.raises(ValueError, match="sampler is 'sd', expected one of ode, sde"):
        dataclasses.replace(SETTINGS, sampler="sd")


def test_both_reward_paths_are_timed_in_turns(video: VideoBackbone, lgm: Geometry, teacher: Geometry) -> None:
    calls: list[str] = []

    def noted(name: str, function: Callable) -> Callable:
        def call(value):
            calls.append(name)
            return function(value)

        return call

    latents = torch.randn(4, 4, 3, 4, 8, generator=torch.Generator().manual_seed(0))
    decode = video.decode_latents
    timing = time_reward_paths(
        latents,
        noted("lgm", lgm),
        noted("decode", decode),
        noted("teacher", teacher),
        REWARDS,
        repeats=3,
        warmup=1,
    )
    assert calls == ["lgm", "decode", "teacher"] * 4
    assert list(timing.latent) == ["latent geometry", "rewards"]
    assert list(timing.pixel) == ["decode", "geometry", "rewards"]
    for total, phases in ((timing.latent_total, timing.latent), (timing.pixel_total, timing.pixel)):
        assert len(total.seconds) == 3
        assert all(seconds > 0 for phase in phases.values() for seconds in phase.seconds)
        assert total.seconds[0] == pytest.approx(sum(phase.seconds[0] for phase in phases.values()))
        low, high = total.quartiles
        assert low <= total.median <= high
    assert timing.batch_size == 4
    assert timing.speedup == pytest.approx(timing.pixel_total.median / timing.latent_total.median)
    with pytest.raises(ValueError, match="repeats is 0"):
        time_reward_paths(latents, lgm, decode, teacher, REWARDS, repeats=0)
