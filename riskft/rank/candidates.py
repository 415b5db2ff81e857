"""The candidates that ``riskft rank`` compares: each source, and training from scratch."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Candidate:
    """One way to train."""

    name: str  #: Unique among the candidates and usable as a folder's name.
    arguments: list[str] = field(hash=False)  #: Those of a complete ``riskft fit``, without options of ``run``.
