import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests" / "e2e"))


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes minutes, or root and a package mirror")
