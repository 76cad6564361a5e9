"""A real bound on memory: the daemon in a cgroup of its own (row 32). Needs the right to make one."""

import pathlib
import signal
import tempfile

import grpc
import pytest

from harness import PATIENCE, request, wait_until
from load import assert_alive
from sessions import Sessions

# The folder in which a group may be made, the file of its bound, and the file that counts how often it was over it.
VERSIONS = ((pathlib.Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.oom_control"),
            (pathlib.Path("/sys/fs/cgroup"), "memory.max", "memory.events"))
MIB = 1 << 20


class Group:
    def __init__(self, path, kills):
        self.path, self._kills = path, kills
        # The shell joins the group, then becomes the daemon.
        self.wrapper = ("sh", "-c", 'echo $$ > "$0" && exec "$@"', str(path / "cgroup.procs"))

    def kills(self):
        lines = (line.split() for line in (self.path / self._kills).read_text().splitlines())
        return next(int(value) for name, value in lines if name == "oom_kill")


@pytest.fixture
def memory_group():
    """memory_group(MiB) is a new group with that bound."""
    made = []

    def make(mib):
        for parent, bound, kills in VERSIONS:
            try:
                path = pathlib.Path(tempfile.mkdtemp(prefix="sluice-", dir=parent))
                made.append(path)
                with open(path / bound, "r+") as file:  # the kernel makes it, or this is no group
                    file.write(str(mib * MIB))
                return Group(path, kills)
            except OSError:
                continue
        pytest.skip("no right to make a cgroup with a bound on memory")

    yield make
    for path in made:
        # The kernel may take a moment to see that the last process is gone.
        wait_until(lambda path=path: remove(path), "the group is empty", timeout=10)


def remove(path):
    try:
        path.rmdir()
    except OSError:
        return False
    return True


def long_prompts(daemon, each=200):
    """Streams of prompts of 200,000 tokens, each begun; more than one connection may have are spread over several."""
    message = request([5] * 200_000, stop={"max_new_tokens": 1})
    while True:
        stub = daemon.stub()
        for _ in range(each):
            call = stub.Generate(message, timeout=PATIENCE)
            next(call)
            yield call


def test_refuses_before_its_group_is_full(memory_group, start_daemon):
    """No flag says how much memory there is: the group does."""
    group = memory_group(256)
    daemon = start_daemon("--max_queued_tokens=1000000000", f"--device_state_bytes={2 * 600_000}", wrapper=group.wrapper)
    holder = daemon.inference.Generate(request("The", n=2, stop={"max_new_tokens": 1_000_000, "ignore_eos": True}),
                                       timeout=PATIENCE)
    next(holder)
    waiting, refused, most = [holder], None, 0
    try:
        for call in long_prompts(daemon):
            waiting.append(call)
            most = max(most, daemon.rss_kib() / 1024)
            assert len(waiting) < 2000, "never refused"
    except grpc.RpcError as error:
        refused = error
    assert refused.code() == grpc.StatusCode.RESOURCE_EXHAUSTED and "memory" in refused.details(), refused
    print(f"a group of 256 MiB: {len(waiting) - 1} prompts of 200,000 tokens wait, then calls are refused at "
          f"{most:.0f} MiB resident; killed: {group.kills()}")
    assert group.kills() == 0
    for call in waiting:
        call.cancel()
    daemon.wait_idle()
    assert_alive(daemon)


def test_killed_by_its_group_it_goes_on_with_its_sessions(memory_group, start_daemon, tmp_path):
    """Told that it has more than the group allows, it is killed; what was committed is there afterwards."""
    group = memory_group(160)
    first = Sessions(start_daemon(f"--session_dir={tmp_path}", "--memory_limit=1000000000000",
                                  "--max_queued_tokens=1000000000", wrapper=group.wrapper))
    first.create("a")
    _, told = first.say("a", "The night was", durable=True)
    first.fork("a", "b")
    expected = first.say("b", " dark", sampling={"seed": 4})[0].bits()
    calls = []
    try:
        for call in long_prompts(first.daemon):
            calls.append(call)
            assert len(calls) < 2000, "never killed"
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.UNAVAILABLE, error
    assert first.daemon.wait() == -signal.SIGKILL
    assert group.kills() == 1
    second = Sessions(start_daemon(f"--session_dir={tmp_path}"))
    assert second.get("a").etag == told.etag
    assert second.say("a", " dark", sampling={"seed": 4})[0].bits() == expected
    print(f"a group of 160 MiB, killed with {len(calls)} such prompts: the session goes on from its last commit")
