"""No test in this folder looks at a figure."""

import pytest


@pytest.fixture(autouse=True, scope="module")
def _no_pictures(no_pictures):
    """Skips the drawing in all modules of this folder."""
