"""Whether a pipeline is sampled on Wan's sigma grid, with which shift, and what its denoiser predicts."""

from collections.abc import Mapping
from typing import Any

REQUIRED = {
    "use_flow_sigmas": True,
    "num_train_timesteps": 1000,
    "final_sigmas_type": "zero",
}
PREDICTION_TYPES = ("flow_prediction", "sample")
"""Names, in the scheduler's configuration, of a denoiser that predicts the velocity, or the clean latents."""
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


def predicts_clean_latents(scheduler_config: Mapping[str, Any]) -> bool:
    """Whether the denoiser predicts the clean latents, not the velocity as Wan's own do.

    Raises:
        ValueError: if it predicts something else.
    """
    prediction = scheduler_config.get("prediction_type")
    if prediction not in PREDICTION_TYPES:
        raise ValueError(
            f"the scheduler's prediction_type is {prediction!r}, expected one of "
            f"{', '.join(PREDICTION_TYPES)}"
        )
    return prediction == "sample"
