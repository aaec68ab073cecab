"""When `vggrpo train` raises an alarm, whose rules stand in `vggrpo.evaluation.alarms`."""

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from vggrpo.config.base import Settings


class AlarmSettings(Settings):
    """Thresholds of the alarms; a statistic counts only where its whole interval lies beyond its own."""

    evaluations: PositiveInt = Field(
        2, description="evaluations in a row that must show a fault before its alarm is raised"
    )
    least_prompts: int = Field(
        8,
        ge=2,
        description="held-out prompts below which intervals are too narrow to be believed: with fewer, only "
        "kl_runaway can be raised",
    )
    reward_gain: NonNegativeFloat = Field(
        0.1,
        description="gain of a reward by the latent geometry model, in standard deviations of the base's "
        "samples, from which on the teacher's must follow",
    )
    reward_share: float = Field(
        0.33, ge=0, le=1, description="least share of that gain that the teacher must see on decoded video"
    )
    motion_floor: float = Field(0.9, gt=0, lt=1, description="least motion amount, as a share of the base's")
    pixel_band: float = Field(
        0.05, gt=0, lt=1, description="largest change of a pixel statistic, as a share of the base's value"
    )
    diversity_floor: float = Field(
        0.8, gt=0, lt=1, description="least diversity within a prompt, as a share of the base's"
    )
    kl_limit: PositiveFloat = Field(0.05, description="largest KL per step to the base model, as `policy/kl`")
    kl_growth: float = Field(
        4.0,
        gt=1,
        description="largest factor by which the KL may grow over `evaluations` evaluations; it counts above "
        "half of kl_limit",
    )
