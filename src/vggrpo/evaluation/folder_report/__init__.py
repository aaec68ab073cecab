"""One self-contained HTML page about an evaluated folder of videos."""

from vggrpo.evaluation.folder_report.page import REPORT_NAME, write_folder_report

__all__ = ["REPORT_NAME", "write_folder_report"]
