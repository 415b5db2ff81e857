"""Transfer risk maps and risk-weighted fine-tuning for medical image segmentation.

``__init__.pyi`` lists the public API. A config can name each part of it as ``class_path: riskft.<name>``. A name is
imported when it is first used, because torch and Lightning take seconds and many commands need neither.
"""

import ast
from importlib import import_module
from pathlib import Path
from typing import Any

from riskft import account  # noqa: F401  (first)

__version__ = "0.1.0"

_HOMES = {
    name.name: str(line.module)
    for line in ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")).body
    if isinstance(line, ast.ImportFrom)
    for name in line.names
}
__all__ = sorted(_HOMES)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    """Imports a name of the public API."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found = getattr(import_module(_HOMES[name]), name)
    return found
