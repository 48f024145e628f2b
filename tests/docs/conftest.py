"""The summary of what the documentation's test runs."""

from __future__ import annotations


def pytest_terminal_summary(terminalreporter) -> None:
    """Say how many commands and Python blocks are run, and how many are listed as not run."""
    from test_pages import count

    terminalreporter.write_line(count())
