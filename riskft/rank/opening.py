"""Opens a candidate: its data, and its source's network as phase 1 runs it, with the places of its features."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import yaml

from riskft.build import Command
from riskft.data.datamodule import RiskDataModule
from riskft.errors import InputError, UsageError
from riskft.files import fingerprint
from riskft.rank.candidates import Candidate, with_own_network, without_phase_1, without_risk_sampling
from riskft.run.places import MAPS, listed
from riskft.source.features import BOTTLENECK, Place, find_depths
from riskft.source.network import SourceNetwork, options_as_text
from riskft.training.module import RiskModule
from riskft.training.record.check import check_source

#: Like ``riskft validity``: one process does the passes, on the first device.
_ONE_DEVICE = ("--trainer.strategy=auto", "--trainer.devices=1", "--trainer.num_nodes=1")


@dataclass(frozen=True)
class OpenSource:
    """A candidate's source, ready for passes over the labelled training cases."""

    candidate: Candidate  #: Its training: plain fine-tuning if the source has no segmentation head.
    checkpoint: str  #: Its ``model.source.checkpoint``.
    source: SourceNetwork
    places: Mapping[str, Place]  #: Where features are taken, by depth; those that the checkpoint fills.
    #: Why the checkpoint does not fill the whole network, so that there is no LEEP and no phase 1; else empty.
    lacks: str
    data: RiskDataModule  #: Prepared.
    device: torch.device
    use_mask: bool  #: Whether voxels outside the body are ignored.
    inputs: Mapping[str, Any]  #: Everything that its features depend on, except the case.

    @property
    def has_head(self) -> bool:
        """Whether its probabilities mean something."""
        return not self.lacks


class Opener:
    """Opens candidates; builds the parser once, and data modules with equal options once."""

    def __init__(self) -> None:
        self._command: Command | None = None
        self._data: dict[str, RiskDataModule] = {}

    def parsed(self, arguments: Sequence[str]) -> Command:
        """Returns the parsed ``riskft fit``; raises InputError or UsageError if it is refused."""
        line = ["fit", *arguments]
        if self._command is None:
            self._command = Command(line)
        else:
            vars(self._command).pop("config_dump", None)  # that of the line before
            self._command.parse_arguments(self._command.parser, line)
        return self._command

    def config(self, arguments: Sequence[str]) -> dict[str, Any]:
        """Returns the whole config that ``riskft fit`` makes of the arguments."""
        return _config(self.parsed(arguments))

    def built(self, candidate: Candidate) -> Command:
        """Returns a candidate's ``riskft fit`` with its module built; raises InputError if it is refused."""
        try:
            command = self.parsed([*candidate.arguments, *_ONE_DEVICE])
            with _quietly():
                command.build_apart()
        except UsageError as error:
            raise InputError(error.args[0]) from None
        return command

    def open(self, candidate: Candidate) -> OpenSource:
        """Loads a candidate's source.

        Raises:
            InputError: If it cannot take part, with the reason.
        """
        candidate = with_own_network(candidate)
        command = self.built(candidate)
        module: RiskModule = command.model
        source, places, lacks = _loaded(module)
        data = self._prepared(command)
        if source.record is not None:
            check_source(source.record, module, data)
        if lacks:
            candidate = without_phase_1(candidate)
            candidate = without_risk_sampling(candidate) if data.sampling.needs_risk else candidate
        use_mask = _uses_mask(command)
        return OpenSource(
            candidate=candidate,
            checkpoint=str(module.source.checkpoint),
            source=source,
            places=places,
            lacks=lacks,
            data=data,
            device=command.trainer.strategy.root_device,
            use_mask=use_mask,
            inputs={
                "source": source.digest,
                "inverted": source.inverted,
                "source architecture": module.source.description(),
                "source outputs": f"{source.output!r} {source.read.evaluation.paths[0]} "
                f"{source.read.evaluation.activation} {not lacks}",
                "places": {depth: (place.module, place.of_input, place.call) for depth, place in places.items()},
                "inference": options_as_text(source.inferer),
                "mask": use_mask,
            },
        )

    def _prepared(self, command: Command) -> RiskDataModule:
        """Returns a built command's data module with the training cases prepared, or an earlier one that is equal."""
        key = fingerprint(_config(command)["data"])
        if key not in self._data:
            data: RiskDataModule = command.datamodule
            data.prepare_data()
            data.setup("fit")
            unlabelled = [case.subject for case in data.prepared("train") if not case.labelled]
            if unlabelled:
                raise InputError(f"Training cases without a label cannot rank sources: {', '.join(unlabelled[:3])}.")
            self._data[key] = data
        return self._data[key]


def _config(command: Command) -> dict[str, Any]:
    options: dict[str, Any] = yaml.safe_load(command.parser.dump(command.config, skip_none=False))
    return dict(options["fit"])


@contextmanager
def _quietly() -> Iterator[None]:
    """Silences what Lightning says of each trainer, here one per source."""
    logger = logging.getLogger("lightning.pytorch")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


def _loaded(module: RiskModule) -> tuple[SourceNetwork, dict[str, Place], str]:
    """Returns the source, the places of its features, and why it cannot do phase 1, if so.

    Without all weights, the places are those that the checkpoint fills. Raises InputError if the checkpoint is
    unusable, or does not fill the network down to its lowest resolution.
    """
    lacks: InputError | None = None
    try:
        source = module.load_source()
    except InputError as error:
        source, lacks = _partly_loaded(module, error), error
    places = find_depths(source.network, module.head, source.size)
    if lacks is None:
        return source, places, ""
    missing = set(source.missing)
    filled = {depth: place for depth, place in places.items() if place.needs and not place.needs & missing}
    if BOTTLENECK not in filled:
        raise lacks
    return source, filled, str(lacks)


def _partly_loaded(module: RiskModule, error: InputError) -> SourceNetwork:
    """Returns the source without the weights that the checkpoint lacks, or raises the error if it has too few."""
    whole = module.source
    module.source = replace(whole, min_loaded=0.0)
    try:
        return module.load_source(whole=False)
    except InputError:
        raise error from None
    finally:
        module.source = whole


def _uses_mask(command: Command) -> bool:
    callbacks = [one for one in listed(command.options.trainer.callbacks) if str(one.class_path).endswith(MAPS)]
    return any(one.init_args.get("use_mask", False) for one in callbacks)
