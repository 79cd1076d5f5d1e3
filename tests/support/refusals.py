"""The text with which a configuration is refused."""

from __future__ import annotations

from typing import Any

import pytest

from kvworker.errors import ConfigurationError
from kvworker.settings import Settings


def refusal(data: dict[Any, Any]) -> str:
    """Return the error for a configuration that must be refused."""
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_mapping(data)
    return str(caught.value)
