"""The numbers in the README, as text."""

from collections.abc import Iterator, Mapping, Sequence

from drawing import COLOURS, Row, mean
from measure import KINDS


def lines(found: Mapping[str, Sequence[Row]]) -> Iterator[str]:
    """Yields the means over seeds, in percent except for correlation and AUROC."""
    steps = sorted({row["step"] for row in found["stale"]})
    for title in dict.fromkeys(row["condition"] for row in found["wrong"]):
        yield f"{title}, at steps {', '.join(f'{step:g}' for step in steps)}"
        for method in dict.fromkeys(row["method"] for row in found["wrong"]):
            own = [row for row in found["wrong"] if (row["condition"], row["method"]) == (title, method)]
            total = sum(row["wrong"] for row in own)
            for name in ("all", "at the border", *KINDS):
                chosen = [row for row in own if name in ("all", row["kind"], row["place"])]
                parts = [
                    f"{100 * sum(row[key] for row in chosen) / total:.1f} {key}" for key in ("wrong", "mended", "new")
                ]
                yield f"  {method}: errors, {name}: {', '.join(parts)}"
        gradients = [row for row in found["gradient"] if row["condition"] == title]
        for weight in COLOURS:
            for column in ("right", "towards_background"):
                values = [100 * mean(gradients, column, weight=weight, step=step) for step in steps]
                yield f"  gradient, weight {weight}: {column}: {' '.join(f'{value:.1f}' for value in values)}"
        stale = [row for row in found["stale"] if row["condition"] == title]
        for cases in ("train", "test"):
            for column in ("correlation", "auroc_of_errors"):
                values = [mean(stale, column, cases=cases, step=step) for step in steps]
                yield f"  {cases} cases: {column}: {' '.join(f'{value:.2f}' for value in values)}"
