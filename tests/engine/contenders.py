"""What processes run that contend for something; by a name of its own, for them to import it.

(There are several modules called conftest.)
"""

from __future__ import annotations

from typing import Any


def wait_for_all(barrier: Any) -> None:
    """Until all are there."""
    barrier.wait(300)
