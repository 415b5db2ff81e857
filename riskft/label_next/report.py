"""What ``riskft next`` writes and prints: the chosen scans as CSV and as a table, and a panel of each."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import nibabel as nib
from rich.table import Table
from rich.text import Text

from riskft.data.io.native import native_grid, to_native
from riskft.data.patches.batch import read_case
from riskft.data.prepare.cache import PreparedCase
from riskft.evaluation.cases import spacing_of
from riskft.files import csv_text, safe_name
from riskft.label_next.choose import Choice
from riskft.label_next.look import Look
from riskft.label_next.store import Glance
from riskft.plots.unlabelled import UnlabelledPanel

COLUMNS = ("rank", "subject", "files", "mean_expected_risk", "expected_dice", "distance", "reason")


@dataclass(frozen=True)
class Chosen:
    """A chosen scan."""

    rank: int  #: From 1.
    scan: PreparedCase
    glance: Glance  #: What the network found.
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
                f"{one.glance.risk:.4f}",
                _number(one.glance.dice),
                _number(one.choice.distance),
                one.choice.reason,
            ]
            for one in chosen
        ],
    )


def next_table(chosen: Sequence[Chosen], scans: int) -> Table:
    """Returns the chosen scans for the terminal; ``scans`` is the number that they were chosen from."""
    dice = not all(math.isnan(one.glance.dice) for one in chosen)
    columns = ["", "subject", "expected\nrisk", *(["expected\nDice"] if dice else []), "distance", "reason"]
    table = Table(title=f"Annotate next: {len(chosen)} of {scans} scans", title_justify="left", show_lines=True)
    for name in columns:
        # a name or a reason goes on in the next line rather than being cut
        table.add_column(name, overflow="fold", justify="left" if name in ("subject", "reason") else "right")
    for one in chosen:
        numbers = [one.glance.risk, *([one.glance.dice] if dice else []), one.choice.distance]
        cells = [_number(number) or "-" for number in numbers]
        table.add_row(str(one.rank), Text(one.scan.subject), *cells, one.choice.reason)
    return table


def panel_of(chosen: Chosen, look: Look) -> UnlabelledPanel:
    """Returns the panel of a scan on its own grid, turned to RAS."""
    volume = read_case(chosen.scan)
    own = native_grid(chosen.scan.case)[1]
    image = to_native(volume.image[0, :1], volume.affine, chosen.scan.case)[0].numpy()
    axes = nib.io_orientation(own)
    return UnlabelledPanel(
        title=f"{chosen.rank}. {chosen.scan.subject}\n{chosen.choice.reason}",
        image=nib.apply_orientation(image, axes),
        prediction=nib.apply_orientation(look.classes, axes),
        risk=nib.apply_orientation(look.risks, axes),
        spacing=spacing_of(own @ nib.orientations.inv_ornt_aff(axes, image.shape)),
    )


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3f}"
