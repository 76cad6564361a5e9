"""The daemon and its fixtures are those of tests/e2e; run with -s, the tests print the figures of README.md."""

import importlib.util
import pathlib
import sys

E2E = pathlib.Path(__file__).resolve().parents[1] / "e2e"
sys.path.insert(0, str(E2E))
_spec = importlib.util.spec_from_file_location("e2e_conftest", E2E / "conftest.py")
_e2e = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_e2e)
start_daemon = _e2e.start_daemon


def pytest_configure(config):
    _e2e.pytest_configure(config)
    config.addinivalue_line("markers", "timed: compares speeds, so it needs a quiet machine; not part of a normal run")
