"""Studies run through Papermill, and what they leave behind.

A notebook needs `Run` alone, so only that is loaded with the package: Papermill takes a second to import.
"""

from xaitools.reports.output import Run

__all__ = ["Run"]
