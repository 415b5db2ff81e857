"""The data check's report: one row per subject, all faults and all warnings."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from riskft.data.findings import Finding
from riskft.errors import InputError


@dataclass(frozen=True)
class BackgroundSize:
    """The background of one image, see ``riskft.data.prepare.background``."""

    value: float | None  #: Its grey value; None without a background.
    voxels: int  #: Number of its voxels.
    share: float  #: Their fraction of the image.
    is_level: bool  #: Whether the value is one of the scan's grey levels.

    def __str__(self) -> str:
        if self.value is None:
            return "no background"
        level = ", a grey level" if self.is_level else ""
        return f"background {self.value:.4g} in {self.voxels:,} ({100 * self.share:.1f} %){level}"


@dataclass(frozen=True)
class CheckRow:
    """One subject's row. What could not be read is None, or missing in the mappings."""

    subject: str  #: Identifier.
    split: str  #: One of ``SPLITS``.
    person: str | None = None  #: Whose scans these are, see ``Case.person``; None if the subject is the person.
    shape: tuple[int, ...] | None = None  #: Voxels along each axis.
    spacing: tuple[float, ...] | None = None  #: Voxel edge lengths in mm.
    orientation: str | None = None  #: Where the axes point, for example LPS; "?" if the file does not say (Analyze).
    #: Lowest and highest finite value by modality.
    intensity: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    background: Mapping[str, BackgroundSize] = field(default_factory=dict)  #: By modality.
    #: Number of voxels by class name, background first, "ignore" last if the map has such values.
    voxels: Mapping[str, int] = field(default_factory=dict)

    @property
    def owner(self) -> str:
        """The person who was scanned."""
        return self.subject if self.person is None else self.person


@dataclass(frozen=True)
class CheckReport:
    """The result of the data check."""

    rows: Sequence[CheckRow]  #: One per case, by split.
    faults: Sequence[Finding]  #: All faults, by case.
    warnings: Sequence[Finding] = ()  #: Findings that do not prevent training, by case.

    def raise_if_faulty(self) -> None:
        """Raises InputError with one line per fault if there are any."""
        if self.faults:
            raise InputError(
                f"The data has {_count(len(self.faults), 'fault')}:", [str(fault) for fault in self.faults]
            )

    def log_warnings(self, log: logging.Logger) -> None:
        """Logs one line per kind of warning, for commands other than the check."""
        for kind in dict.fromkeys(warning.kind for warning in self.warnings):
            first, *others = [warning for warning in self.warnings if warning.kind is kind]
            more = f" And {len(others)} more, which `riskft data check` lists." if others else ""
            log.warning("%s%s", first, more)

    def render(self, console: Console) -> None:
        """Prints the table of subjects, a summary, the faults and the warnings; never truncates a number or a path.

        If a terminal is too narrow for one line per subject, each modality and class gets its own. Output to a file
        or pipe has lines of any length.
        """
        table = self._table(stacked=False)
        needed = Measurement.get(console, console.options.update(max_width=10_000), table).maximum
        if needed <= console.width:
            console.print(table)
        elif console.is_terminal:
            console.print(self._table(stacked=True))
        else:
            width, console.width = console.width, needed
            console.print(table)
            console.width = width
        splits = {row.split: [other for other in self.rows if other.split == row.split] for row in self.rows}
        sizes = ", ".join(f"{len(rows)} {split}{self._of_people(rows)}" for split, rows in splits.items())
        cases = f"{_count(len(self.rows), 'case')}{self._of_people(self.rows)}"
        summary = f"{cases} ({sizes}); {_totals('fault', self.faults)}"
        console.print(Text(summary, style="bold red" if self.faults else "bold green"), soft_wrap=True)
        for fault in self.faults:
            console.print(Text(f"  - {fault}"), soft_wrap=True)
        if self.warnings:
            console.print(Text(_totals("warning", self.warnings), style="bold yellow"), soft_wrap=True)
        for warning in self.warnings:
            console.print(Text(f"  - {warning}"), soft_wrap=True)

    @property
    def _grouped(self) -> bool:
        return any(row.owner != row.subject for row in self.rows)

    def _of_people(self, rows: Sequence[CheckRow]) -> str:
        count = len({row.owner for row in rows})
        return f" of {count} {'person' if count == 1 else 'people'}" if self._grouped else ""

    def _table(self, stacked: bool) -> Table:
        faulty = {fault.subject for fault in self.faults}
        modalities = _names([row.intensity for row in self.rows])
        # without background, which is always first: it is the remainder
        classes = _names([row.voxels for row in self.rows])[1:]
        columns = [("grid", "intensity", "voxels"), ("shape", "spacing mm", "axes", *modalities, *classes)]
        table = Table(show_lines=stacked)
        first = ("subject", "split", *(["person"] if self._grouped else []))
        for name in (*first, *columns[not stacked]):
            number = not stacked and name not in first
            table.add_column(Text(name), overflow="fold", justify="right" if number else "left")
        for row in self.rows:
            shape = "x".join(map(str, row.shape)) if row.shape else "-"
            spacing = "x".join(f"{edge:.4g}" for edge in row.spacing) if row.spacing else "-"
            axes = row.orientation or "-"
            greys = [_greys(row, name) for name in modalities]
            counts = [f"{row.voxels[name]:,}" if name in row.voxels else "-" for name in classes]
            cells = [shape, spacing, axes, *greys, *counts]
            if stacked:
                cells = [f"{shape}\n{spacing} mm\n{axes}", _lines(modalities, greys), _lines(classes, counts)]
            style = "red" if faulty & {row.subject, row.owner} else None
            whose = [row.owner] if self._grouped else []
            table.add_row(*map(Text, (row.subject, row.split, *whose, *cells)), style=style)
        return table


def _names(mappings: Sequence[Mapping[str, object]]) -> list[str]:
    # the longest first: the keys of a faulty row have gaps
    return list(dict.fromkeys(name for mapping in sorted(mappings, key=len, reverse=True) for name in mapping))


def _greys(row: CheckRow, name: str) -> str:
    if name not in row.intensity:
        return "-"
    low, high = row.intensity[name]
    return f"{low:.4g}..{high:.4g}" + (f", {row.background[name]}" if name in row.background else "")


def _lines(names: Sequence[str], values: Sequence[str]) -> str:
    return "\n".join(f"{name} {value}" for name, value in zip(names, values, strict=True))


def _totals(noun: str, findings: Sequence[Finding]) -> str:
    kinds = Counter(finding.kind for finding in findings)
    found = "; ".join(f"{count}x {kind.value}" for kind, count in kinds.most_common())
    return f"{_count(len(findings), noun)}{': ' if found else ''}{found}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
