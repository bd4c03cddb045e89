"""How threads of OpenMP, which torch's are, wait for one another. It is read once, when torch is loaded."""

from __future__ import annotations

import os
import sys

# How long they spin before they sleep. Milliseconds, as by default, made steps five to ten times as slow on a busy
# machine; not at all, twice as slow on an idle one, since waking takes longer than their work. Some tens of
# microseconds cost an idle machine nothing and a busy one half a step.
_SETTINGS = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "3000"}
_too_late = False


def let_threads_sleep() -> None:
    """Say so in the environment, of this process and those that it starts; what the user has set stays."""
    global _too_late
    if "torch" in sys.modules and not os.environ.keys() & _SETTINGS:
        _too_late = True
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)


def threads_spin() -> bool:
    """Whether torch was loaded before, so that its threads in this process spin for long."""
    return _too_late
