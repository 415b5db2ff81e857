"""How weights were made, as plain values in their checkpoint, and the commit that the code runs from."""

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

Cases = dict[str, list[str]]
Start = Literal["source", "scratch"]


@dataclass(frozen=True)
class Record:
    """How weights were made, in plain values, so that the checkpoint loads without unpickling."""

    class_names: list[str]  #: By index, background first.
    in_channels: int  #: Number of input channels.
    #: (name, raw label values) of each foreground class, in order; empty without a data module.
    classes: list[list[Any]] = field(default_factory=list)
    background: list[int] = field(default_factory=list)  #: Raw label values of the background.
    ignore: list[int] = field(default_factory=list)  #: Raw label values that were ignored.
    modalities: list[str] = field(default_factory=list)  #: The input channels, in order.
    preprocessing: dict[str, Any] = field(default_factory=dict)  #: ``Preprocessing.describe``.
    patch_size: list[int] = field(default_factory=list)  #: Voxels of a training patch along x, y, z.
    #: By split (``train``, ``val``) and subject: the cache key (files, label map and preprocessing), and the person.
    cases: dict[str, Cases] = field(default_factory=dict)
    #: Where training started: ``load`` as in ``Source``, ``checkpoint``, its ``digest``, and the ``fraction`` of the
    #: parameters that were loaded.
    start: dict[str, Any] = field(default_factory=dict)
    parts: dict[str, str] = field(default_factory=dict)  #: Class names of ``loss`` and ``optimizer``.
    #: The part of the run's config that ``trained_options`` keeps; empty without the command line.
    options: dict[str, Any] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """Returns the record as JSON types."""
        content: dict[str, Any] = json.loads(json.dumps(asdict(self), default=str))
        return content

    @property
    def values(self) -> dict[str, list[int]]:
        """Raw label values by class."""
        return {name: list(values) for name, values in self.classes}

    @property
    def name(self) -> tuple[Any, Any]:
        """Method and seed; None where unknown."""
        run = self.options.get("run")
        return run.get("method") if isinstance(run, dict) else None, self.options.get("seed_everything")

    @property
    def started_from(self) -> Start:
        """Whether training started from a source's weights."""
        return "source" if self.start.get("fraction") else "scratch"


def read_record(content: object) -> Record | None:
    """Returns the record that a checkpoint holds under ``riskft``, or None if there is none."""
    if not isinstance(content, Mapping):
        return None
    kept: dict[str, Any] = {}
    for each in fields(Record):
        default = each.default_factory() if each.default_factory is not MISSING else None
        wanted = int if each.name == "in_channels" else list if each.name == "class_names" else type(default)
        if isinstance(content.get(each.name), wanted):
            kept[each.name] = content[each.name]
    return Record(**kept) if {"class_names", "in_channels"} <= kept.keys() else None


def git_commit(file: Path = Path(__file__)) -> str:
    """Returns the commit of the checkout that tracks ``file`` (``-dirty`` if changed), or ``unknown``.

    Git also searches the folders above, so an untracked, installed package could find another project's repository.
    """
    # a hook of another repository sets GIT_DIR and others
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(file.parent), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True, env=environment)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "--", file.name)
        return git("describe", "--always", "--dirty", "--abbrev=12")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
