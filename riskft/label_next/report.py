"""What ``riskft next`` writes and prints: the chosen scans as CSV and as a table, and a panel of each."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import nibabel as nib
from rich.table import Table

from riskft.data.patches.batch import read_case
from riskft.data.prepare.cache import PreparedCase
from riskft.evaluation.cases import spacing_of
from riskft.files import csv_text, safe_name
from riskft.label_next.choose import Choice
from riskft.label_next.look import Look
from riskft.plots.unlabelled import UnlabelledPanel

COLUMNS = ("rank", "subject", "files", "expected_risk", "distance", "reason")


@dataclass(frozen=True)
class Chosen:
    """A chosen scan."""

    rank: int  #: From 1.
    scan: PreparedCase
    risk: float  #: Expected risk, 0 to 1.
    choice: Choice

    @property
    def panel(self) -> str:
        """The name of its panel's file."""
        return f"next_{self.rank}_{safe_name(self.scan.subject)}.png"


def next_csv(chosen: Sequence[Chosen]) -> str:
    """Returns the chosen scans as CSV; several files of a scan are separated by semicolons."""
    return csv_text(
        COLUMNS,
        [
            [
                one.rank,
                one.scan.subject,
                ";".join(map(str, one.scan.case.files)),
                f"{one.risk:.4f}",
                _number(one.choice.distance),
                one.choice.reason,
            ]
            for one in chosen
        ],
    )


def next_table(chosen: Sequence[Chosen], scans: int) -> Table:
    """Returns the chosen scans for the terminal; ``scans`` is the number that they were chosen from."""
    table = Table(title=f"Annotate next: {len(chosen)} of {scans} scans", title_justify="left")
    for name in ("", "subject", "expected risk", "distance"):
        table.add_column(name, justify="left" if name == "subject" else "right", no_wrap=name != "subject")
    table.add_column("reason", overflow="fold")
    for one in chosen:
        table.add_row(
            str(one.rank), one.scan.subject, f"{one.risk:.3f}", _number(one.choice.distance) or "-", one.choice.reason
        )
    return table


def panel_of(chosen: Chosen, look: Look) -> UnlabelledPanel:
    """Returns the panel of a scan, turned to RAS."""
    volume = read_case(chosen.scan)
    image = volume.image[0, 0].numpy()
    axes = nib.io_orientation(volume.affine)
    return UnlabelledPanel(
        title=f"{chosen.rank}. {chosen.scan.subject}: {chosen.choice.reason}",
        image=nib.apply_orientation(image, axes),
        prediction=nib.apply_orientation(look.classes, axes),
        risk=nib.apply_orientation(look.risks, axes),
        spacing=spacing_of(volume.affine @ nib.orientations.inv_ornt_aff(axes, image.shape)),
    )


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3f}"
