"""Assigns cases to training, validation, test and prediction, and tells which ones a command reads."""

import hashlib
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from riskft.data.prepare.cache import PreparedCache
from riskft.data.readers.base import Reader
from riskft.data.records import SPLITS, Case
from riskft.errors import InputError, refuse


class Split(ABC):
    """Assigns each case to a split."""

    @abstractmethod
    def assign(self, cases: Sequence[Case]) -> dict[str, list[Case]]:
        """Sorts the cases into splits.

        Args:
            cases: The cases that a reader listed.

        Returns:
            The cases of each of ``SPLITS`` (all are keys, some may be empty), in the order of ``cases``.

        Raises:
            InputError: If the cases cannot be split as asked, naming all problems.
        """


class ReaderSplit(Split):
    """The split that the layout or the manifest states."""

    def assign(self, cases: Sequence[Case]) -> dict[str, list[Case]]:
        """Sorts the cases by ``Case.split``; see ``Split.assign``."""
        stray = [case.subject for case in cases if case.split not in SPLITS]
        refuse("The reader gives no split for some cases: add one, or use ListSplit or FractionSplit.", stray)
        return {name: [case for case in cases if case.split == name] for name in SPLITS}


class ListSplit(Split):
    """Splits by lists of subjects.

    Cases that are in no list are dropped if they have a label, and are for prediction otherwise.

    Args:
        train: Subjects, or patterns with ``*``, ``?`` and ``[...]`` (case-sensitive). An entry that equals a
            subject's name means that subject only.
        val: The same for validation.
        test: The same for test.
    """

    def __init__(self, train: list[str], val: list[str] | None = None, test: list[str] | None = None) -> None:
        self.lists = {"train": list(train), "val": list(val or []), "test": list(test or [])}

    def assign(self, cases: Sequence[Case]) -> dict[str, list[Case]]:
        """Sorts the cases by the lists; see ``Split.assign``."""
        subjects = {case.subject for case in cases}
        problems = []
        owners: dict[str, list[str]] = {}
        for split, entries in self.lists.items():
            repeated = [entry for entry, count in Counter(entries).items() if count > 1]
            problems += [f"'{entry}' is in {split} twice" for entry in repeated]
            chosen: set[str] = set()
            for entry in entries:
                named = {entry} & subjects or {subject for subject in subjects if fnmatchcase(subject, entry)}
                if not named:
                    problems.append(f"'{entry}' in {split} matches no subject of the data set")
                chosen |= named
            for subject in chosen:
                owners.setdefault(subject, []).append(split)
        problems += [
            f"'{subject}' is in {' and '.join(splits)}: leave it in one"
            for subject, splits in sorted(owners.items())
            if len(splits) > 1
        ]
        refuse("The lists of the split do not fit the data set:", problems)
        assigned = {name: [case for case in cases if owners.get(case.subject) == [name]] for name in self.lists}
        left = [case for case in cases if case.subject not in owners]
        return {**assigned, "predict": [case for case in left if case.label is None]}


class FractionSplit(Split):
    """Random splits of given sizes, fixed by the seed and the names of the people with labelled cases.

    People are ordered by a hash of the seed and their name, on any platform and in any order of the listing. The first
    are for test, the next for validation, the rest for training: the test set depends neither on ``val`` nor on a
    few-shot limit. Cases without a label are for prediction. Labelled cases that the layout itself reserves for test
    stay there, and the fractions are of the others. All scans of a person (``Case.person``) stay in one split.

    Sizes are rounded to the nearest whole number of people, and are at least 1 if the fraction is above 0.

    Args:
        val: Fraction of the people with labelled cases that are for validation, 0 to 1.
        test: Fraction of the people with labelled cases that are for test, 0 to 1.
        seed: Seed of the order.

    Raises:
        InputError: If a fraction is outside 0..1 or both sum to more than 1.
    """

    def __init__(self, val: float = 0.2, test: float = 0.2, seed: int = 0) -> None:
        if not (0 <= val <= 1 and 0 <= test <= 1 and val + test <= 1 + 1e-9):
            raise InputError(
                f"val and test must be fractions from 0 to 1 with a sum of at most 1: got {val} and {test}."
            )
        self.val, self.test, self.seed = val, test, seed

    def assign(self, cases: Sequence[Case]) -> dict[str, list[Case]]:
        """Sorts the cases by the seeded order; see ``Split.assign``."""
        apart = {case.owner for case in cases if case.split == "test" and case.label is not None}
        labelled = {case.owner for case in cases if case.label is not None} - apart
        order = _seeded_order(sorted(labelled), f"split:{self.seed}")
        test, val = (_size(fraction, len(order)) for fraction in (self.test, self.val))
        train = len(order) - test - val
        if train < 0 or (train < 1 and self.val + self.test < 1 - 1e-9):
            raise InputError(
                f"{len(order)} people with labelled cases are too few for val={self.val} and test={self.test} with at "
                "least one in each split: add cases, or set a fraction to 0."
            )
        owner = {person: "test" if rank < test else "val" for rank, person in enumerate(order[: test + val])}
        owner |= dict.fromkeys(apart, "test")
        splits = ["predict" if case.label is None else owner.get(case.owner, "train") for case in cases]
        return {name: [case for case, own in zip(cases, splits, strict=True) if own == name] for name in SPLITS}


def few_shot(train: Sequence[Case], limit: int | None, seed: int = 0) -> list[Case]:
    """Returns the training cases of ``limit`` people (None: all); a smaller limit gives a subset of a larger one.

    Raises InputError if the limit is below 1 or above the number of people with training cases.
    """
    if limit is None:
        return list(train)
    people = sorted({case.owner for case in train})
    if not 1 <= limit <= len(people):
        raise InputError(f"data.train_limit is {limit}, expected 1 to {len(people)}, the people with training cases.")
    kept = set(_seeded_order(people, f"few-shot:{seed}")[:limit])
    return [case for case in train if case.owner in kept]


def _seeded_order(subjects: Sequence[str], salt: str) -> list[str]:
    return sorted(subjects, key=lambda subject: (hashlib.blake2b(f"{salt}:{subject}".encode()).digest(), subject))


def _size(fraction: float, count: int) -> int:
    return max(1, math.floor(fraction * count + 0.5)) if fraction > 0 else 0


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
