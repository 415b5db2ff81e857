"""The cases of each split, and the ones that a command reads."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from riskft.data.prepare.cache import PreparedCache
from riskft.data.readers.base import Reader
from riskft.data.records import Case
from riskft.data.splits import Split, few_shot


def split_cases(
    reader: Reader, modalities: Sequence[str], split: Split, limit: int | None, limit_seed: int
) -> dict[str, list[Case]]:
    """Lists the cases of each split, by file names only; for ``limit`` and ``limit_seed`` see ``few_shot``."""
    everything = reader.cases(list(modalities))
    if all(case.label is None for case in everything):
        # new scans: nothing to split, everything to predict
        return {"train": [], "val": [], "test": [], "predict": everything}
    found = split.assign(everything)
    return {**found, "train": few_shot(found.get("train", []), limit, limit_seed)}


def cases_to_predict(cases: Mapping[str, list[Case]]) -> list[Case]:
    """Returns the cases that ``predict`` segments: the prediction cases, or the test cases if there are none."""
    return cases["predict"] or cases["test"]


def cases_read_by(command: str, cases: Mapping[str, list[Case]], cache: PreparedCache) -> dict[str, list[Case]]:
    """Returns the cases of the splits that one of Lightning's commands reads.

    ``predict`` needs no labels: it uses a case that was prepared with a label as it is, and drops other labels.
    """
    if command == "predict":
        wanted = cases_to_predict(cases)
        return {"predict": [case if cache.holds(case) else replace(case, label=None) for case in wanted]}
    needed = {"validate": ["val"], "test": ["test"]}
    return {split: cases[split] for split in needed.get(command, cases)}
