"""One self-contained HTML file that shows a run."""

from specmine.report.html import report_html

__all__ = ["report_html"]
