"""Settings of `vggrpo evaluate`: which videos, which metrics, and how they run."""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, field_validator

from vggrpo.config.base import Settings

ClassicalMetric = Literal["epipolar", "dynamics", "features"]
VBenchDimension = Literal[
    "subject_consistency",
    "background_consistency",
    "aesthetic_quality",
    "imaging_quality",
    "motion_smoothness",
    "dynamic_degree",
    "temporal_flickering",
]


class EvaluateSettings(Settings):
    """Measures every video of a folder, whoever made them, and compares it with a reference folder.

    `vggrpo evaluate --setup vbench` makes the environment that --vbench needs.
    """

    free_on_resume: ClassVar[frozenset[str]] = frozenset(
        {
            "output",
            "resume",
            "reference",
            "label",
            "metrics",
            "geometry_model",
            "geometry_stride",
            "geometry_views",
            "geometry_side",
            "video_reward",
            "video_reward_base",
            "video_reward_tie",
            "vbench",
            "workers",
            "batch_size",
            "device",
            "max_clip_gigabytes",
            "seed",
        }
    )
    """All but the videos: what was measured is found again by file and by the metric's own settings."""

    folder: Path = Field(
        description="folder of videos, or a manifest of them (.jsonl or .csv: path, prompt, prompt_id, seed, "
        "kind)"
    )
    output: Path = Field(description="folder of the results to create")
    reference: Path | None = Field(
        None,
        description="folder or manifest to compare with, paired by prompt and seed; its clips that have no "
        "counterpart are not measured",
    )
    label: str | None = Field(None, description="name of the videos in tables; the folder's if unset")
    resume: bool = Field(
        False, description="continue in `output`: clips that are measured already are not measured again"
    )
    metrics: tuple[ClassicalMetric, ...] = Field(
        ("epipolar", "dynamics", "features"), description="classical metrics, which need no model"
    )
    geometry_model: str | None = Field(
        None,
        description="geometry model for camera and depth metrics: a name, folder, weight file or repository; "
        "without it they are not run",
    )
    geometry_stride: PositiveInt = Field(4, description="frames between the views of the geometry model")
    geometry_views: int = Field(
        21, ge=3, description="most views of a clip; views of longer clips are further apart"
    )
    geometry_side: PositiveInt = Field(518, description="longer side of the views, pixels; never enlarged")
    video_reward: str | None = Field(
        None,
        description="VideoReward checkpoint: a folder or repository (KwaiVGI/VideoReward); without it its "
        "scores are not run",
    )
    video_reward_base: str | None = Field(
        None, description="folder or repository of its base model, Qwen2-VL; the one it names if unset"
    )
    video_reward_tie: NonNegativeFloat = Field(
        0.0, description="difference of two VideoReward scores up to which a pair is a tie in win rates"
    )
    vbench: tuple[VBenchDimension, ...] = Field(
        (), description="dimensions of VBench, which needs `vggrpo evaluate --setup vbench` once before"
    )
    batch_size: PositiveInt = Field(1, description="clips at once in models")
    device: str = Field("auto", description="where models run; auto is CUDA if there is any, else the CPU")
    workers: NonNegativeInt | None = Field(
        None,
        description="processes that decode and measure; one for each CPU if unset, and 0 does it in this one",
    )
    max_clip_gigabytes: PositiveFloat = Field(
        4.0, description="a clip whose decoded frames need more memory fails (3 bytes a pixel and frame)"
    )
    seed: NonNegativeInt = Field(0, description="seed of the bootstrap intervals")

    @field_validator("metrics", "vbench")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError(f"they are {', '.join(value)}; give each only once")
        return value


class EvaluateSetupSettings(Settings):
    """Makes the environment that `vggrpo evaluate --vbench` needs, and fetches its dimensions' weights."""

    setup: Literal["vbench"] = Field(description="what to set up")
    python: Path | None = Field(
        None, description="interpreter to make the environment with, 3.10 or 3.11; one is looked for if unset"
    )
    device: str = Field("auto", description="where every dimension is tried; auto is CUDA if there is any")
