"""Requests over HTTP that two readers could read in two ways, peers that drip or never end their headers, and more of
them than there is room for: on the OpenAI door and on the admin port, which are one server."""

import contextlib
import hashlib
import json
import re
import socket
import statistics
import threading
import time

import pytest

from harness import Daemon, PATIENCE, SCALE, in_threads, wait_until

# What follows each request below: where one is refused, nobody may answer this any more.
NEXT = b"GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
JSON = b"Content-Type: application/json\r\n"


def post(fields, body=b"", version=b"1.1", host=b"Host: localhost\r\n"):
    return b"POST /v1/completions HTTP/" + version + b"\r\n" + host + JSON + fields + b"\r\n" + body


def get(fields=b"Host: localhost\r\n", target=b"/v1/models", line=None):
    return (line or b"GET " + target + b" HTTP/1.1") + b"\r\n" + fields + b"\r\n"


CHUNKED = b"Transfer-Encoding: chunked\r\n"
ONE_CHUNK = b"2\r\n{}\r\n0\r\n\r\n"

# Name: (the bytes, the one status that answers them). The connection ends after it.
REFUSED = {
    "length and coding": (post(b"Content-Length: 41\r\n" + CHUNKED, b"0\r\n\r\n"), 400),
    "coding and length": (post(CHUNKED + b"Content-Length: 41\r\n", b"0\r\n\r\n"), 400),
    "two lengths": (post(b"Content-Length: 0\r\nContent-Length: 36\r\n"), 400),
    "two equal lengths": (post(b"Content-Length: 2\r\nContent-Length: 2\r\n", b"{}"), 400),
    "a list of lengths": (post(b"Content-Length: 2, 2\r\n", b"{}"), 400),
    "a space before the colon": (post(b"Content-Length : 36\r\n"), 400),
    "a tab before the colon": (post(b"Content-Length\t: 36\r\n"), 400),
    "a space before the coding's colon": (post(b"Transfer-Encoding : chunked\r\n", ONE_CHUNK), 400),
    "a negative length": (post(b"Content-Length: -1\r\n", b'{"prompt":"a"}'), 400),
    "a length with a sign": (post(b"Content-Length: +2\r\n", b"{}"), 400),
    "a hexadecimal length": (post(b"Content-Length: 0x2\r\n", b"{}"), 400),
    "no length behind its name": (post(b"Content-Length:\r\n", b"{}"), 400),
    "a length beyond 64 bits": (post(b"Content-Length: 18446744073709551618\r\n", b"{}"), 400),
    "a length with a point": (post(b"Content-Length: 2.0\r\n", b"{}"), 400),
    "1.0 with a coding": (post(CHUNKED + b"Connection: keep-alive\r\n", b"0\r\n\r\n", version=b"1.0"), 400),
    "an unknown coding": (post(b"Transfer-Encoding: xchunked\r\n", b"{}"), 501),
    "an unknown coding and a length": (post(b"Transfer-Encoding: xchunked\r\nContent-Length: 60\r\n"), 501),
    "a length and an unknown coding": (post(b"Content-Length: 60\r\nTransfer-Encoding: xchunked\r\n"), 501),
    "stacked codings": (post(b"Transfer-Encoding: gzip, chunked\r\n", ONE_CHUNK), 501),
    "chunked twice": (post(b"Transfer-Encoding: chunked, chunked\r\n", ONE_CHUNK), 501),
    "chunked, then another": (post(b"Transfer-Encoding: chunked, gzip\r\n", ONE_CHUNK), 501),
    "the coding identity": (post(b"Transfer-Encoding: identity\r\n", b"{}"), 501),
    "an empty coding": (post(b"Transfer-Encoding:\r\n", b"{}"), 501),
    "no Host": (get(b""), 400),
    "two Hosts": (get(b"Host: localhost\r\nHost: localhost\r\n"), 400),
    "a Host with a space": (get(b"Host: x y\r\n"), 400),
    "a Host with a path": (get(b"Host: x/y\r\n"), 400),
    "a folded line": (get(b"Host: localhost\r\nA: b\r\n c\r\n"), 400),
    "a folded line of spaces": (get(b"Host: localhost\r\nA:\r\n \r\n"), 400),
    "a first field that is folded": (get(b" Host: localhost\r\n"), 400),
    "a bare LF": (b"GET /v1/models HTTP/1.1\nHost: x\n\n", 400),
    "a bare LF in a field": (get(b"Host: localhost\r\nA: b\nContent-Length: 5\r\n"), 400),
    "a bare CR": (get(b"Host: localhost\r\nA: b\rContent-Length: 5\r\n"), 400),
    "a NUL in a field": (get(b"Host: localhost\r\nA: b\0c\r\n"), 400),
    "a NUL in a name": (get(b"Host: localhost\r\nA\0: b\r\n"), 400),
    "an escape in a field": (get(b"Host: localhost\r\nA: \x1b[31m\r\n"), 400),
    "a field without a colon": (get(b"Host: localhost\r\nnonsense\r\n"), 400),
    "a field without a name": (get(b"Host: localhost\r\n: b\r\n"), 400),
    "a name with a space": (get(b"Host: localhost\r\nA b: c\r\n"), 400),
    "a bad method": (get(line=b"G(T /v1/models HTTP/1.1"), 400),
    "no method": (get(line=b" /v1/models HTTP/1.1"), 400),
    "a target with a space": (get(target=b"/v1/ models"), 400),
    "a target that is no path": (get(target=b"v1/models"), 400),
    "a target beyond ASCII": (get(target=b"/v1/\xc3\xa4"), 400),
    "a broken percent": (get(target=b"/v1/models/%0"), 400),
    "no version": (get(line=b"GET /v1/models"), 400),
    "a version in lower case": (get(line=b"GET /v1/models http/1.1"), 400),
    "HTTP/2's greeting": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "TLS's greeting": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "an Expect that cannot be met": (post(b"Content-Length: 2\r\nExpect: wonders\r\n", b"{}"), 417),
    "a head that is too large": (get(b"Host: localhost\r\nA: " + b"a" * 10_000 + b"\r\n"), 431),
    "a target that is too large": (get(target=b"/" + b"a" * 10_000), 431),
    "too many fields": (get(b"Host: localhost\r\n" + b"a:b\r\n" * 200), 431),
    "fields without end": (b"GET /v1/models HTTP/1.1\r\n" + b"a: b\r\n" * 200_000, 431),
}

# The same, seen once the head has been taken: what refuses a request by its head (the admin port takes no POST) may say so
# instead.
REFUSED_IN_BODY = {
    "a chunk's size that is none": (post(CHUNKED, b"xyz\r\n{}\r\n0\r\n\r\n"), 400),
    "a negative chunk": (post(CHUNKED, b"-2\r\n{}\r\n0\r\n\r\n"), 400),
    "a chunk's size with 0x": (post(CHUNKED, b"0x2\r\n{}\r\n0\r\n\r\n"), 400),
    "a chunk's size behind a space": (post(CHUNKED, b" 2\r\n{}\r\n0\r\n\r\n"), 400),
    "a chunk beyond 64 bits": (post(CHUNKED, b"10000000000000002\r\n{}\r\n0\r\n\r\n"), 400),
    "a chunk's line with a bare LF": (post(CHUNKED, b"2\n{}\r\n0\r\n\r\n"), 400),
    "a chunk longer than its size": (post(CHUNKED, b"2\r\n{}}\r\n0\r\n\r\n"), 400),
    "a chunk that ends with a bare LF": (post(CHUNKED, b"2\r\n{}\n0\r\n\r\n"), 400),
    "a chunk extension of a megabyte": (post(CHUNKED, b"2;" + b"x" * 1_000_000 + b"\r\n{}\r\n0\r\n\r\n"), 400),
    "a megabyte of chunk extensions": (post(CHUNKED, (b"1;" + b"x" * 1000 + b"\r\n \r\n") * 1000), 400),
    "a trailer that is no field": (post(CHUNKED, b"2\r\n{}\r\n0\r\nnonsense\r\n\r\n"), 400),
    "a trailer of a megabyte": (post(CHUNKED, b"2\r\n{}\r\n0\r\n" + b"a: b\r\n" * 200_000), 400),
}

# Name: (the bytes, the door's statuses, the admin port's). The connection goes on.
TAKEN = {
    "a plain request": (get(), [200], [404]),
    "two of them": (get() + get(), [200, 200], [404, 404]),
    "an empty line before": (b"\r\n" + get(), [200], [404]),
    "a body with a length": (post(b"Content-Length: 2\r\n", b"{}"), [400], [404]),
    "a body in chunks": (post(CHUNKED, ONE_CHUNK), [400], [404]),
    "chunks of one byte": (post(CHUNKED, b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n"), [400], [404]),
    "a short extension and a trailer": (post(CHUNKED, b"2;a=\"b c\"\r\n{}\r\n0\r\nt: x\r\n\r\n"), [400], [404]),
    "a coding in capitals": (post(b"transfer-encoding: CHUNKED\r\n", ONE_CHUNK), [400], [404]),
    "a length with zeros before": (post(b"Content-Length: 0002\r\n", b"{}"), [400], [404]),
    "an empty Host": (get(b"Host:\r\n"), [200], [404]),
    "an absolute target": (get(target=b"http://localhost/v1/models"), [200], [404]),
    "a query": (get(target=b"/v1/models?a=b"), [200], [404]),
    "a path in percents": (get(target=b"/v1/m%6fdels"), [200], [404]),
    "a NUL in percents": (get(target=b"/v1/models/%00x"), [404], [404]),
    "a GET with a body": (get(b"Host: localhost\r\nContent-Length: 3\r\n") + b"abc", [200], [404]),
    "1.0 that stays": (b"GET /v1/models HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", [200], [404]),
    "an unknown method": (get(line=b"BREW /v1/models HTTP/1.1"), [405], [404]),
    "a body that nobody wants": (post(b"Content-Length: 60000\r\nContent-Encoding: br\r\n", b"a" * 60000), [415], [404]),
}


@pytest.fixture(scope="module")
def daemon():
    daemon = Daemon("--http_listen=127.0.0.1:0", "--log_level=error")
    try:
        yield daemon
        daemon.wait_idle()
        assert daemon.stop() == 0, daemon.stderr()
    finally:
        daemon.kill()


def connect(address, **options):
    host, port = address.split(":")
    peer = socket.create_connection((host, int(port)), timeout=PATIENCE, **options)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return peer


def answers(address, data):
    """All that comes until the server ends the connection, which it must."""
    with contextlib.closing(connect(address)) as peer:
        with contextlib.suppress(ConnectionError):  # it may have been ended before all was sent
            peer.sendall(data)
        got = b""
        while True:
            piece = peer.recv(65536)
            if not piece:
                return got
            got += piece


def statuses(got):
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", got)]


PORTS = {"door": b"/v1/models", "admin": b"/healthz"}


def address_of(daemon, port):
    return daemon.http if port == "door" else daemon.admin


@pytest.mark.parametrize("port", PORTS)
def test_one_answer_and_the_end(daemon, port):
    assert len(REFUSED) >= 40
    for name, (data, status) in (REFUSED | REFUSED_IN_BODY).items():
        if port == "admin" and name in REFUSED_IN_BODY:
            status = 404
        got = answers(address_of(daemon, port), data + NEXT % PORTS[port])
        assert statuses(got) == [status], f"{name}: {got[:200]}"
        head, _, body = got.partition(b"\r\n\r\n")
        assert b"\r\nConnection: close" in head, name
        if port == "door":
            assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}, name
    print(f"{port}: {len(REFUSED | REFUSED_IN_BODY)} framings, each answered once and its connection ended")


@pytest.mark.parametrize("port", PORTS)
def test_what_is_right_goes_on(daemon, port):
    for name, (data, door, admin) in TAKEN.items():
        got = answers(address_of(daemon, port), data + NEXT % PORTS[port])
        assert statuses(got) == (door if port == "door" else admin) + [200], f"{name}: {got[:200]}"


@pytest.mark.parametrize("port", PORTS)
def test_cut_anywhere(daemon, port):
    """The same answers, however the bytes come."""
    rows = {"length and coding": REFUSED, "a bare CR": REFUSED}
    if port == "door":
        rows["a chunk longer than its size"] = REFUSED_IN_BODY
    for name, table in rows.items():
        data, status = table[name]
        for cut in range(1, len(data), 3):
            with contextlib.closing(connect(address_of(daemon, port))) as peer:
                with contextlib.suppress(ConnectionError):
                    peer.sendall(data[:cut])
                    peer.sendall(data[cut:] + NEXT % PORTS[port])
                got = b"".join(iter(lambda: peer.recv(65536), b""))
            assert statuses(got) == [status], (name, cut)


# ---- Peers that drip, and more of them than there is room for ----


def drip(peers, stop):
    """A byte of a header a second on each, as long as the server takes it."""
    while not stop.wait(1):
        for peer in peers:
            with contextlib.suppress(OSError):
                peer.sendall(b"a")


@contextlib.contextmanager
def dripping(address, count):
    peers, stop = [], threading.Event()
    thread = threading.Thread(target=drip, args=(peers, stop))
    try:
        for _ in range(count):
            peer = connect(address)
            peer.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ")
            peers.append(peer)
        thread.start()
        yield peers
    finally:
        stop.set()
        if thread.ident is not None:
            thread.join()
        for peer in peers:
            peer.close()


def probe_times(daemon, count):
    times = []
    for _ in range(count):
        started = time.monotonic()
        assert statuses(answers(daemon.admin, NEXT % b"/healthz")) == [200]
        times.append(time.monotonic() - started)
    return times


@pytest.mark.parametrize("count", [16, 200])
def test_probes_beside_dripping_peers(start_daemon, count):
    daemon = start_daemon("--log_level=error")
    with dripping(daemon.admin, count):
        times = probe_times(daemon, 20)
        assert daemon.get("/metrics")[0] == 200
        assert daemon.get("/readyz")[0] == 200
    print(f"/healthz beside {count} peers of a byte a second: median {statistics.median(times) * 1000:.1f} ms, "
          f"worst {max(times) * 1000:.1f} ms")
    assert statistics.median(times) < 0.1 / SCALE


def test_probes_beside_scrapes(start_daemon):
    daemon = start_daemon("--log_level=error")
    stop = threading.Event()

    def scrape(_):
        while not stop.is_set():
            got = statuses(answers(daemon.admin, NEXT % b"/metrics"))
            assert got in ([200], [503]), got

    threads = [threading.Thread(target=scrape, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    try:
        times = probe_times(daemon, 20)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    print(f"/healthz beside 4 scrapers without a pause: median {statistics.median(times) * 1000:.1f} ms, "
          f"worst {max(times) * 1000:.1f} ms")
    assert statistics.median(times) < 0.1 / SCALE


def test_probes_beside_scrapers_that_do_not_read(start_daemon):
    daemon = start_daemon("--log_level=error")
    host, port = daemon.admin.split(":")
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            peer = stack.enter_context(contextlib.closing(socket.socket()))
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            peer.connect((host, int(port)))
            with contextlib.suppress(ConnectionError):
                peer.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20)
                peer.recv(1)  # so that it holds its place with an answer which it does not take
        times = probe_times(daemon, 20)
    print(f"/healthz beside 100 scrapers that read nothing: median {statistics.median(times) * 1000:.1f} ms, "
          f"worst {max(times) * 1000:.1f} ms")
    assert statistics.median(times) < 0.1 / SCALE


@pytest.mark.parametrize("port", PORTS)
def test_headers_without_end(start_daemon, port):
    daemon = start_daemon("--http_listen=127.0.0.1:0", "--log_level=error")
    answers(address_of(daemon, port), NEXT % PORTS[port])
    before, sent = daemon.rss_kib(), 0
    for _ in range(20):
        with contextlib.closing(connect(address_of(daemon, port))) as peer:
            peer.sendall(b"GET /healthz HTTP/1.1\r\n")
            with pytest.raises(ConnectionError):
                for _ in range(25_000):
                    sent += peer.send(b"X: " + b"b" * 4000 + b"\r\n")
    grown = daemon.rss_kib() - before
    print(f"{port}: headers without end: ended after {sent / 20e6:.2f} MB on average, most of it in the kernel's buffers, "
          f"{grown / 1024:.1f} MiB more resident")
    assert grown < 8 * 1024
    assert sent / 20 < 20_000_000


def test_a_head_has_its_time(start_daemon):
    """In all, not from one byte to the next."""
    daemon = start_daemon("--log_level=error")
    started = time.monotonic()
    with dripping(daemon.admin, 1) as (peer,):
        got = b"".join(iter(lambda: peer.recv(65536), b""))
    seconds = time.monotonic() - started
    print(f"a head of a byte a second: ended after {seconds:.1f} s")
    assert statuses(got) == [408]
    assert 4 < seconds < 30


def test_strangers_do_not_shut_callers_out(start_daemon, tmp_path):
    """Peers that show no token, three times as many as there are places, beside callers who do."""
    digest = hashlib.sha256(b"s-token").hexdigest()
    (tmp_path / "tenants").write_text(f"tenant a\ntoken a sha256:{digest}\n")
    daemon = start_daemon("--http_listen=127.0.0.1:0", "--max_connections=64", f"--auth_tokens_file={tmp_path / 'tenants'}",
                          "--auth_failures_per_minute=0", "--log_level=error")
    token = b"Authorization: Bearer s-token\r\n"
    body = b'{"prompt":"a","max_tokens":100000,"ignore_eos":true,"stream":true}'
    with contextlib.ExitStack() as stack:
        kept = [stack.enter_context(contextlib.closing(connect(daemon.http))) for _ in range(10)]
        for peer in kept:
            peer.sendall(get(b"Host: localhost\r\n" + token))
            assert peer.recv(65536).startswith(b"HTTP/1.1 200 ")
        stream = stack.enter_context(contextlib.closing(connect(daemon.http)))
        stream.sendall(post(token + b"Content-Length: %d\r\n" % len(body), body))
        assert stream.recv(65536).startswith(b"HTTP/1.1 200 ")
        stack.enter_context(dripping(daemon.http, 100))
        for i in range(100):  # and such as ask, but may not
            peer = stack.enter_context(contextlib.closing(connect(daemon.http)))
            peer.sendall(get())
            if i % 10 == 0:
                assert statuses(answers(daemon.http, NEXT.replace(b"Host", token + b"Host") % b"/v1/models")) == [200]
        for peer in kept:
            peer.sendall(get(b"Host: localhost\r\n" + token))
            assert peer.recv(65536).startswith(b"HTTP/1.1 200 "), "kept through all of it"
        assert stream.recv(65536), "the stream goes on"
        samples = daemon.metrics()
        evicted = samples["sluice_http_connections_evicted_total{reason=no_call}"]
        shed = samples["sluice_connections_shed_total{reason=max_connections}"]
        print(f"200 strangers on 64 places: {evicted:.0f} made room, {shed:.0f} shed, every caller served")
        assert evicted > 100
    daemon.wait_idle()


def test_idle_callers_make_room_too(start_daemon):
    """Without authentication anybody can finish a call: who waits then is closed once all places are taken."""
    daemon = start_daemon("--http_listen=127.0.0.1:0", "--max_connections=16", "--log_level=error")
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            peer = stack.enter_context(contextlib.closing(connect(daemon.http)))
            peer.sendall(get())
            assert peer.recv(65536).startswith(b"HTTP/1.1 200 ")
        assert daemon.metrics()["sluice_http_connections_evicted_total{reason=idle}"] >= 80


def test_refusals_are_counted(start_daemon):
    daemon = start_daemon("--http_listen=127.0.0.1:0", "--log_level=error")
    for name in ("two lengths", "an unknown coding", "too many fields"):
        answers(daemon.http, REFUSED[name][0])
    samples = daemon.metrics()
    refused = {reason: samples[f"sluice_http_refused_total{{reason={reason}}}"]
               for reason in ("malformed", "unknown_coding", "too_large", "late")}
    assert refused == {"malformed": 1, "unknown_coding": 1, "too_large": 1, "late": 0}


def test_large_and_many_at_once(daemon):
    """Refused uploads of many at a time cost no memory that stays."""
    data = post(b"Content-Length: 50000000\r\n", b"a" * 5_000_000)
    before = daemon.rss_kib()
    in_threads(8, lambda i: [statuses(answers(daemon.http, data)) for _ in range(max(1, round(4 * SCALE)))])
    wait_until(lambda: daemon.rss_kib() - before < 64 * 1024, "memory comes back")
