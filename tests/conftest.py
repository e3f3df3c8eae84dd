"""What holds for every test: a limit. `pytest.ini` gives the usual one; a test marked slow may take an hour."""

import pytest


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(3600))
