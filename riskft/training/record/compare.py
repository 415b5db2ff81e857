"""Pure functions that compare a checkpoint's record with a command, and return one line per contradiction."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal

from riskft.errors import first_few
from riskft.run.record import Cases, Record
from riskft.training.record.options import CASES, differences, line

TrainerCommand = Literal["fit", "validate", "test", "predict"]
#: Options that set how much is kept around the body, and change none of its voxels.
_FRAMING = ("data.preprocessing.crop:", "data.preprocessing.margin:")
SPLIT_NAMES = {"train": "training", "val": "validation", "test": "test"}


def order_of(then: Record, now: Record) -> list[str] | None:
    """Returns the record's foreground classes if the command has the same ones in another order, else None."""
    wanted, given = then.class_names[1:], now.class_names[1:]
    return wanted if wanted != given and sorted(wanted) == sorted(given) else None


def class_lines(then: Record, now: Record) -> list[str]:
    """Returns how the class names differ; the order does not matter, because the record's is adopted."""
    if sorted(then.class_names) == sorted(now.class_names):
        return []
    if not then.classes or not now.classes:
        return [line("data.labels.classes", then.class_names[1:], now.class_names[1:])]
    return [line("data.labels.classes", then.values, now.values)]


def value_lines(then: Record, now: Record) -> list[str]:
    """Returns which classes consist of different raw label values."""
    theirs, mine = then.values, now.values
    return [
        line(f"data.labels.classes.{name}", theirs[name], mine[name])
        for name in theirs
        if name in mine and set(theirs[name]) != set(mine[name])
    ]


def modality_lines(then: Record, now: Record) -> list[str]:
    """Returns how the input channels differ."""
    if then.modalities and now.modalities and then.modalities != now.modalities:
        return [line("data.modalities", then.modalities, now.modalities)]
    if then.in_channels != now.in_channels:
        return [line("data.modalities", f"{then.in_channels} channels", f"{now.in_channels} channels")]
    return []


def preprocessing_lines(then: Record, now: Record) -> list[str]:
    """Returns which preprocessing options differ."""
    if not then.preprocessing or not now.preprocessing:
        return []
    return [line(*each) for each in differences(then.preprocessing, now.preprocessing, "data.preprocessing")]


def network_lines(then: Record, now: Record) -> list[str]:
    """Returns which network options differ, if both networks come from configs."""
    old, new = (_option(record, "model", "source", "network") for record in (then, now))
    return [line(*each) for each in differences(old, new, "model.source.network")] if old and new else []


def use_lines(
    then: Record, now: Record, command: TrainerCommand, subjects: Collection[str]
) -> tuple[list[str], list[str]]:
    """Returns the differences that prevent using the weights for a command on these subjects, and the other ones.

    Each data set has its own modality names and label values. A difference is an error in the training data set, and a
    warning in any other.
    """
    errors = class_lines(then, now)
    warnings: list[str] = []
    # the command uses the training data set if it has any training case by name
    strict = command == "fit" or bool(then.cases.get("train", {}).keys() & set(subjects))
    if command != "predict":
        (errors if strict else warnings).extend(value_lines(then, now))
    reordered = sorted(then.modalities) == sorted(now.modalities)
    strict = strict or reordered or then.in_channels != now.in_channels
    (errors if strict else warnings).extend(modality_lines(then, now))
    errors += preprocessing_lines(then, now)
    errors += network_lines(then, now)
    return errors, warnings


def resume_lines(then: Record, now: Record) -> list[str]:
    """Returns how a command, with the classes in the order of ``then``, differs from the training that it resumes."""
    lines = use_lines(then, now, "fit", ())[0]
    for name in ("background", "ignore"):
        if then.classes and now.classes and getattr(then, name) != getattr(now, name):
            lines.append(line(f"data.labels.{name}", getattr(then, name), getattr(now, name)))
    if then.patch_size and now.patch_size and then.patch_size != now.patch_size:
        lines.append(line("data.patch_size", then.patch_size, now.patch_size))
    lines += _case_lines(then, now, content=not lines)
    found = differences(then.options, now.options) if then.options and now.options else []
    told = [f"data.{name}" for name in CASES] + ["model.source.network"]
    lines += [line(*each) for each in found if not each[0].startswith(tuple(told))]
    if not found:
        lines += [
            line(f"model.{name}", then.parts[name], now.parts.get(name))
            for name in then.parts
            if then.parts[name] != now.parts.get(name)
        ]
    before, after = then.start.get("digest"), now.start.get("digest")
    if before and after and before != after:
        files = [str(record.start.get("checkpoint")) for record in (then, now)]
        lines.append(f"model.source.checkpoint: {files[1]} holds other weights than {files[0]} did at the start")
    return lines


def _case_lines(then: Record, now: Record, content: bool) -> list[str]:
    """Returns which cases differ and the options behind them; with ``content``, also compares file contents."""
    lines = []
    for split, name in SPLIT_NAMES.items():
        theirs, mine = then.cases.get(split), now.cases.get(split)
        if theirs is None or mine is None or theirs == mine:
            continue
        if theirs.keys() != mine.keys():
            lines.append(
                f"{name} cases: {some(sorted(theirs))} in the checkpoint, {some(sorted(mine))} in this command"
            )
        elif content and (changed := [subject for subject in theirs if theirs[subject][0] != mine[subject][0]]):
            lines.append(f"{name} cases: the files of {some(sorted(changed))} have changed since")
    if lines:
        pairs = ((_option(then, "data", name), _option(now, "data", name), f"data.{name}") for name in CASES)
        lines[:0] = [line(*each) for old, new, option in pairs for each in differences(old, new, option)]
    return lines


def leaked(then: Record, cases: Cases) -> tuple[list[str], list[str]]:
    """Returns the cases (key and person by subject) that were trained on: by content, then only by name or person."""
    train = then.cases.get("train", {})
    keys, people = ({entry[part] for entry in train.values()} for part in (0, 1))
    same = [subject for subject, (key, _) in cases.items() if key in keys]
    named = [
        subject
        for subject, (_, person) in cases.items()
        if subject not in same and (subject in train or person in people)
    ]
    return sorted(same), sorted(named)


def source_lines(then: Record, now: Record, train: Iterable[str], test: Iterable[str]) -> list[str]:
    """Returns what differs between a source's training and the target, and which people (or subjects) they share."""
    lines = []
    if then.modalities != now.modalities and sorted(then.modalities) == sorted(now.modalities):
        lines.append(f"{line('data.modalities', then.modalities, now.modalities)}: the channels are exchanged")
    lines += [each for each in preprocessing_lines(then, now) if not each.startswith(_FRAMING)]
    people = {person for _, person in then.cases.get("train", {}).values()}
    if shared := sorted(people & set(train)):
        lines.append(f"training cases: the source was trained on {some(shared)} too, so it seems to know the task "
                     "better (LEEP, risk maps) than it does in unseen cases")  # fmt: skip
    if shared := sorted(people & set(test)):
        lines.append(f"test cases: the source was trained on {some(shared)}, so their scores will be too good")
    return lines


def misfit_line(own: Mapping[str, Sequence[int]], found: Mapping[str, Sequence[int]]) -> str | None:
    """Returns how a checkpoint's weights differ from a network's, both as shapes by name; None if they fit."""
    missing = sorted(own.keys() - found.keys())
    further = sorted(found.keys() - own.keys())
    other = sorted(key for key in own.keys() & found.keys() if list(own[key]) != list(found[key]))
    if not (missing or further or other):
        return None
    said = [
        f"{len(other)} of another shape (the first: {other[0]}, {list(found[other[0]])} in the checkpoint, "
        f"{list(own[other[0]])} in the network)" if other else "",
        f"{len(missing)} missing (the first: {missing[0]})" if missing else "",
        f"{len(further)} without a place (the first: {further[0]})" if further else "",
    ]  # fmt: skip
    return f"model.source.network: the checkpoint is of another network. Entries: {', '.join(filter(None, said))}"


def _option(record: Record, *names: str) -> Any:
    value: Any = record.options
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def some(names: Sequence[str]) -> str:
    """Returns the first names and the number of the rest."""
    return ", ".join(first_few(names, 5)) or "none"
