"""Peers that hold connections and never call: above three quarters of the slots the oldest of them go first (row 47)."""

import hashlib
import resource
import time

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from h2_peer import Peer
from harness import PATIENCE, inference_pb2_grpc, model_pb2, request, wait_until

TOKEN = "a-token-of-the-test"
BEARER = [("authorization", f"Bearer {TOKEN}")]
EVICTED = "sluice_connections_evicted_total{reason=no_call}"
ACCEPTED = "sluice_connections_accepted_total"


@pytest.fixture(autouse=True)
def many_files():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def tokens(tmp_path):
    file = tmp_path / "tokens"
    file.write_text(f"tenant one\ntoken one sha256:{hashlib.sha256(TOKEN.encode()).hexdigest()}\n")
    return f"--auth_tokens_file={file}"


class Client:
    """One connection of its own that makes calls."""

    def __init__(self, daemon, metadata=BEARER):
        self.channel, self.metadata = daemon.new_channel(("grpc.enable_retries", 0)), metadata
        self.stub = inference_pb2_grpc.InferenceServiceStub(self.channel)

    def call(self, timeout=PATIENCE):
        return self.stub.GetModel(model_pb2.GetModelRequest(), timeout=timeout, metadata=self.metadata)


def closed(peer):
    """True if the daemon has closed it; nothing is waited for."""
    peer.socket.setblocking(False)
    try:
        while peer.socket.recv(1 << 16):
            pass
    except BlockingIOError:
        return False
    except ConnectionError:
        pass
    return True


@pytest.mark.parametrize("authenticated", [True, False])
def test_1030_peers_that_never_call(start_daemon, tokens, authenticated):
    daemon = start_daemon("--log_level=error", *([tokens] if authenticated else []))
    metadata = BEARER if authenticated else []
    idle, busy = Client(daemon, metadata), Client(daemon, metadata)
    idle.call()
    busy.call()
    stream = busy.stub.Generate(request("The", stop={"max_new_tokens": 1_000_000, "ignore_eos": True}), timeout=PATIENCE,
                                metadata=metadata)
    next(stream)
    peers = [Peer(daemon.address) for _ in range(1030)]
    started = time.monotonic()
    newcomer = Client(daemon, metadata)
    newcomer.call()
    seconds = time.monotonic() - started
    accepted = daemon.metrics()[ACCEPTED]
    idle.call()
    next(stream)
    assert daemon.metrics()[ACCEPTED] == accepted, "whoever has called keeps the connection"
    wait_until(lambda: daemon.metrics()["sluice_connections"] <= 770, "a quarter of the slots is free again", timeout=20)
    samples = daemon.metrics()
    print(f"1,030 peers that never call: a newcomer's call took {seconds:.2f} s; {samples[EVICTED]:.0f} closed, "
          f"{samples['sluice_connections']:.0f} left")
    assert samples["sluice_connections_shed_total{reason=max_connections}"] == 0
    idle.call()
    next(stream)
    stream.cancel()
    # The oldest went first.
    assert [closed(peer) for peer in peers[:200]] == [True] * 200
    assert [closed(peer) for peer in peers[-200:]] == [False] * 200
    for peer in peers:
        peer.close()


@pytest.mark.parametrize("authenticated", [True, False])
def test_health_and_reflection_count_where_nobody_must_say_who_they_are(start_daemon, tokens, authenticated):
    daemon = start_daemon("--max_connections=16", "--log_level=error", *([tokens] if authenticated else []))
    probe, browser = daemon.new_channel(), daemon.new_channel()
    health = health_pb2_grpc.HealthStub(probe)

    def check():
        return health.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE)

    check()
    if not authenticated:
        ProtoReflectionDescriptorDatabase(browser).get_services()
    before = daemon.metrics()[EVICTED]
    peers = [Peer(daemon.address) for _ in range(40)]
    wait_until(lambda: daemon.metrics()[EVICTED] >= before + 25, "the flood made room for itself")
    accepted = daemon.metrics()[ACCEPTED]
    check()
    if not authenticated:
        ProtoReflectionDescriptorDatabase(browser).get_services()
        assert daemon.metrics()[ACCEPTED] == accepted, "both are still connected"
    else:
        assert daemon.metrics()[ACCEPTED] == accepted + 1, "the probe had to connect again"
    for peer in peers:
        peer.close()


def test_wrong_tokens_hold_no_slot(start_daemon, tokens):
    daemon = start_daemon("--max_connections=16", "--auth_failures_per_minute=0", "--log_level=error", tokens)
    guessers = [Client(daemon, [("authorization", "Bearer wrong")]) for _ in range(16)]
    for guesser in guessers:
        with pytest.raises(grpc.RpcError) as error:
            guesser.call()
        assert error.value.code() == grpc.StatusCode.UNAUTHENTICATED
    good = Client(daemon)
    good.call()
    assert daemon.metrics()[EVICTED] >= 1


def test_full_of_callers_the_newcomer_goes(start_daemon):
    daemon = start_daemon("--max_connections=8", "--log_level=error")
    daemon.channel.close()
    clients = [Client(daemon, []) for _ in range(8)]
    for client in clients:
        client.call()
    with pytest.raises(grpc.RpcError) as error:
        Client(daemon, []).call(timeout=3)
    assert error.value.code() == grpc.StatusCode.UNAVAILABLE
    for client in clients:
        client.call()
    assert daemon.metrics()[EVICTED] == 0
    clients[0].channel.close()
    wait_until(lambda: daemon.metrics()["sluice_connections"] == 7, "one has left")
    Client(daemon, []).call()
