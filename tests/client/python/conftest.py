"""The package as its wheel has it, and the daemon and fixtures of tests/e2e."""

import importlib.util
import pathlib
import subprocess
import sys
import tempfile
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
PACKAGE = ROOT / "client/python"
E2E = ROOT / "tests/e2e"


def _build_wheel(directory):
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps",
                    "--no-build-isolation", f"--wheel-dir={directory}", str(PACKAGE)], check=True)
    return next(pathlib.Path(directory).glob("sluice_client-*.whl"))


_directory = tempfile.TemporaryDirectory(prefix="sluice-client-")
WHEEL = _build_wheel(_directory.name)
with zipfile.ZipFile(WHEEL) as _wheel:
    _wheel.extractall(f"{_directory.name}/site")
# The harness makes stubs of the same name, and takes ours where they come first. Where it is loaded already, its own were
# made of the same files: messages of both are of the same classes.
for _name in [name for name in sys.modules if name.partition(".")[0] == "sluice"]:
    del sys.modules[_name]
sys.path[:0] = [f"{_directory.name}/site", str(E2E)]
import sluice  # noqa: E402

_spec = importlib.util.spec_from_file_location("e2e_conftest", E2E / "conftest.py")
_e2e = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_e2e)
daemon, start_daemon, alive = _e2e.daemon, _e2e.start_daemon, _e2e.alive
pytest_configure = _e2e.pytest_configure


@pytest.fixture
def wheel():
    return WHEEL


@pytest.fixture
def site():
    """The folder in which the wheel lies unpacked."""
    return pathlib.Path(_directory.name) / "site"


@pytest.fixture
def client(daemon):
    with sluice.Client(daemon.address, timeout=60) as connected:
        yield connected
        for session in connected.sessions.list():
            session.delete()
