"""Sessions behind Envoy, on two daemons that share a session directory: one daemon drains, or dies, and the other goes on."""

import signal

import grpc
import pytest

from edge import certificate, two_daemons  # noqa: F401
from harness import Daemon, PATIENCE, collect, inference_pb2_grpc, request, session_pb2, session_pb2_grpc, wait_until
from sessions import OPTIONS, Sessions

Code = grpc.StatusCode
PROMPTS = ["The night was", " and then", " of the sea", " she said", " in the house"]


class Client:
    """What a good client does: durable commits, the session's affinity in each call, one more try when told ABORTED."""

    def __init__(self, channel):
        self.inference = inference_pb2_grpc.InferenceServiceStub(channel)
        self.sessions = session_pb2_grpc.SessionServiceStub(channel)
        self.aborted = 0
        self.told = {}  # the session as the last answer had it
        self.turns = {}

    def create(self, id):
        self.told[id] = self.sessions.CreateSession(
            session_pb2.CreateSessionRequest(options=OPTIONS(id=id)), timeout=PATIENCE, metadata=[("x-sluice-affinity", id)])
        self.turns[id] = 0

    def start(self, id, tokens=12):
        stop = {"max_new_tokens": tokens, "ignore_eos": True}
        return self.inference.Generate(turn(id, self.turns[id], stop, session_id=id, durable=True), timeout=PATIENCE,
                                       metadata=[("x-sluice-affinity", id)])

    def finish(self, id, call):
        only = collect(call).only
        self.told[id] = only.finished.session
        self.turns[id] += 1
        return only.token_ids

    def say(self, id):
        for attempt in range(2):
            try:
                return self.finish(id, self.start(id))
            except grpc.RpcError as error:
                assert error.code() == Code.ABORTED and attempt == 0, error
                self.aborted += 1


def turn(id, number, stop, **fields):
    return request(PROMPTS[number % len(PROMPTS)], sampling={"seed": 100 * int(id[1:]) + number}, stop=stop, **fields)


class Undisturbed:
    """The same turns on a daemon that nobody troubles."""

    def __init__(self, daemon):
        self.sessions = Sessions(daemon)
        self.turns = {}

    def say(self, id, tokens=12):
        if id not in self.turns:
            self.sessions.create(id)
        number = self.turns[id] = self.turns.get(id, -1) + 1
        stop = {"max_new_tokens": tokens, "ignore_eos": True}
        call = self.sessions.daemon.inference.Generate(turn(id, number, stop, session_id=id), timeout=PATIENCE)
        return collect(call).only.token_ids


def commits(daemon):
    return daemon.metrics()["sluice_commits_total"]


def homes(client, daemons, ids):
    """The daemon that computes each session's next turn; the turn is one of its own."""
    home, said = {}, {}
    for id in ids:
        before = {address: commits(daemon) for address, daemon in daemons.items()}
        said[id] = client.say(id)
        (home[id],) = [address for address, daemon in daemons.items() if commits(daemon) > before[address]]
    return home, said


def test_sessions_go_on_at_the_other_daemon(tmp_path, certificate):  # noqa: F811
    flags = (f"--session_dir={tmp_path / 'sessions'}", "--session_dir_shared", "--drain_timeout=60s")
    reference = Daemon()
    ids = [f"s{i}" for i in range(7)]
    try:
        with two_daemons(tmp_path, certificate, *flags) as (envoy, daemons), envoy.channel() as channel:
            client, undisturbed = Client(channel), Undisturbed(reference)
            for id in ids:
                client.create(id)
            home, said = homes(client, daemons, ids)
            assert {id: undisturbed.say(id) for id in ids} == said
            assert set(home.values()) == set(daemons), "both have sessions"

            for end in (signal.SIGTERM, signal.SIGKILL):
                leave_and_come_back(envoy, daemons, flags, client, undisturbed, home, end)
            print(f"{len(ids)} sessions: tokens as undisturbed, nothing lost")
    finally:
        reference.kill()


def leave_and_come_back(envoy, daemons, flags, client, undisturbed, home, end):
    ids, aborted = list(home), client.aborted
    # A turn is in the middle when its daemon is told to go, or is no more.
    leaving = home[ids[0]]
    staying = next(address for address in daemons if address != leaving)
    long = client.start(ids[0], tokens=400)
    next(long)
    wait_until(lambda: daemons[leaving].metrics()["sluice_sequences_running"] == 1, "the turn runs")
    daemons[leaving].send(end)
    if end == signal.SIGTERM:
        wait_until(lambda: daemons[leaving].get("/readyz")[0] == 503, "the daemon drains")
        # The others' next turns, while it does.
        moved = [id for id in ids[1:] if home[id] == leaving]
        only = {staying: daemons[staying]}
        where, said = homes(client, only, moved)
        assert set(where.values()) <= {staying}
        assert {id: undisturbed.say(id) for id in moved} == said
        rest = [token for message in long for token in message.delta.token_ids]
        assert rest and rest == undisturbed.say(ids[0], tokens=400)[-len(rest):]
        client.turns[ids[0]] += 1
        assert daemons[leaving].wait() == 0
    else:
        with pytest.raises(grpc.RpcError):
            list(long)
        daemons[leaving].wait()

    only = {staying: daemons[staying]}
    where, said = homes(client, only, ids)
    assert set(where.values()) == {staying}
    assert {id: undisturbed.say(id) for id in ids} == said
    assert client.aborted == aborted

    # It comes back, and so do its sessions; nobody has lost a commit.
    daemons[leaving] = Daemon(f"--listen={leaving}", *flags)
    wait_until(lambda: envoy.healthy() == 2, "Envoy sees the daemon come back")
    back, said = homes(client, daemons, ids)
    assert back == home
    assert {id: undisturbed.say(id) for id in ids} == said
    # The one that kept them meanwhile has the newer state as well.
    other = Sessions(daemons[staying])
    mine = [id for id in ids if home[id] == leaving]
    for id in mine:
        assert other.get(id).etag == client.told[id].etag
        stop = {"max_new_tokens": 12, "ignore_eos": True}
        message = turn(id, client.turns[id], stop, session_id=id, durable=True)
        newest = collect(other.daemon.inference.Generate(message, timeout=PATIENCE)).only
        assert newest.token_ids == undisturbed.say(id)
        client.turns[id] += 1
