"""The report: scores and images of a run on one HTML page."""

from neurocanvas.report.page import write_report

__all__ = ["write_report"]
