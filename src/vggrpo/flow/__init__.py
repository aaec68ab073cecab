"""The rectified flow: schedules of noise levels, the ODE step, stochastic transitions and their log-probs."""

from vggrpo.flow.schedule import SigmaSchedule, shift_sigma
from vggrpo.flow.steps import (
    TRANSITIONS,
    TransitionKind,
    cps,
    dance_sde,
    flow_sde,
    ode_step,
    predict_noise,
    predict_x0,
)
from vggrpo.flow.transition import Transition, draw_noise

__all__ = [
    "TRANSITIONS",
    "SigmaSchedule",
    "Transition",
    "TransitionKind",
    "cps",
    "dance_sde",
    "draw_noise",
    "flow_sde",
    "ode_step",
    "predict_noise",
    "predict_x0",
    "shift_sigma",
]
