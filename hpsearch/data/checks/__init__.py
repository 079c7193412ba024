"""Looks for what would make results wrong: duplicates, leaks, shift, odd classes and images."""

from hpsearch.data.checks.findings import CheckReport, Finding, Pair, Severity, Shift
from hpsearch.data.checks.run import check_images, store_report, stored_report
from hpsearch.data.checks.shift import shift_against, shift_verdict

__all__ = [
    "CheckReport",
    "Finding",
    "Pair",
    "Severity",
    "Shift",
    "check_images",
    "shift_against",
    "shift_verdict",
    "store_report",
    "stored_report",
]
