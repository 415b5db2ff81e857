"""What a run started from, by its record and not by its name."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from riskft.run.folder import RunFolder
from riskft.run.record import Start


def started_from(folder: Path) -> Start | None:
    """Returns whether a run started from a source's weights or from scratch; None if unknown.

    ``record.json`` in the run folder takes precedence over ``config.yaml``, which only says what was asked for.
    """
    run = RunFolder(folder)
    if (record := run.read_record()) is not None:
        return record.started_from
    model = run.read_config().get("model")
    source: Any = model.get("source") if isinstance(model, dict) else None
    if not isinstance(source, dict) or "checkpoint" not in source:
        return None
    return "source" if source["checkpoint"] and source.get("load") != "none" else "scratch"


def misnamed(runs: Iterable[tuple[str, str, Path]]) -> list[str]:
    """Returns notes on misleading names, from (study, method, run folder), and on methods of source and scratch."""
    methods: dict[tuple[str, str], dict[Start, list[Path]]] = {}
    for study, method, folder in runs:
        if (start := started_from(folder)) is not None:
            methods.setdefault((study, method), {}).setdefault(start, []).append(folder)
    lines = []
    for (study, method), starts in sorted(methods.items()):
        name, tuned, scratch = f"{study}/{method}", starts.get("source", []), starts.get("scratch", [])
        if tuned and scratch:
            lines.append(f"{name}: {tuned[0]} started from a source's weights, {scratch[0]} from scratch")
        elif tuned and _claims_scratch(method):
            lines.append(f"{name}: is called scratch, but {tuned[0]} started from a source's weights")
        elif scratch and not _claims_scratch(method):
            lines.append(f"{name}: was trained from scratch, without a source's weights")
    return lines


def _claims_scratch(method: str) -> bool:
    return "scratch" in method.partition(",")[0].lower()
