"""`vggrpo doctor`: what this machine has of what the commands need."""

from vggrpo.training.doctor.findings import Finding, examine, findings_table
from vggrpo.training.doctor.weights import report_weights

__all__ = ["Finding", "examine", "findings_table", "report_weights"]
