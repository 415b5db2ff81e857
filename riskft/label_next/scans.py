"""The scans to choose from, and those that are labelled already; faulty scans are listed and left out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from riskft.data.check.data_set import CheckMemory
from riskft.data.datamodule import RiskDataModule
from riskft.data.prepare.cache import PreparedCache, PreparedCase
from riskft.data.prepare.each import each_case
from riskft.data.records import LABELLED, Case
from riskft.errors import InputError, first_few
from riskft.run.places import refuse_unwritable


@dataclass(frozen=True)
class Scans:
    """Prepared scans."""

    unlabelled: list[PreparedCase]  #: Those to choose from, by subject.
    labelled: list[PreparedCase]  #: The training cases.
    notes: list[str]  #: What was left out, one line each.
    faults: list[str]  #: One line for each fault; the scans that have them are left out.


def find_scans(data: RiskDataModule, folder: Path) -> Scans:
    """Finds, checks and prepares the scans of a folder, and the training cases of the data module's own data set.

    Scans with a fault are left out, and so are copies of other scans and of labelled cases. Raises InputError if no
    scan is left.
    """
    own, notes = _own_cases(data)
    with data.reading_folder(folder):
        found = data.cases()["predict"]
    cache = PreparedCache(data.cache_dir, data.labels, data.preprocessing)
    sound, faults = _sound(data, found)
    labelled = [replace(case, label=None) for split in LABELLED for case in own[split]]
    known = {key: f"the labelled {case.subject}" for case, key in each_case(cache.keys, labelled)[0]}
    keyed, problems = each_case(cache.keys, sound)
    kept: list[Case] = []
    copies: list[str] = []
    for case, key in keyed:
        if key in known:
            copies.append(f"{case.subject} is a copy of {known[key]}")
        else:
            known[key] = case.subject
            kept.append(case)
    if copies:
        notes.append(f"Left out of the choice, because they are the same: {', '.join(first_few(copies))}.")
    if not all(map(cache.holds, kept)):  # a complete cache may be read-only
        refuse_unwritable({"--data.cache_dir": data.cache_dir})
    unlabelled, more = each_case(cache.prepare, kept)
    faults += [*problems, *more]
    if not unlabelled:
        raise InputError(f"{folder} has no scan to choose from:", [*faults, *notes])
    # one that was prepared with its label for training is used as it is
    train = [case if cache.holds(case) else replace(case, label=None) for case in own["train"]]
    prepared, problems = each_case(cache.prepare, train)
    notes += not_avoided(problems)
    return Scans([scan for _, scan in unlabelled], [case for _, case in prepared], notes, faults)


def not_avoided(problems: Sequence[str]) -> list[str]:
    """Returns one note on the training cases that cannot be used, given a line for each; none if there are none."""
    if not problems:
        return []
    cases = f"{len(problems)} training case{'s' * (len(problems) > 1)}"
    return [f"Scans like {cases} are not avoided: {'; '.join(first_few(dict.fromkeys(problems)))}"]


def _own_cases(data: RiskDataModule) -> tuple[dict[str, list[Case]], list[str]]:
    """Returns the data set's cases by split; none, with a note, if they cannot be listed, as on another computer."""
    try:
        return data.cases(), []
    except InputError as error:
        note = f"The labelled cases cannot be listed, so scans like them are not avoided: {error}"
        return {split: [] for split in LABELLED}, [note]


def _sound(data: RiskDataModule, cases: Sequence[Case]) -> tuple[list[Case], list[str]]:
    """Returns the cases in which the data check finds no fault, and the faults of the others."""
    if not data.check_files:
        return list(cases), []
    faults = data.check({"predict": cases}, CheckMemory(data.cache_dir / "checks.json")).faults
    faulty = {fault.subject for fault in faults}
    return [case for case in cases if case.subject not in faulty], [str(fault) for fault in faults]
