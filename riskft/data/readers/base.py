"""The interface of readers."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from riskft.data.labels import LabelMap
from riskft.data.records import Case
from riskft.errors import InputError


class Reader(ABC):
    """Turns a folder layout into cases, by file names only; ``riskft.data.check.data_set`` opens the files."""

    #: Raw label values that the layout documents; empty if it documents none.
    known_labels: frozenset[int] = frozenset()

    @abstractmethod
    def cases(self, modalities: Sequence[str]) -> list[Case]:
        """Lists the cases, sorted by subject.

        Args:
            modalities: Names of the wanted modalities, in channel order.

        Returns:
            One case per subject. A missing file still gets its expected path, so that the check can report it.

        Raises:
            InputError: If the root does not exist or holds no case, or the layout lacks a modality.
        """

    def label_map(self) -> LabelMap | None:
        """Returns the classes in the data set's own description, or None if it has none.

        Raises:
            InputError: If the description is not usable.
        """
        return None

    def complete_labels(self, labels: LabelMap | None) -> LabelMap:
        """Returns a task's label map, with the layout's other values as background.

        Args:
            labels: The task's label map, or None to use the data set's own description.

        Raises:
            InputError: If there is neither.
        """
        if labels is None and (labels := self.label_map()) is None:
            raise InputError(
                f"data.labels is not set, and {type(self).__name__} finds no description of the labels. Set the "
                "classes, for example data.labels.classes: {whole_tumour: [1, 2, 4]}."
            )
        return labels.with_known(self.named_labels())

    def named_labels(self) -> set[int]:
        """Returns the raw label values in the layout's documentation or the data set's own description."""
        try:
            described = self.label_map()
        except InputError:  # the data set need not exist if a trained network predicts elsewhere
            described = None
        values = [*described.classes.values(), described.background] if described is not None else []
        return {*self.known_labels, *(value for group in values for value in group)}
