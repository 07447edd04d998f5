"""The report of a run, and the comparison of several runs: one HTML file each, without external resources."""

from bertlora.evaluation.report.comparing import comparison_facts, render_comparison
from bertlora.evaluation.report.facts import Material, facts_of, worst_rows
from bertlora.evaluation.report.page import render
from bertlora.evaluation.report.writing import report_training, write_report
from bertlora.evaluation.side_by_side import short_names

__all__ = [
    "Material",
    "comparison_facts",
    "facts_of",
    "render",
    "render_comparison",
    "report_training",
    "short_names",
    "worst_rows",
    "write_report",
]
