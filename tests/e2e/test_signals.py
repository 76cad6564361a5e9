"""SIGHUP reads what may have changed, other signals do nothing, and a terminal that closes is a reason to drain."""

import os
import pathlib
import pty
import re
import signal
import subprocess
import time

import grpc
import pytest

from harness import (BIN, MODEL, PATIENCE, clean_environment, generate_pb2, inference_pb2_grpc, session_pb2, session_pb2_grpc,
                     wait_until)
from sessions import Sessions

READ = "sluice_auth_reloads_total{result=ok}"


def commit(address, id):
    """A commit that is not durable: its position."""
    with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        message = generate_pb2.GenerateRequest(session_id=id, text="the", stop={"max_new_tokens": 3})
        answers = list(inference_pb2_grpc.InferenceServiceStub(channel).Generate(message, timeout=PATIENCE))
    return answers[-1].finished.session.position


def test_sighup_reads_the_tenants_now(start_daemon, tmp_path):
    tokens = tmp_path / "tokens"
    tokens.write_text("tenant one\n")
    daemon = start_daemon(f"--auth_tokens_file={tokens}")
    before = daemon.metrics()[READ]
    daemon.send(signal.SIGHUP)
    # No change of the file: only the signal can be why it was read.
    wait_until(lambda: daemon.metrics()[READ] == before + 1, "the file is read", timeout=5)
    tokens.write_text("tenant one\ntenant two\n")
    daemon.send(signal.SIGHUP)
    wait_until(lambda: daemon.metrics()["sluice_tenants"] == 2, "the new tenant is there", timeout=5)
    assert daemon.get("/readyz")[0] == 200
    assert daemon.stderr().count(" reload ") == 2


def test_sighup_drains_nothing(start_daemon, tmp_path):
    daemon = start_daemon(f"--session_dir={tmp_path}")
    sessions = Sessions(daemon)
    stream = daemon.inference.Generate(generate_pb2.GenerateRequest(
        text="The", stop={"max_new_tokens": 1_000_000, "ignore_eos": True}), timeout=PATIENCE)
    next(stream)
    sessions.create("kept")
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2) * 3:
        daemon.send(number)
        for _ in range(20):
            next(stream)
    assert daemon.get("/readyz")[0] == 200
    assert "draining" not in daemon.stderr()
    stream.cancel()
    position = commit(daemon.address, "kept")
    assert daemon.stop() == 0
    assert Sessions(start_daemon(f"--session_dir={tmp_path}")).get("kept").position == position


def test_sighup_while_it_drains_hurries_nothing(start_daemon):
    daemon = start_daemon("--drain_timeout=2s")
    stream = daemon.inference.Generate(generate_pb2.GenerateRequest(
        text="The", stop={"max_new_tokens": 1_000_000, "ignore_eos": True}), timeout=PATIENCE)
    next(stream)
    started = time.monotonic()
    daemon.send(signal.SIGTERM)
    wait_until(lambda: "draining" in daemon.stderr(), "it drains")
    for _ in range(5):
        daemon.send(signal.SIGHUP)
    assert daemon.wait() == 0
    assert time.monotonic() - started > 1.5


class Terminal:
    """An interactive shell on a terminal of its own, which runs what is typed."""

    def __init__(self, directory):
        self.directory = directory
        self.shell, self.master = pty.fork()
        if self.shell == 0:
            # Tests that run under nohup ignore the signal, which a shell would hand on to all that it starts.
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
            environment = {**clean_environment(), "HISTFILE": "", "PS1": "$ "}
            os.execvpe("bash", ["bash", "--norc", "--noprofile", "-i"], environment)

    def type(self, line):
        os.write(self.master, (line + "\n").encode())

    def close(self):
        os.close(self.master)
        os.waitpid(self.shell, 0)

    def start_daemon(self, session_dir, before="", after="&"):
        """Types the command of a daemon; what stands before it runs it. Its address and process."""
        out, err = self.directory / "out", self.directory / "err"
        self.type(f"{before} {BIN}/sluiced --model={MODEL} --listen=127.0.0.1:0 --admin_listen= --http_listen= --session_dir={session_dir} "
                  f"> {out} 2> {err} {after}")
        line = wait_until(lambda: out.exists() and re.match(r"serving .* at (\S+:\d+), admin", out.read_text()), "it serves")
        pids = subprocess.run(["pgrep", "-f", f"^{BIN}/sluiced .*{session_dir}"], capture_output=True, text=True)
        return line.group(1), int(pids.stdout.split()[-1])

    def log(self):
        return (self.directory / "err").read_text()


@pytest.fixture
def terminal(tmp_path):
    made = Terminal(tmp_path)
    yield made
    try:
        made.close()
    except OSError:
        pass  # the test closed it


def gone(pid):
    return not pathlib.Path(f"/proc/{pid}/exe").exists()


# A shell between that notes the daemon's exit code; it survives the terminal itself, and what it starts does not inherit that.
NOTED = "sh -c 'trap : HUP; \"$@\"; echo $? > code; exit 0' sh"


@pytest.mark.parametrize("before, after", [(NOTED, "&"), (NOTED, ""), ("exec", "")])
def test_a_terminal_that_closes_drains(terminal, start_daemon, tmp_path, before, after):
    """In the background, where the shell passes the signal on; in the foreground; in the shell's place."""
    terminal.type(f"cd {tmp_path}")
    store = tmp_path / "store"
    store.mkdir()
    address, pid = terminal.start_daemon(store, before, after)
    with grpc.insecure_channel(address) as channel:
        session_pb2_grpc.SessionServiceStub(channel).CreateSession(
            session_pb2.CreateSessionRequest(options=session_pb2.SessionOptions(id="kept")), timeout=PATIENCE)
    position = commit(address, "kept")
    terminal.close()
    wait_until(lambda: gone(pid), "the daemon has drained", timeout=20)
    assert 'draining reason="terminal closed"' in terminal.log() and " stopped" in terminal.log(), terminal.log()
    if before == NOTED:
        assert wait_until(lambda: (tmp_path / "code").exists() and (tmp_path / "code").read_text(), "the code") == "0\n"
    assert Sessions(start_daemon(f"--session_dir={store}")).get("kept").position == position


def test_nohup_outlives_its_terminal(terminal, tmp_path):
    store = tmp_path / "store"
    store.mkdir()
    address, pid = terminal.start_daemon(store, "nohup")
    terminal.close()
    time.sleep(0.5)
    try:
        assert not gone(pid) and "draining" not in terminal.log()
        os.kill(pid, signal.SIGHUP)
        wait_until(lambda: " reload " in terminal.log(), "and reads what may have changed when told to")
        assert not gone(pid)
    finally:
        os.kill(pid, signal.SIGTERM)
    wait_until(lambda: gone(pid), "it drains")


def test_hangup_typed_into_its_own_shell_is_no_end(terminal, tmp_path):
    store = tmp_path / "store"
    store.mkdir()
    address, pid = terminal.start_daemon(store)
    terminal.type("kill -HUP %1")
    wait_until(lambda: " reload " in terminal.log(), "it reads what may have changed")
    time.sleep(1.5)
    assert not gone(pid) and "draining" not in terminal.log()
    terminal.type("kill -TERM %1")
    wait_until(lambda: gone(pid), "it drains")
