"""The candidates that ``riskft rank`` compares: each source, and training from scratch."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from riskft.arguments.given import Option, options_of
from riskft.run.folder import SEED_FOLDER
from riskft.source.packages import find_package

SCRATCH = "scratch"

#: Plain fine-tuning: without phase 1, which needs a source with a head, and without what needs phase 1.
_PLAIN = ("--model.head_init=random", "--model.source.invert=false")
_PLAIN_LOSS = "--model.loss=riskft.RiskWeightedLoss"
_LOSSES_OF_PHASE_1 = ("RefreshedLoss", "DistilledLoss")
_PHASE_1 = ("riskft.RiskMapCallback", "riskft.RiskPanelCallback")
#: What a network that starts at random has no use for.
_OF_SOURCES = ("riskft.L2SP", "riskft.BackboneFreeze")


@dataclass(frozen=True)
class Candidate:
    """One way to train."""

    name: str  #: Unique among the candidates and usable as a folder's name.
    arguments: list[str] = field(hash=False)  #: Those of a complete ``riskft fit``, without options of ``run``.


def source_candidates(fit: Sequence[str], sources: Sequence[str]) -> list[Candidate]:
    """Returns one candidate per source, or two if ``model.source.invert`` is ``auto``: as it is, and inverted.

    Args:
        fit: The options of ``riskft fit`` that all candidates share.
        sources: Values of ``model.source.checkpoint``.
    """
    given = options_of(fit)
    inversion = ("false", "true") if _last(given, "model.source.invert") == "auto" else (None,)
    unique = list(dict.fromkeys(sources))
    names = names_of(unique)
    found = []
    for name, source in zip(names, unique, strict=True):
        for inverted in inversion:
            more = [] if inverted is None else [f"--model.source.invert={inverted}"]
            label = _free(f"{name}-inverted", names) if inverted == "true" else name
            found.append(Candidate(label, [*fit, f"--model.source.checkpoint={source}", *more]))
    return found


def with_own_network(candidate: Candidate) -> Candidate:
    """Returns a candidate whose source, if it describes itself, brings its own network even if the configs name one.

    Raises InputError if the source describes itself but is broken.
    """
    given = options_of(candidate.arguments)
    checkpoint = _last(given, "model.source.checkpoint")
    package = find_package(Path(checkpoint)) if isinstance(checkpoint, str) else None
    own = package.config.get("model", {}).get("source") if package is not None else None
    if not own or _last(given, "model.source.network") is None:
        return candidate
    # after all configs and options of the command but its sources; the last of them wins
    last = max(index for index, part in enumerate(candidate.arguments) if part.startswith("--model.source.checkpoint="))
    # null first, so that no option of the configs' network is left
    more = ["--model.source.network=null", f"--config={json.dumps({'model': {'source': own}})}"]
    return Candidate(candidate.name, [*candidate.arguments[:last], *more, *candidate.arguments[last:]])


def from_scratch(fit: Sequence[str], source: str | None = None) -> Candidate:
    """Returns the candidate without a source; ``source`` is a model that gives it its architecture."""
    given = [f"--model.source.checkpoint={source}"] if source is not None else []
    arguments = [*fit, *given, "--model.source.load=none", *_plain(fit, (*_PHASE_1, *_OF_SOURCES))]
    return Candidate(SCRATCH, arguments)


def without_phase_1(candidate: Candidate) -> Candidate:
    """Returns plain fine-tuning from a source that has no segmentation head, such as a self-supervised encoder."""
    inverted = [part for part in candidate.arguments if part == "--model.source.invert=true"]
    more = [*_plain(candidate.arguments, _PHASE_1), *inverted, "--model.source.min_loaded=0"]
    return Candidate(candidate.name, [*candidate.arguments, *more])


def without_risk_sampling(candidate: Candidate) -> Candidate:
    """Returns a candidate without phase 1 that draws patches as those do that have no risk map."""
    return Candidate(candidate.name, [*candidate.arguments, "--data.sampling=riskft.BalancedSampling"])


def names_of(sources: Sequence[str]) -> list[str]:
    """Returns a unique name for each source: its file's, or where its path differs from others with the same name.

    A checkpoint in a run folder, ``<method>/seed=<n>/checkpoints/best.ckpt``, has the name of the method.
    """
    paths = [Path(source).absolute() for source in sources]
    names = [_safe(_name_of(path)) for path in paths]
    for name, times in Counter(names).items():
        if times > 1:
            same = [index for index, other in enumerate(names) if other == name]
            for index, label in zip(same, _where_they_differ([paths[index] for index in same]), strict=True):
                names[index] = _safe(label)
    for index, name in enumerate(names):
        names[index] = _free(name, [SCRATCH, *names[:index]])
    return names


def _free(name: str, taken: Sequence[str]) -> str:
    """Returns the name, or with the first number that makes it none of those that are taken."""
    free = (label for number in count(1) if (label := name if number == 1 else f"{name}-{number}") not in taken)
    return next(free)


def _name_of(path: Path) -> str:
    if path.parent.name == "checkpoints" and SEED_FOLDER.search(path.parts[-3]):
        return path.parts[-4]
    return path.stem if path.is_file() else path.name


def _where_they_differ(paths: Sequence[Path]) -> list[str]:
    """Returns the nearest folder's name by which paths can be told apart, else all parts in which they differ."""
    columns = list(zip(*(path.parts[::-1] for path in paths), strict=False))
    for column in columns:
        if len(set(column)) == len(paths):
            return list(column)
    differing = [column for column in columns if len(set(column)) > 1][::-1]
    return ["-".join(parts) for parts in zip(*differing, strict=True)] or [path.name for path in paths]


def _plain(given: Sequence[str], dropped: Sequence[str]) -> list[str]:
    values = [pair for option in options_of(given) for pair in option.values("model.loss")]
    classes = [
        value.get("class_path") if isinstance(value, dict) else value
        for name, value in values
        if name in ("model.loss", "model.loss.class_path")
    ]
    # another loss stays, so that all candidates train with the same
    needs = not classes or str(classes[-1]).rpartition(".")[2] in _LOSSES_OF_PHASE_1
    return [*_PLAIN, *([_PLAIN_LOSS] if needs else []), f"--trainer.drop_callbacks={json.dumps(list(dropped))}"]


def _last(given: Sequence[Option], wanted: str) -> object:
    values = [value for option in given for _, value in option.values(wanted, is_file=wanted.endswith("checkpoint"))]
    return values[-1] if values else None


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+=-]+", "-", name).strip("-.") or "source"
