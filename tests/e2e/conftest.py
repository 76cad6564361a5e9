import pytest

import harness


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes long, or means nothing in a sanitized build")


def check_stderr(daemon):
    """No sanitizer, library or crash wrote to the log."""
    text = daemon.stderr()
    for word in ("Sanitizer", "runtime error:", "libprotobuf", "terminate called", "Check failed", "assertion"):
        assert word not in text, text


@pytest.fixture(scope="session")
def daemon():
    """The daemon that most tests share, with default flags. It must survive all of them and then drain."""
    running = harness.Daemon()
    yield running
    assert running.process.poll() is None, f"sluiced died: {running.stderr()}"
    running.wait_idle()
    code = running.stop()
    assert code == 0, running.stderr()
    check_stderr(running)


@pytest.fixture
def start_daemon():
    """Starts daemons with flags of the test's own; each must end with exit code 0 if it still runs after it."""
    started = []

    def start(*flags, **keywords):
        started.append(harness.Daemon(*flags, **keywords))
        return started[-1]

    yield start
    try:
        for running in started:
            if running.process.poll() is None:
                assert running.stop() == 0, running.stderr()
            check_stderr(running)
    finally:
        for running in started:
            running.kill()


@pytest.fixture(autouse=True)
def alive(request):
    """Names the test in which the shared daemon died."""
    yield
    if "daemon" in request.fixturenames:
        shared = request.getfixturevalue("daemon")
        assert shared.process.poll() is None, f"sluiced died with {shared.process.returncode}: {shared.stderr()}"
