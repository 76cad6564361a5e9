"""Compressed messages: gRPC would inflate them before any bound and before authentication, so none is taken (row 39)."""

import functools
import socket
import struct
import time
import zlib

import grpc
import h2.config
import h2.connection
import h2.events
import pytest

from harness import PATIENCE, collect, proc_status, request, tokens_pb2, wait_until
from load import assert_alive
from test_memory import memory_group  # noqa: F401

REFUSED = "sluice_compressed_calls_refused_total"
TOKENIZE = "/sluice.v1.InferenceService/Tokenize"


@functools.cache
def bomb():
    """A gRPC message of 512 MiB of zeros, a thousandth of that on the wire."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, 31)
    body = b"".join(deflate.compress(bytes(1 << 20)) for _ in range(512)) + deflate.flush()
    return struct.pack(">BI", 1, len(body)) + body


def call(daemon, encoding, body):
    """Sends one call by hand: (the answer's headers, the trailers)."""
    host, port = daemon.address.rsplit(":", 1)
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    with socket.create_connection((host, int(port)), PATIENCE) as peer:
        connection.initiate_connection()
        headers = [(":method", "POST"), (":scheme", "http"), (":authority", "fault"), (":path", TOKENIZE), ("te", "trailers"),
                   ("content-type", "application/grpc")]
        connection.send_headers(1, headers + ([("grpc-encoding", encoding)] if encoding else []))
        answer, end = {}, time.monotonic() + PATIENCE
        while time.monotonic() < end:
            room = min(connection.local_flow_control_window(1), connection.max_outbound_frame_size, len(body))
            if room > 0:
                connection.send_data(1, body[:room], end_stream=len(body) == room)
                body = body[room:]
            peer.sendall(connection.data_to_send())
            if room > 0:
                continue
            for event in connection.receive_data(peer.recv(65536)):
                if isinstance(event, h2.events.ResponseReceived):
                    answer = dict(event.headers)
                if isinstance(event, h2.events.TrailersReceived):
                    return answer, dict(event.headers)
                if isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)):
                    return answer, answer
    raise AssertionError("no answer")


@pytest.mark.parametrize("algorithm", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_a_client_that_compresses_is_told_so(start_daemon, algorithm):
    daemon = start_daemon()
    lines = daemon.stderr().count("\n")
    for i in range(50):
        with pytest.raises(grpc.RpcError) as error:
            daemon.inference.Tokenize(tokens_pb2.TokenizeRequest(text="The sea " * 100), compression=algorithm, timeout=PATIENCE)
        assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED
        name = algorithm.name.lower()
        assert error.value.details() == f"Compression algorithm '{name}' is disabled."
        with pytest.raises(grpc.RpcError) as error:
            collect(daemon.inference.Generate(request("The"), compression=algorithm, timeout=PATIENCE))
        assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert daemon.metrics()[REFUSED] == 100
    assert daemon.stderr().count("\n") == lines, "not a line for each"
    # The same connection serves who does not compress.
    assert daemon.tokenize("The sea")


@pytest.mark.parametrize("encoding", ["br", "zstd", "GZIP", "gzip, identity"])
def test_an_encoding_that_grpc_does_not_know_is_counted(start_daemon, encoding):
    """gRPC passes its bytes on as they are, so that they cannot be parsed."""
    daemon = start_daemon()
    lines = daemon.stderr().count("\n")
    for _ in range(5):
        _, trailers = call(daemon, encoding, b"\1\0\0\0\3abc")
        assert int(trailers[b"grpc-status"]) == grpc.StatusCode.INVALID_ARGUMENT.value[0]
        assert b"compressed" in trailers[b"grpc-message"]
    wait_until(lambda: daemon.metrics()[REFUSED] == 5, "all are counted")
    assert daemon.stderr().count("\n") == lines + 5, "a line of its own for each, as any call has"


def test_nothing_but_identity_is_offered(start_daemon):
    """On the wire: what the daemon would take is named in each answer's headers."""
    daemon = start_daemon()
    message = tokens_pb2.TokenizeRequest(text="The sea").SerializeToString()
    headers, trailers = call(daemon, None, struct.pack(">BI", 0, len(message)) + message)
    assert trailers[b"grpc-status"] == b"0"
    assert headers[b"grpc-accept-encoding"] == b"identity"
    assert headers.get(b"grpc-encoding", b"identity") == b"identity"


@pytest.mark.parametrize("encoding", ["gzip", "deflate", None, "no-such"])
def test_a_bomb_costs_nothing(start_daemon, encoding):
    """Without credentials, and 512 MiB once inflated."""
    daemon = start_daemon("--auth_tokens_file=/dev/null", "--log_level=error")
    wait_until(lambda: daemon.metrics()["sluice_tenants"] == 0, "it serves")
    before = daemon.rss_kib()
    headers, trailers = call(daemon, encoding, bomb())
    peak = proc_status(daemon.process.pid, "VmHWM")
    print(f"512 MiB as {encoding}: {trailers.get(b'grpc-status')} {trailers.get(b'grpc-message')}, "
          f"peak {(peak - before) / 1024:.1f} MiB above {before / 1024:.0f}")
    assert trailers[b"grpc-status"] != b"0"
    assert peak - before < 16 << 10
    assert daemon.metrics()[REFUSED] == (encoding is not None)


def test_a_bomb_in_a_small_container(memory_group, start_daemon):  # noqa: F811
    group = memory_group(512)
    daemon = start_daemon("--log_level=error", wrapper=group.wrapper)
    _, trailers = call(daemon, "gzip", bomb())
    assert trailers[b"grpc-status"] == str(grpc.StatusCode.UNIMPLEMENTED.value[0]).encode()
    assert group.kills() == 0
    assert_alive(daemon)
