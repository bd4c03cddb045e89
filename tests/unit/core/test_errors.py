"""Messages of the checks that many options share."""

from __future__ import annotations

import pytest

from dynacor_ray.core.errors import ConfigError, require_choice, require_two_classes


def test_a_choice_lists_the_valid_values() -> None:
    require_choice("a rule", "last", ("last", "best"))
    with pytest.raises(ConfigError, match="Expected a rule among last, best, but got"):
        require_choice("a rule", "worst", ("last", "best"))


def test_two_classes_are_needed() -> None:
    require_two_classes(2)
    with pytest.raises(ConfigError, match="Expected at least 2 classes, but got 1; use a data set"):
        require_two_classes(1)
