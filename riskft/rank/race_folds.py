"""Labelled cases that are left out in turn, where a data set has no validation cases."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from riskft.arguments.given import options_of
from riskft.arguments.package_defaults import package_defaults
from riskft.build import build_data
from riskft.data.records import Case
from riskft.errors import InputError

MOST_FOLDS = 4


@dataclass(frozen=True)
class Fold:
    """The training cases without some of them, and these as validation cases."""

    train: tuple[str, ...]  #: Subjects.
    val: tuple[str, ...]  #: Subjects.

    def arguments(self) -> list[str]:
        """Returns the options of ``riskft fit`` that split the data this way."""
        lists = {"train": [*self.train], "val": [*self.val]}
        split = {"class_path": "riskft.ListSplit", "init_args": lists}
        return [f"--data.split={json.dumps(split)}", "--data.train_limit=null"]


def race_folds(arguments: Sequence[str]) -> list[Fold]:
    """Returns the folds of a command's labelled training cases; none if it has validation cases.

    Raises InputError if the data cannot be listed, or there is only one person to leave out.
    """
    given = options_of(arguments)
    own = [f"--{option.name}={option.text}" for option in given if option.name.partition(".")[0] in ("config", "data")]
    cases = build_data([*package_defaults(given), *own]).cases()
    return [] if cases["val"] else folds_of(cases["train"])


def folds_of(train: Sequence[Case], most: int = MOST_FOLDS) -> list[Fold]:
    """Returns at most ``most`` folds; all scans of a person are left out together.

    Raises InputError if there are fewer than two people.
    """
    people = sorted({case.owner for case in train})
    if len(people) < 2:
        raise InputError(
            f"There are no validation cases to race on, and {len(people)} labelled training cases, too few to leave "
            "out one in turn. Set data.split so that some labelled cases are for validation, for example "
            "riskft.FractionSplit with val: 0.5."
        )
    folds = []
    for number in range(min(most, len(people))):
        left = set(people[number :: min(most, len(people))])
        parts = [tuple(case.subject for case in train if (case.owner in left) is out) for out in (False, True)]
        folds.append(Fold(*parts))
    return folds
