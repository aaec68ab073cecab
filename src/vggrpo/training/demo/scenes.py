"""The 4D scenes of the demo's report: before and after, for the first prompt of each kind."""

import torch

from vggrpo.config import TrainSettings
from vggrpo.evaluation import EvaluationRecords, KeyFrameTeacher
from vggrpo.io import read_video
from vggrpo.training.rewards import build_rewards
from vggrpo.training.run_files import sample_video
from vggrpo.viewer import Scene4D, build_scene


def scene_pairs(
    train: TrainSettings, records: EvaluationRecords, teacher: KeyFrameTeacher
) -> list[tuple[Scene4D, Scene4D]]:
    """Scenes before and after training, of the first noise of the first prompt of each kind.

    Args:
        train: the run, whose sample videos are read.
        records: of an evaluation, for prompts and their kinds.
        teacher: what sees the scenes.
    """
    first: dict[str, int] = {}
    for row, (key, kind) in enumerate(zip(records.keys, records.columns["kind"], strict=True)):
        if key[1] == 0:
            first.setdefault(kind, row)
    return [
        (
            _scene(train, records, row, teacher, 0, "Before"),
            _scene(train, records, row, teacher, train.iterations, "After"),
        )
        for row in first.values()
    ]


def _scene(
    train: TrainSettings,
    records: EvaluationRecords,
    row: int,
    teacher: KeyFrameTeacher,
    iteration: int,
    label: str,
) -> Scene4D:
    video, fps = read_video(sample_video(train.output, iteration, records.keys[row]))
    frames = torch.as_tensor(video).float() / 255
    geometry = teacher(frames[None])
    reprojection = train.rewards.reprojection
    return build_scene(
        geometry,
        frames,
        teacher.view_frames(geometry.num_views),
        fps=fps,
        rewards=build_rewards(train.rewards),
        flow_threshold=reprojection.flow_threshold,
        relative=reprojection.relative,
        label=label,
        prompt=records.columns["prompt"][row],
    )
