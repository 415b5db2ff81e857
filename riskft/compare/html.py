"""Pieces of HTML: numbers, tables, figures."""

import base64
import math
from collections.abc import Sequence
from html import escape

from riskft.analysis.comparison import ComparisonRow, MetricUnit
from riskft.compare.panels import ShownPanel

#: A cell: its text, and the number that it is sorted by (NaN for none) or None to sort by the text.
Cell = tuple[str, float | None]


def number(value: float, unit: MetricUnit, signed: bool = False) -> str:
    """Returns a mean or a difference as it is shown, ``-`` for NaN."""
    digits = 1 if unit.scale > 1 else 2
    return "-" if math.isnan(value) else f"{value:{'+' if signed else ''}.{digits}f}"


def interval(row: ComparisonRow, unit: MetricUnit, noted: bool = True) -> str:
    """Returns the interval as it is shown, noted with what it is over where it is not over seeds and cases."""
    if math.isnan(row.low):
        return "-"
    note = f" ({row.interval_over})" if noted and row.interval_over != "seeds and cases" else ""
    return f"{number(row.low, unit, True)} to {number(row.high, unit, True)}{note}"


def common_scope(rows: Sequence[ComparisonRow]) -> str:
    """Says what all intervals are over, to be said once; empty where they differ."""
    scopes = {row.interval_over for row in rows if row.interval_over != "-"}
    return f"; intervals over {scopes.pop()}" if len(scopes) == 1 else ""


def p_value(value: float) -> str:
    """Returns p as it is shown."""
    return "-" if math.isnan(value) else "<0.001" if value < 0.001 else f"{value:.3f}"


def outcomes(row: ComparisonRow) -> str:
    """Returns wins/losses/ties as they are shown."""
    return "-" if row.is_baseline else f"{row.wins}/{row.losses}/{row.ties}"


HEADERS = ("class", "method", "baseline", "mean", "difference", "95 % interval", "p", "p (Holm)", "cases", "seeds",
           "wins / losses / ties")  # fmt: skip
TEXT = 3


def result_table(rows: Sequence[ComparisonRow], unit: MetricUnit, caption: str) -> str:
    """Returns the sortable table of a study's rows; what lies wholly on one side of 0 is marked."""
    lines = []
    scope = common_scope(rows)
    for row in rows:
        cells: list[Cell] = [
            (row.class_name, None),
            (row.method, None),
            ("-" if row.is_baseline else row.baseline, None),
            (number(row.mean, unit), row.mean),
            (number(row.difference, unit, True), row.difference),
            (interval(row, unit, noted=not scope), row.low),
            (p_value(row.p), row.p),
            (p_value(row.p_holm), row.p_holm),
            (str(row.cases), row.cases),
            (str(row.seeds), row.seeds),
            (outcomes(row), math.nan if row.is_baseline else row.wins),
        ]
        lines.append((cells, "baseline" if row.is_baseline else "", {4: _side(row, unit)}))
    return table(HEADERS, lines, f"{caption}{scope}", TEXT)


def plain_table(headers: Sequence[str], rows: Sequence[Sequence[object]], caption: str) -> str:
    """Returns a sortable table of texts."""
    return table(headers, [([(str(cell), None) for cell in row], "", {}) for row in rows], caption, len(headers))


def table(
    headers: Sequence[str], lines: Sequence[tuple[list[Cell], str, dict[int, str]]], caption: str, texts: int
) -> str:
    """Returns a sortable table.

    Args:
        headers: One a column.
        lines: Cells, the row's CSS class and CSS classes of single cells.
        caption: What the table holds.
        texts: How many columns, the first ones, hold text.
    """
    head = "".join(_tag("th", name, "text" if i < texts else "", ' scope="col"') for i, name in enumerate(headers))
    body = "\n".join(_line(cells, style, marks, texts) for cells, style, marks in lines)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table class="sortable">'
        f"<caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def svg_figure(svg: str, caption: str) -> str:
    """Returns a figure of inline SVG."""
    return f'<figure><div class="scroll">{svg}</div><figcaption>{escape(caption)}</figcaption></figure>'


def panel_figure(panel: ShownPanel) -> str:
    """Returns a figure with an embedded PNG."""
    data = base64.b64encode(panel.path.read_bytes()).decode("ascii")
    alt = f"Risk heatmap panel of {panel.caption}: slices of image, label, prediction, hardness and weight"
    return (
        f'<figure><img alt="{escape(alt)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(panel.caption)}</figcaption></figure>"
    )


def _line(cells: Sequence[Cell], style: str, marks: dict[int, str], texts: int) -> str:
    parts = []
    for i, (text, value) in enumerate(cells):
        key = "" if value is None else f' data-value="{"" if math.isnan(value) else repr(float(value))}"'
        parts.append(_tag("td", text, marks.get(i, "") or ("text" if i < texts else ""), key))
    return f"<tr{_style(style)}>{''.join(parts)}</tr>"


def _tag(name: str, text: str, style: str, more: str = "") -> str:
    return f"<{name}{_style(style)}{more}>{escape(text)}</{name}>"


def _style(name: str) -> str:
    return f' class="{name}"' if name else ""


def _side(row: ComparisonRow, unit: MetricUnit) -> str:
    """Returns ``better`` or ``worse`` where the interval does not hold 0, else nothing."""
    low, high = (row.low, row.high) if unit.higher_is_better else (-row.high, -row.low)
    return "better" if low > 0 else "worse" if high < 0 else ""
