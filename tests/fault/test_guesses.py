"""Names of sessions that are not one's own (row 16), calls that are refused (row 5), handshakes (row 30)."""

import hashlib
import secrets
import socket
import ssl
import statistics
import time

import grpc
import pytest

from certificates import Authority
from harness import PATIENCE, SCALE, request, score_pb2, session_pb2
from load import assert_alive
from sessions import OPTIONS

Code = grpc.StatusCode


def bearer(token):
    return [("authorization", f"Bearer {token}")]


def get(daemon, id, token):
    """(nanoseconds, code, text) of a GetSession."""
    started = time.perf_counter_ns()
    try:
        daemon.sessions.GetSession(session_pb2.GetSessionRequest(id=id), metadata=bearer(token), timeout=PATIENCE)
        code, text = Code.OK, ""
    except grpc.RpcError as error:
        code, text = error.code(), error.details()
    return time.perf_counter_ns() - started, code, text


@pytest.mark.parametrize("stored", [False, True], ids=["in memory", "on disk"])
def test_sessions_of_others_are_not_there(start_daemon, tmp_path, stored):
    """Absent and somebody else's: the same code, the same text, the same time."""
    tenants = tmp_path / "tenants"
    tenants.write_text("".join(f"tenant {name}\ntoken {name} sha256:{hashlib.sha256(name.encode()).hexdigest()}\n" for name in ("a", "b")))
    flags = (f"--session_dir={tmp_path / 'sessions'}",) if stored else ()
    daemon = start_daemon(f"--auth_tokens_file={tenants}", "--log_level=error", *flags)
    mine = [daemon.sessions.CreateSession(session_pb2.CreateSessionRequest(options=OPTIONS()), metadata=bearer("a"),
                                          timeout=PATIENCE).id for _ in range(20)]
    assert all(len(id) == 32 and len(set(id)) > 4 for id in mine)
    times = {"absent": [], "foreign": []}
    for i in range(max(200, round(400 * SCALE))):
        guesses = [("absent", secrets.token_hex(16)), ("foreign", mine[i % len(mine)])]
        for kind, id in guesses[::1 if i % 2 else -1]:
            took, code, text = get(daemon, id, "b")
            times[kind].append(took)
            assert (code, text) == (Code.NOT_FOUND, f"there is no session '{id}'"), (kind, code, text)
    assert get(daemon, mine[0], "a")[1] == Code.OK
    medians = {kind: statistics.median(took) for kind, took in times.items()}
    difference = abs(medians["absent"] - medians["foreign"])
    noise = statistics.stdev(statistics.median(times["absent"][i::10]) for i in range(10))
    print(f"guesses: {len(times['absent'])} absent, as many foreign, 0 hits; {medians['absent'] / 1000:.0f} us, "
          f"they differ by {difference / 1000:.1f} us, noise {noise / 1000:.1f} us")
    assert difference < max(5 * noise, 0.1 * medians["absent"])


REJECTED = {
    "message": lambda stub: stub.Score(score_pb2.ScoreRequest(text="a" * 4_300_000), timeout=PATIENCE),
    "prompt": lambda stub: stub.Score(score_pb2.ScoreRequest(tokens={"ids": [5] * 1_048_577}), timeout=PATIENCE),
    "field": lambda stub: stub.Generate(request("The " * 50_000, sampling={"temperature": -1.0}), timeout=PATIENCE),
    "metadata": lambda stub: stub.Generate(request("The"), timeout=PATIENCE, metadata=[("x-large", "a" * 20_000)]),
}


@pytest.mark.parametrize("kind", REJECTED)
def test_what_a_rejected_call_costs(start_daemon, kind):
    # A connection on which nothing but too large messages come would be closed (test_floods.py).
    daemon = start_daemon("--log_level=error", "--max_unclaimed_bytes=0")
    assert_alive(daemon)
    stub = daemon.stub()

    def reject(count):
        for _ in range(count):
            with pytest.raises(grpc.RpcError) as error:
                list(REJECTED[kind](stub))
            # gRPC itself refuses large metadata, and closes the connection now and then.
            closed = kind == "metadata" and error.value.code() == Code.UNAVAILABLE
            assert closed or error.value.code() in (Code.RESOURCE_EXHAUSTED, Code.INVALID_ARGUMENT), error.value
        daemon.wait_idle()
        return daemon.rss_kib()

    # The first ones pay for buffers that the allocator keeps. A call of which anything stayed would cost its size.
    rounds = 10 if kind == "prompt" else 30
    before = reject(rounds // 2)
    after = reject(rounds)
    print(f"a rejected {kind}: {(after - before) / rounds:.1f} KiB a call")
    assert after - before < max(256 * rounds, 16 << 10)
    assert_alive(daemon)


def test_handshakes(start_daemon, tmp_path):
    authority = Authority(tmp_path / "ca")
    cert, key = authority.issue("server", "/CN=sluiced")
    daemon = start_daemon(f"--tls_cert={cert}", f"--tls_key={key}", "--log_level=error")
    context = ssl.create_default_context(cafile=str(authority.cert))
    context.set_alpn_protocols(["h2"])
    host, port = daemon.address.rsplit(":", 1)
    rounds = max(20, round(150 * SCALE))
    started = time.monotonic()
    for _ in range(rounds):
        with socket.create_connection((host, int(port)), timeout=PATIENCE) as raw:
            with context.wrap_socket(raw, server_hostname="localhost") as connection:
                assert connection.selected_alpn_protocol() == "h2"
                connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\4" + bytes(5))
                assert connection.recv(9)[3] == 4, "SETTINGS: the daemon has taken the connection"
    rate = rounds / (time.monotonic() - started)
    print(f"TLS: {rate:.0f} new connections a second, one client, one after another, with its half of the work")
    assert rate > 20
