"""Nothing here looks at a figure."""

import pytest


@pytest.fixture(autouse=True, scope="module")
def _no_pictures(no_pictures):
    """Leaves out the drawing in all modules of this folder."""
