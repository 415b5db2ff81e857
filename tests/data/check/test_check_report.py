"""What the data check prints and logs."""

import io
import logging
from pathlib import Path

from rich.console import Console

from riskft.data.check.report import CheckReport, CheckRow
from riskft.data.findings import Finding, WarningKind

WARNINGS = [Finding(WarningKind.HEADER, name, Path(f"{name}.nii"), f"{name}.nii: looks odd.") for name in "abc"]


def test_warnings_are_printed_after_the_summary_and_are_no_faults() -> None:
    stream = io.StringIO()
    report = CheckReport([CheckRow(name, "train") for name in "abc"], [], WARNINGS)
    report.render(Console(file=stream, width=200))
    lines = stream.getvalue().splitlines()[-5:]
    assert lines[0] == "3 cases (3 train); 0 faults"
    assert lines[1] == "3 warnings: 3x header that programs read differently"
    assert lines[2:] == [f"  - {warning}" for warning in WARNINGS]
    report.raise_if_faulty()


def test_a_log_gets_one_line_per_kind_of_warning(caplog) -> None:
    with caplog.at_level(logging.WARNING):
        CheckReport([], [], WARNINGS).log_warnings(logging.getLogger("any"))
        CheckReport([], [], []).log_warnings(logging.getLogger("any"))
    (message,) = caplog.messages
    assert message.startswith("a: header that programs read differently: a.nii: looks odd.")
    assert message.endswith("And 2 more, which `riskft data check` lists.")
