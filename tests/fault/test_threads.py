"""No thread to be had: before `serving` it is exit code 3 and the reason, after it the daemon goes on (row 46)."""

import os
import pathlib
import re
import signal
import subprocess

import grpc
import pytest

from harness import BIN, MODEL, PATIENCE, clean_environment, request, wait_until

REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
LIST_SERVICES = b"\x3a\x00"
HERE = pathlib.Path(__file__).parent
FLAGS = ["--device=cpu", "--listen=127.0.0.1:0", "--admin_listen=127.0.0.1:0", "--http_listen=127.0.0.1:0"]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    built = tmp_path_factory.mktemp("threads") / "no_threads.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", built, HERE / "no_threads.c", "-ldl"], check=True)
    return built


def run(tmp_path, wrapper=(), environment=None):
    """Starts a daemon and, if it serves, stops it: (exit code, what it said, whether it served)."""
    out, err = tmp_path / "out", tmp_path / "err"
    with open(out, "wb") as stdout, open(err, "wb") as stderr:
        process = subprocess.Popen([*wrapper, BIN / "sluiced", f"--model={MODEL}", f"--session_dir={tmp_path / 'sessions'}", *FLAGS],
                                   stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr,
                                   env={**clean_environment(), **(environment or {})})
    try:
        wait_until(lambda: process.poll() is not None or b"\n" in out.read_bytes(), "it serves or ends")
        served = b"serving" in out.read_bytes()
        if served:
            process.send_signal(signal.SIGTERM)
        return process.wait(PATIENCE), err.read_text(), served
    finally:
        process.kill()


def assert_refused(code, text):
    assert code == 3, text
    lines = [line for line in text.splitlines() if line.startswith("sluiced: ")]
    assert len(lines) == 1 and "thread" in lines[0] and "ulimit -u" in lines[0], text
    assert "terminate" not in text and "assert" not in text, text


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a user of its own")
def test_a_bound_of_the_system(tmp_path):
    """ulimit -u, for a user who has no other process."""
    (tmp_path / "sessions").mkdir()
    os.chown(tmp_path / "sessions", 54321, 54321)
    for parent in (tmp_path, *tmp_path.parents):
        if parent.name.startswith(("pytest", "test")):
            os.chmod(parent, 0o755)
    least, refused = None, 0
    for bound in (1, 2, 5, 10, 20, 40, 60, 80, 120, 300):
        code, text, served = run(tmp_path, ("setpriv", "--reuid=54321", "--regid=54321", "--clear-groups", "prlimit", f"--nproc={bound}"))
        if served:
            assert code == 0, text
            least = least or bound
            break
        assert_refused(code, text)
        reason = re.search(r"may start (\d+) threads, but may need (\d+): Resource temporarily unavailable", text)
        assert reason and int(reason.group(1)) < bound, text
        refused += 1
    print(f"ulimit -u: refused {refused} times, with {least} it serves")
    assert least is not None and refused


def test_each_thread_in_turn(library, tmp_path):
    """From each call of pthread_create on there is none, those of libraries included: the start is refused, or serves and drains."""
    environment = {"LD_PRELOAD": str(library)}
    text = run(tmp_path, environment={**environment, "NO_THREADS_FROM": "0"})[1]
    asked = int(re.search(r"but may need (\d+)", text).group(1))
    results = {}
    for number in [*range(0, asked, 7), *range(asked, asked + 80)]:
        code, text, served = run(tmp_path, environment={**environment, "NO_THREADS_FROM": str(number)})
        results[number] = served
        if served:
            assert code == 0, f"{number}: {text}"
            break
        assert_refused(code, text)
    print(f"asks for {asked} threads; refused without each of the first {len(results) - 1}, serves with {max(results)} calls")
    assert results[max(results)], "it never served"


# By hand (-m timed): in one of some runs gRPC 1.51 loses a call here, which is a known gap (row 46) and not yet mended.
@pytest.mark.timed
def test_none_after_the_start(library, start_daemon, tmp_path):
    """Who is connected is served, nothing aborts, and the drain ends. gRPC 1.51 may lose what it hands to a thread of its own that it
    could not start, so of what makes it start some, many new connections at once, nothing is promised but an end."""
    marker = tmp_path / "no-threads"
    daemon = start_daemon("--http_listen=127.0.0.1:0", "--drain_timeout=2s",
                          environment={"LD_PRELOAD": str(library), "NO_THREADS": str(marker)})
    daemon.generate("The")
    marker.touch()
    before = len(os.listdir(f"/proc/{daemon.process.pid}/task"))
    assert [daemon.generate("The sea", timeout=30).only.reason for _ in range(20)] == ["MAX_TOKENS"] * 20
    for _ in range(3):
        reflection = daemon.channel.stream_stream(REFLECTION, lambda raw: raw, lambda raw: raw)
        assert next(reflection(iter([LIST_SERVICES]), timeout=30)), "it holds no thread of its own"
    assert daemon.get("/metrics")[0] == daemon.get("/readyz")[0] == 200
    assert len(os.listdir(f"/proc/{daemon.process.pid}/task")) <= before
    daemon.send(signal.SIGHUP)
    stream = daemon.inference.Generate(request("The", stop={"max_new_tokens": 1_000_000, "ignore_eos": True}), timeout=PATIENCE)
    next(stream)
    assert daemon.stop() == 0
