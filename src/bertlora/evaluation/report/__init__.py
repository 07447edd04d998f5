"""The report of a run, and of several side by side: one HTML file each, which fetches nothing."""

from bertlora.evaluation.report.comparing import comparison_facts, render_comparison, short_names
from bertlora.evaluation.report.facts import Material, facts_of
from bertlora.evaluation.report.mistakes import worst_errors
from bertlora.evaluation.report.page import render
from bertlora.evaluation.report.writing import report_training, write_report

__all__ = [
    "Material",
    "comparison_facts",
    "facts_of",
    "render",
    "render_comparison",
    "report_training",
    "short_names",
    "worst_errors",
    "write_report",
]
