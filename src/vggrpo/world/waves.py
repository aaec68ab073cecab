"""The wave of textures and bends: a sine made of parabolas, which rounds alike however tensors are split."""

from torch import Tensor


def wave(phase: Tensor) -> Tensor:
    """A sine of period 1 and amplitude 1 made of parabolas."""
    phase = phase - phase.round()
    return phase * (8 - 16 * phase.abs())


def wave_slope(phase: Tensor) -> Tensor:
    """The derivative of `wave`."""
    return 8 - 32 * (phase - phase.round()).abs()
