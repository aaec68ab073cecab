"""The demo: every stage of the method on one machine, ending in a report."""

from vggrpo.training.demo.stages import run_demo

__all__ = ["run_demo"]
