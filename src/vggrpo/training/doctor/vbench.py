"""The environment in which `vggrpo evaluate --vbench` runs VBench."""

from vggrpo.evaluation.vbench import COMMAND, DIMENSIONS, vbench_state
from vggrpo.training.doctor.finding import Finding


def vbench() -> Finding:
    """Whether it is there, and which dimensions can be measured."""
    state = vbench_state()
    if state.problem is not None:
        return Finding("VBench", "note", state.problem, f"for `vggrpo evaluate --vbench`: {COMMAND}")
    found = f"{len(DIMENSIONS) - len(state.unavailable)} of {len(DIMENSIONS)} dimensions at {state.folder}"
    if state.unavailable:
        listed = "; ".join(f"{dimension}: {reason}" for dimension, reason in state.unavailable.items())
        return Finding("VBench", "note", f"{found}; {listed}", f"to try again: {COMMAND}")
    return Finding("VBench", "ok", found)
