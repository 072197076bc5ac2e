from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _drawn(drawn_figures: None) -> None:
    """The tests of this room look at what is drawn."""
