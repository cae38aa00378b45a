"""What the tests of dictionary learning share."""

from __future__ import annotations

from tests.threads import one_thread  # noqa: F401 - a fixture for all
