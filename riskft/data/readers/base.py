"""What every reader does."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from riskft.data.labels import LabelMap
from riskft.data.records import Case
from riskft.errors import InputError


class Reader(ABC):
    """Turns a folder layout into cases. Readers look at names only; ``riskft.data.check.data_set`` opens the files."""

    known_labels: frozenset[int] = frozenset()
    """Raw label values that the layout is documented to use; empty where it says nothing."""

    @abstractmethod
    def cases(self, modalities: Sequence[str]) -> list[Case]:
        """Lists the cases, sorted by subject.

        Args:
            modalities: Names of the modalities wanted, in channel order.

        Returns:
            One case per subject. A missing file still gets its expected path, so that the check can name it.

        Raises:
            InputError: If the root does not exist, holds no case, or a modality is not known to the layout.
        """

    def label_map(self) -> LabelMap | None:
        """Returns the classes that the data set's own description names, or None if it has none.

        Raises:
            InputError: If the description cannot be used.
        """
        return None

    def complete_labels(self, labels: LabelMap | None) -> LabelMap:
        """Returns the label map of a task with the layout's other values as background.

        Args:
            labels: The task's, or None for that of the data set's own description.

        Raises:
            InputError: If there is neither.
        """
        if labels is None and (labels := self.label_map()) is None:
            raise InputError(
                f"data.labels is not set, and {type(self).__name__} finds no description of the labels. Name the "
                "classes, for example data.labels.classes: {whole_tumour: [1, 2, 4]}."
            )
        return labels.with_known(self.named_labels())

    def named_labels(self) -> set[int]:
        """Returns the raw label values that the layout or the data set's own description names."""
        try:
            described = self.label_map()
        except InputError:  # the data set need not be there where a trained network predicts elsewhere
            described = None
        values = [*described.classes.values(), described.background] if described is not None else []
        return {*self.known_labels, *(value for group in values for value in group)}
