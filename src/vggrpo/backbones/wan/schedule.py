"""Whether a pipeline is sampled on Wan's sigma grid, and with which shift."""

from collections.abc import Mapping
from typing import Any

REQUIRED = {
    "prediction_type": "flow_prediction",
    "use_flow_sigmas": True,
    "num_train_timesteps": 1000,
    "final_sigmas_type": "zero",
}
EXCLUDED = (
    "use_dynamic_shifting",
    "shift_terminal",
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
)


def configured_flow_shift(scheduler_config: Mapping[str, Any]) -> float:
    """The flow shift of a UniPC configuration whose grid is `SigmaSchedule.unipc`.

    Raises:
        ValueError: if the scheduler is of another class or its options lead to another grid.
    """
    name = scheduler_config.get("_class_name")
    if name != "UniPCMultistepScheduler":
        raise ValueError(
            f"the pipeline's scheduler is {name}, whose sigma grid is not Wan's; "
            "expected a UniPCMultistepScheduler with use_flow_sigmas"
        )
    for key, expected in REQUIRED.items():
        if scheduler_config.get(key) != expected:
            raise ValueError(
                f"the scheduler's {key} is {scheduler_config.get(key)!r}, expected {expected!r}: "
                "the model is not sampled on Wan's sigma grid"
            )
    for key in EXCLUDED:
        if scheduler_config.get(key):
            raise ValueError(
                f"the scheduler's {key} is {scheduler_config[key]!r}: such a sigma grid is not supported"
            )
    return float(scheduler_config["flow_shift"])
