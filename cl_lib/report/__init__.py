"""Reports on records: text for the terminal, data frames, figures and self-contained HTML pages."""

from cl_lib.report.bars import slice_bars
from cl_lib.report.entries import entries
from cl_lib.report.html import write_report
from cl_lib.report.plots import accuracy_matrices, over_time, reliability_diagrams
from cl_lib.report.table import as_text, comparison, notes, summary

__all__ = [
    "accuracy_matrices",
    "as_text",
    "comparison",
    "entries",
    "notes",
    "over_time",
    "reliability_diagrams",
    "slice_bars",
    "summary",
    "write_report",
]
