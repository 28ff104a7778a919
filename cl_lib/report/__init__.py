"""Reports: text for the terminal, frames, figures, one self-contained page."""

from cl_lib.report.html import write_report
from cl_lib.report.table import as_text, comparison, notes, summary

__all__ = ["as_text", "comparison", "notes", "summary", "write_report"]
