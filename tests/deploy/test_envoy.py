"""deploy/envoy.yaml in the real Envoy, before two daemons: affinity, drain, and the bounds that the daemon's gRPC lacks."""

import contextlib
import signal
import ssl
import subprocess
import time

import grpc
import h2.events
import pytest
import yaml

from edge import CONFIG, ENVOY, HEADERS, certificate, closed, frame, two_daemons, with_certificate  # noqa: F401
from harness import Daemon, PATIENCE, collect, in_threads, inference_pb2_grpc, request, tokens_pb2, wait_until

RUNTIME = yaml.safe_load(CONFIG.read_text())["layered_runtime"]["layers"][0]["static_layer"]
ENDLESS = {"max_new_tokens": 1_000_000, "ignore_eos": True}


@pytest.fixture
def edge(tmp_path, certificate):  # noqa: F811
    with two_daemons(tmp_path, certificate) as edge:
        yield edge


@pytest.fixture(scope="module")
def shared_edge(tmp_path_factory, certificate):  # noqa: F811
    """The edge of tests that leave both daemons as they were."""
    with two_daemons(tmp_path_factory.mktemp("edge"), certificate) as edge:
        yield edge


def handled(daemon):
    """Calls of Generate that the daemon has ended."""
    return sum(value for name, value in daemon.metrics().items()
               if name.startswith("grpc_server_handled_total") and "Generate" in name)


def where(stub, daemons, key, prompt="The"):
    """The daemon that answers a call with this affinity."""
    before = {address: handled(daemon) for address, daemon in daemons.items()}
    collect(stub.Generate(request(prompt, stop={"max_new_tokens": 1}), timeout=PATIENCE,
                          metadata=[("x-sluice-affinity", key)]))

    def found():
        return [address for address, daemon in daemons.items() if handled(daemon) > before[address]]

    return wait_until(found, "a daemon counts the call")[0]


def test_envoy_accepts_the_file(tmp_path, certificate):
    file = tmp_path / "envoy.yaml"
    file.write_text(with_certificate(certificate))
    done = subprocess.run([ENVOY, "--mode", "validate", "-c", file], capture_output=True, text=True, timeout=60)
    text = done.stdout + done.stderr
    assert done.returncode == 0 and "OK" in text, text
    assert "Deprecated" not in text, text


def test_affinity_and_drain(edge):
    envoy, daemons = edge
    with envoy.channel() as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        keys = [f"session-{i}" for i in range(24)]
        home = {key: where(stub, daemons, key) for key in keys}
        assert all(where(stub, daemons, key) == home[key] for key in keys)
        shares = [list(home.values()).count(address) for address in daemons]
        print(f"24 keys over 2 daemons: {shares}")
        assert min(shares) >= 4, shares

        # One daemon drains with a stream on it: the stream goes on, new calls of its keys go to the other daemon.
        leaving = home[keys[0]]
        staying = next(address for address in daemons if address != leaving)
        stream = stub.Generate(request("The", stop=ENDLESS), timeout=PATIENCE, metadata=[("x-sluice-affinity", keys[0])])
        next(stream)
        wait_until(lambda: daemons[leaving].metrics()["sluice_streams"] == 1, "the stream is on its daemon")
        daemons[leaving].send(signal.SIGTERM)
        wait_until(lambda: daemons[leaving].get("/readyz")[0] == 503, "the daemon drains")
        # Before Envoy's health check notices, UNAVAILABLE is retried on the other daemon.
        only = {staying: daemons[staying]}
        assert all(where(stub, only, key) == staying for key in keys)
        for _ in range(20):
            next(stream)
        wait_until(lambda: envoy.healthy() == 1, "Envoy sees the daemon leave")
        stream.cancel()
        assert daemons[leaving].wait() == 0

        # Its keys come home when it comes back, and no others move.
        daemons[leaving] = Daemon(f"--listen={leaving}")
        wait_until(lambda: envoy.healthy() == 2, "Envoy sees the daemon come back")
        assert {key: where(stub, daemons, key) for key in keys} == home


def test_a_killed_daemon_costs_no_new_call(edge):
    envoy, daemons = edge
    with envoy.channel() as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        victim, other = list(daemons)
        daemons[victim].kill()
        for i in range(24):
            assert where(stub, {other: daemons[other]}, f"session-{i}") == other


def test_only_the_api_passes(shared_edge):
    envoy, daemons = shared_edge
    with envoy.channel() as channel:
        for path in ("/grpc.health.v1.Health/Check", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"):
            with pytest.raises(grpc.RpcError) as error:
                channel.unary_unary(path, lambda x: x, lambda x: x)(b"", timeout=PATIENCE)
            assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED


def status_of(envoy, headers):
    """The grpc-status of a call of Generate with an empty message."""
    peer, connection = envoy.raw()
    with peer:
        connection.send_headers(1, HEADERS + headers)
        connection.send_data(1, bytes(5), end_stream=True)
        peer.sendall(connection.data_to_send())
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            for event in connection.receive_data(peer.recv(65536)):
                status = dict(getattr(event, "headers", None) or ()).get(b"grpc-status")
                if status is not None:
                    return status
    raise AssertionError("no answer")


def test_compressed_messages_stop_at_the_edge(shared_edge):
    envoy, daemons = shared_edge
    with envoy.channel() as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        message = tokens_pb2.TokenizeRequest(text="The sea " * 100)
        with daemons_untouched(daemons) as figures:
            for algorithm in (grpc.Compression.Gzip, grpc.Compression.Deflate):
                with pytest.raises(grpc.RpcError) as error:
                    stub.Tokenize(message, timeout=PATIENCE, compression=algorithm)
                assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED
                assert error.value.details() == "Compressed messages are not taken: send grpc-encoding identity."
                with pytest.raises(grpc.RpcError):
                    collect(stub.Generate(request("The"), timeout=PATIENCE, compression=algorithm))
            for value in ("gzip", "no-such", "identity, gzip"):
                assert status_of(envoy, [("grpc-encoding", value)]) == b"12", value
        assert figures["handled"] == 0
        assert all(daemon.metrics()["sluice_compressed_calls_refused_total"] == 0 for daemon in daemons.values())
        assert stub.Tokenize(message, timeout=PATIENCE, compression=grpc.Compression.NoCompression).token_ids
        # An empty message of Generate names no prompt: the daemon says so itself.
        assert status_of(envoy, [("grpc-encoding", "identity")]) == status_of(envoy, []) == b"3"


def test_large_headers_stop_at_the_edge(shared_edge):
    envoy, daemons = shared_edge
    with envoy.channel() as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        with daemons_untouched(daemons) as figures:
            for metadata in ([("x-large", "a" * 20_000)], [(f"x-many-{i}", "a") for i in range(120)]):
                for _ in range(50):
                    with pytest.raises(grpc.RpcError):
                        collect(stub.Generate(request("The"), timeout=PATIENCE, metadata=metadata))
        print(f"100 large headers: daemons grew by {figures['grown']} KiB")
        assert figures["handled"] == 0
        collect(stub.Generate(request("The", stop={"max_new_tokens": 1}), timeout=PATIENCE))


def test_streams_of_one_connection_are_bounded(shared_edge):
    envoy, _ = shared_edge
    peer, connection = envoy.raw()
    with peer:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            events = connection.receive_data(peer.recv(65536))
            if any(isinstance(event, h2.events.RemoteSettingsChanged) for event in events):
                break
        assert connection.remote_settings.max_concurrent_streams == 100


@contextlib.contextmanager
def daemons_untouched(daemons):
    """What happens inside reaches no handler of a daemon, and costs none of them memory."""
    calls = sum(map(handled, daemons.values()))
    rss = {address: daemon.rss_kib() for address, daemon in daemons.items()}
    figures = {}
    yield figures
    figures["grown"] = max(daemons[address].rss_kib() - before for address, before in rss.items())
    figures["handled"] = sum(map(handled, daemons.values())) - calls
    assert figures["grown"] < 16 << 10, figures


def test_rapid_reset_ends_the_connection(edge):
    envoy, daemons = edge
    sent = 0
    with daemons_untouched(daemons) as figures:
        peer, connection = envoy.raw()
        with peer:
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                for _ in range(5000):
                    stream = connection.get_next_available_stream_id()
                    connection.send_headers(stream, HEADERS)
                    connection.reset_stream(stream)
                    peer.sendall(connection.data_to_send())
                    sent += 1
            assert closed(peer)
    limit = RUNTIME["overload.premature_reset_total_stream_count"]
    opened = envoy.stat("http.grpc.downstream_rq_total")
    print(f"rapid reset: cut off after {opened} streams of {sent} sent, daemons grew by {figures['grown']} KiB")
    assert limit / 2 <= opened <= limit
    assert envoy.stat("http.grpc.downstream_rq_too_many_premature_resets") == 1


def continuation_flood():
    # A literal header field that is not indexed: name "x", value of 4,000 bytes.
    field = b"\x00\x01x\x7f" + bytes([(4000 - 127) & 0x7F | 0x80, (4000 - 127) >> 7]) + b"a" * 4000
    yield frame(1, 0, 1, b"\x83")
    yield from (frame(9, 0, 1, field) for _ in range(20_000))


FLOODS = {
    "CONTINUATION": continuation_flood(),
    "PING": (frame(6, 0, 0, b"12345678") * 100 for _ in range(50_000)),
    "SETTINGS": (frame(4, 0, 0, b"\0\4\0\0\xff\xff") * 100 for _ in range(50_000)),
    "empty DATA": (frame(0, 0, 1) * 100 for _ in range(50_000)),
    "WINDOW_UPDATE": (frame(8, 0, 0, b"\0\0\0\1") * 100 for _ in range(50_000)),
    "PRIORITY": (frame(2, 0, 1, b"\0\0\0\0\7") * 100 for _ in range(50_000)),
    "garbage": (bytes(range(255, -1, -1)) * 4 for _ in range(50_000)),
}


def test_a_flood_ends_the_connection(shared_edge):
    """All of them at once, each on a connection of its own."""
    envoy, daemons = shared_edge

    def flood(name):
        peer, sent = envoy.raw()[0], 0
        with peer:
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                for piece in FLOODS[name]:
                    peer.sendall(piece)
                    sent += len(piece)
            assert closed(peer), name
        return sent

    with daemons_untouched(daemons) as figures:
        sent = dict(zip(FLOODS, in_threads(len(FLOODS), lambda i: flood(list(FLOODS)[i]))))
    print(f"floods, cut off after KiB: { {name: size >> 10 for name, size in sent.items()} }, "
          f"daemons grew by {figures['grown']} KiB")
    assert max(sent.values()) < 32 << 20 and figures["handled"] == 0
    with envoy.channel() as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        collect(stub.Generate(request("The", stop={"max_new_tokens": 1}), timeout=PATIENCE))
