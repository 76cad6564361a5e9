"""Who may call: tokens, tenants and their limits, TLS, client certificates, and what changes while the daemon runs."""

import hashlib
import os
import queue
import shutil
import socket
import statistics
import subprocess
import time
import urllib.error
import urllib.request

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

import harness
from certificates import Authority
from harness import (BIN, PATIENCE, inference_pb2_grpc, model_pb2, request, rpc_error, score_pb2,
                     tokens_pb2, wait_until)
from test_startup import refused

ENDLESS = {"max_new_tokens": 1_000_000, "ignore_eos": True}
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED


def digest(token):
    return "sha256:" + hashlib.sha256(token.encode()).hexdigest()


def bearer(token):
    return (("authorization", f"Bearer {token}"),)


def replace(path, text):
    """Does what a secret's mount does: the new file takes the old one's place at once."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text)
    os.replace(fresh, path)


def write_tenants(path):
    path.write_text(f"tenant small max_streams=2\ntoken small {digest('s-token')}\n"
                    f"tenant large weight=2\ntoken large {digest('l-token')}\n")
    return path


@pytest.fixture
def tenants(tmp_path):
    return write_tenants(tmp_path / "tenants")


@pytest.fixture(scope="module")
def unlimited(tmp_path_factory):
    """A daemon that may be told any number of wrong tokens."""
    tenants = write_tenants(tmp_path_factory.mktemp("access") / "tenants")
    daemon = harness.Daemon(f"--auth_tokens_file={tenants}", "--auth_failures_per_minute=0", "--http_listen=127.0.0.1:0")
    try:
        yield daemon
        assert daemon.stop() == 0, daemon.stderr()
    finally:
        daemon.kill()


def get_model(stub, metadata=None, timeout=PATIENCE):
    return stub.GetModel(model_pb2.GetModelRequest(), metadata=metadata, timeout=timeout)


def test_every_method_wants_a_token(start_daemon, tenants):
    daemon = start_daemon(f"--auth_tokens_file={tenants}")
    stub = daemon.inference
    calls = [
        lambda m: get_model(stub, m),
        lambda m: stub.Tokenize(tokens_pb2.TokenizeRequest(text="a"), metadata=m),
        lambda m: stub.Detokenize(tokens_pb2.DetokenizeRequest(token_ids=[5]), metadata=m),
        lambda m: list(stub.Generate(request("The", stop={"max_new_tokens": 1}), metadata=m)),
        lambda m: list(stub.Score(score_pb2.ScoreRequest(text="a story"), metadata=m)),
    ]
    for call in calls:
        with rpc_error(UNAUTHENTICATED) as caught:
            call(None)
        assert caught.details["ErrorInfo"].reason == "UNAUTHENTICATED"
        assert call(bearer("s-token"))
    # Probes come without one.
    assert daemon.get("/readyz")[0] == 200
    assert daemon.metrics()["sluice_tenants"] == 2
    assert "s-token" not in daemon.stderr()


@pytest.mark.parametrize("metadata", [
    (), bearer("S-TOKEN"), bearer("s-token "), bearer(" s-token"), bearer("s-toke"), bearer("s-token2"), bearer(""),
    bearer("x" * 4000), (("authorization", "Bearers-token"),), (("authorization", "s-token"),),
    (("authorization", "Basic cy10b2tlbg=="),), bearer("s-token") * 2, bearer("l-token") + bearer("s-token"),
    (("x-authorization", "Bearer s-token"),), bearer(digest("s-token")),
], ids=str)
def test_refused(unlimited, metadata):
    with rpc_error(UNAUTHENTICATED):
        get_model(unlimited.inference, metadata)
    assert get_model(unlimited.inference, bearer("s-token"))


def test_failures_of_an_address_are_limited(start_daemon, tenants):
    daemon = start_daemon(f"--auth_tokens_file={tenants}", "--auth_failures_per_minute=30")
    codes = []
    for i in range(100):
        with rpc_error(UNAUTHENTICATED, grpc.StatusCode.RESOURCE_EXHAUSTED) as caught:
            get_model(daemon.inference, bearer(f"guess {i}"))
        codes.append(caught.error.code())
        assert get_model(daemon.inference, bearer("s-token")), "a valid token works from the same address"
    assert 30 <= codes.count(UNAUTHENTICATED) <= 40
    assert caught.error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert caught.details["RetryInfo"].retry_delay.ToMilliseconds() > 0
    samples = daemon.metrics()
    assert samples["sluice_auth_refused_total{reason=too_many_failures}"] == codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED)


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "bEARER"])
def test_the_scheme_is_read_in_any_case(unlimited, scheme):
    assert get_model(unlimited.inference, (("authorization", f"{scheme} s-token"),))


@pytest.mark.parametrize("value, status", [("bearer s-token", 200), ("BEARER s-token", 200), ("Bearer s-token", 200),
                                           ("bearer S-token", 401), ("bearers-token", 401), ("Basic s-token", 401)])
def test_the_scheme_is_read_in_any_case_over_http(unlimited, value, status):
    asked = urllib.request.Request(f"http://{unlimited.http}/v1/models", headers={"Authorization": value})
    try:
        with urllib.request.urlopen(asked, timeout=PATIENCE) as answer:
            assert answer.status == status
    except urllib.error.HTTPError as error:
        assert error.code == status


def reflected(daemon, metadata):
    """The services that reflection lists."""
    stub = reflection_pb2_grpc.ServerReflectionStub(daemon.channel)
    question = reflection_pb2.ServerReflectionRequest(list_services="")
    answers = list(stub.ServerReflectionInfo(iter([question]), metadata=metadata, timeout=PATIENCE))
    return {service.name for service in answers[0].list_services_response.service}


def test_reflection_wants_a_token(unlimited, start_daemon, tenants):
    with rpc_error(UNAUTHENTICATED):
        reflected(unlimited, None)
    with rpc_error(UNAUTHENTICATED):
        reflected(unlimited, bearer("guess"))
    services = reflected(unlimited, bearer("s-token"))
    assert "sluice.v1.InferenceService" in services
    open_to_all = start_daemon(f"--auth_tokens_file={tenants}", "--open_reflection")
    assert reflected(open_to_all, None) == services
    with rpc_error(UNAUTHENTICATED):
        get_model(open_to_all.inference)


def test_reflection_holds_no_thread(start_daemon):
    """More streams at once than gRPC would have had threads for."""
    daemon = start_daemon()
    stub = reflection_pb2_grpc.ServerReflectionStub(daemon.channel)
    questions = [queue.Queue() for _ in range(100)]
    streams = [stub.ServerReflectionInfo(iter(ask.get, None), timeout=PATIENCE) for ask in questions]
    for ask in questions:
        ask.put(reflection_pb2.ServerReflectionRequest(list_services=""))
    assert all(next(stream).list_services_response.service for stream in streams)
    for ask in questions:
        ask.put(reflection_pb2.ServerReflectionRequest(file_by_filename="no/such.proto"))
    assert all(next(stream).error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0] for stream in streams)
    for ask in questions:
        ask.put(None)
    assert all(not list(stream) for stream in streams)


def probe(stub, token):
    try:
        return get_model(stub, bearer(token))
    except grpc.RpcError:
        return None


def test_a_guess_takes_as_long_whatever_it_is(start_daemon, tenants):
    """Through gRPC the noise is far above what a comparison takes: this finds only a gross difference."""
    daemon = start_daemon(f"--auth_tokens_file={tenants}", "--auth_failures_per_minute=0", "--log_level=warn")
    near, far = "s-tokeX", "X" * 7

    def one(token):
        started = time.perf_counter_ns()
        probe(daemon.inference, token)
        return time.perf_counter_ns() - started

    samples = [(one(near), one(far)) for _ in range(2000)]
    difference = statistics.median(n - f for n, f in samples)
    spread = statistics.median(abs((n - f) - difference) for n, f in samples)
    print(f"a guess near a token differs from one far off by {difference} ns (median of 2,000; noise {spread} ns)")
    assert abs(difference) < max(spread, 20_000)


def test_a_promised_time_between_tokens_holds_others_back(start_daemon, tmp_path):
    tenants = tmp_path / "tenants"
    tenants.write_text(f"tenant fast inter_token=1us\ntoken fast {digest('f-token')}\n"
                       f"tenant slow\ntoken slow {digest('s-token')}\n")
    daemon = start_daemon(f"--auth_tokens_file={tenants}")

    def tokens(stream):
        return [token for message in stream for token in message.delta.token_ids]

    def generate(token, seed, **stop):
        message = request("The sea", sampling={"temperature": 1, "seed": seed}, stop={"ignore_eos": True, **stop})
        return daemon.inference.Generate(message, metadata=bearer(token), timeout=PATIENCE)

    alone = tokens(generate("f-token", 1, max_new_tokens=400))
    slow = tokens(generate("s-token", 2, max_new_tokens=60))
    assert daemon.metrics()["sluice_held_rows_total"] == 0
    endless = [generate("s-token", seed, max_new_tokens=1_000_000) for seed in range(3, 7)]
    for stream in endless:
        next(stream)
    fast = generate("f-token", 1, max_new_tokens=400)
    beside = generate("s-token", 2, max_new_tokens=60)
    assert tokens(fast) == alone
    assert tokens(beside) == slow
    assert daemon.metrics()["sluice_held_rows_total"] > 400
    for stream in endless:
        stream.cancel()
    daemon.wait_idle()


def test_limits_of_a_tenant_are_its_own(start_daemon, tenants):
    daemon = start_daemon(f"--auth_tokens_file={tenants}")
    held = [daemon.inference.Generate(request("The", stop=ENDLESS), metadata=bearer("s-token")) for _ in range(2)]
    for call in held:
        next(call)
    with rpc_error(grpc.StatusCode.RESOURCE_EXHAUSTED) as caught:
        next(daemon.inference.Generate(request("The"), metadata=bearer("s-token")))
    assert "your streams are open, the limit is 2" in caught.error.details()
    assert 25 <= caught.details["RetryInfo"].retry_delay.ToMilliseconds() <= 7500
    trailer = dict(caught.error.trailing_metadata())
    assert int(trailer["grpc-retry-pushback-ms"]) == caught.details["RetryInfo"].retry_delay.ToMilliseconds()
    assert list(daemon.inference.Generate(request("The"), metadata=bearer("l-token")))
    for call in held:
        call.cancel()
    daemon.wait_idle()
    assert list(daemon.inference.Generate(request("The"), metadata=bearer("s-token")))


def test_tokens_are_read_again_when_they_change(start_daemon, tenants):
    daemon = start_daemon(f"--auth_tokens_file={tenants}", "--auth_failures_per_minute=0")
    running = daemon.inference.Generate(request("The", stop=ENDLESS), metadata=bearer("s-token"))
    next(running)
    replace(tenants, f"tenant small\ntoken small {digest('fresh')}\n")
    wait_until(lambda: probe(daemon.inference, "fresh"), "the new token counts")
    assert probe(daemon.inference, "s-token") is None
    replace(tenants, "token\n")
    wait_until(lambda: "auth_reload" in daemon.stderr() and "tenants:1:" in daemon.stderr(), "the log names the line")
    assert probe(daemon.inference, "fresh")
    next(running)  # goes on
    running.cancel()
    assert daemon.metrics()["sluice_auth_reloads_total{result=error}"] == 1


def test_command_line_client(start_daemon, tenants):
    daemon = start_daemon(f"--auth_tokens_file={tenants}")
    missing = harness.run_sluice(daemon, "model")
    assert missing.returncode == 1 and "UNAUTHENTICATED" in missing.stderr and "Bearer" in missing.stderr
    assert harness.run_sluice(daemon, "model", "--token=s-token").returncode == 0
    environment = {**harness.clean_environment(), "SLUICE_TOKEN": "l-token"}
    end = subprocess.run([str(BIN / "sluice"), f"--address={daemon.address}", "generate", "The", "--max-new-tokens=3"],
                         capture_output=True, text=True, env=environment, timeout=PATIENCE)
    assert end.returncode == 0, end.stderr


# ---- TLS ----

@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("pki") / "ours")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("pki") / "theirs", "another authority")


@pytest.fixture
def server_pair(authority, tmp_path):
    """Files that a test may replace."""
    cert, key = authority.issue("server", "/CN=sluiced")
    return shutil.copy(cert, tmp_path / "cert.pem"), shutil.copy(key, tmp_path / "key.pem")


def tls_stub(daemon, ca, client=None, host=None):
    pair = {}
    if client:
        pair = {"certificate_chain": client[0].read_bytes(), "private_key": client[1].read_bytes()}
    credentials = grpc.ssl_channel_credentials(root_certificates=ca.cert.read_bytes(), **pair)
    address = daemon.address.replace("127.0.0.1", host) if host else daemon.address
    channel = grpc.secure_channel(address, credentials, options=[("grpc.use_local_subchannel_pool", 1)])
    daemon._channels.append(channel)
    return inference_pb2_grpc.InferenceServiceStub(channel)


def assert_no_handshake(stub):
    with rpc_error(grpc.StatusCode.UNAVAILABLE):
        get_model(stub, timeout=5)


def test_tls(start_daemon, authority, stranger, server_pair):
    cert, key = server_pair
    daemon = start_daemon(f"--tls_cert={cert}", f"--tls_key={key}")
    assert get_model(tls_stub(daemon, authority)).name == "classics-12m"
    assert get_model(tls_stub(daemon, authority, host="localhost")).name == "classics-12m"
    assert_no_handshake(tls_stub(daemon, stranger))
    assert_no_handshake(daemon.inference)  # plain text to a TLS port
    assert daemon.metrics()["grpc_server_handled_total{grpc_code=OK,grpc_method=GetModel,"
                            "grpc_service=sluice.v1.InferenceService}"] == 2, "no other call was seen"
    flags = f"--tls-ca={authority.cert}"
    end = harness.run_sluice(daemon, "generate", "The", "--max-new-tokens=3", flags)
    assert end.returncode == 0, end.stderr
    assert harness.run_sluice(daemon, "model").returncode == 1
    end = harness.run_sluice(daemon, "model", "--tls-ca=/no/such/file")
    assert end.returncode == 2 and "/no/such/file: No such file" in end.stderr


def test_clients_show_certificates(start_daemon, authority, stranger, server_pair, tmp_path):
    cert, key = server_pair
    tenants = tmp_path / "tenants"
    good = authority.issue("good", "/O=Acme/CN=worker")
    other = authority.issue("other", "/CN=unknown")
    expired = authority.issue("expired", "/O=Acme/CN=worker", days=-1)
    forged = stranger.issue("forged", "/O=Acme/CN=worker")
    tenants.write_text(f"tenant acme\ncert acme CN=worker,O=Acme\ntenant t\ntoken t {digest('t-token')}\n")
    daemon = start_daemon(f"--tls_cert={cert}", f"--tls_key={key}", f"--tls_client_ca={authority.cert}",
                          f"--auth_tokens_file={tenants}")
    assert get_model(tls_stub(daemon, authority, good)).name == "classics-12m"
    with rpc_error(UNAUTHENTICATED):
        get_model(tls_stub(daemon, authority, other))
    assert get_model(tls_stub(daemon, authority, other), bearer("t-token")).name == "classics-12m"
    for client in (None, expired, forged):
        assert_no_handshake(tls_stub(daemon, authority, client))
    files = [f"--tls-ca={authority.cert}", f"--tls-cert={good[0]}", f"--tls-key={good[1]}"]
    assert harness.run_sluice(daemon, "model", *files).returncode == 0
    assert harness.run_sluice(daemon, "model", *files[:2]).returncode == 2


def test_a_certificate_is_a_tenant_without_a_file(start_daemon, authority, server_pair):
    cert, key = server_pair
    daemon = start_daemon(f"--tls_cert={cert}", f"--tls_key={key}", f"--tls_client_ca={authority.cert}")
    assert get_model(tls_stub(daemon, authority, authority.issue("a", "/CN=a"))).name == "classics-12m"
    assert_no_handshake(tls_stub(daemon, authority))


def served_certificate(daemon, ca):
    """The text of what a new connection is shown."""
    command = ["openssl", "s_client", "-connect", daemon.address, "-CAfile", str(ca.cert), "-alpn", "h2"]
    end = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                         timeout=PATIENCE)
    return end.stdout


def test_a_new_certificate_serves_without_a_restart(start_daemon, authority, server_pair):
    cert, key = server_pair
    daemon = start_daemon(f"--tls_cert={cert}", f"--tls_key={key}")
    stub = tls_stub(daemon, authority)
    running = stub.Generate(request("The", stop=ENDLESS), timeout=PATIENCE)
    next(running)
    assert "CN = sluiced" in served_certificate(daemon, authority)
    fresh = authority.issue("fresh", "/CN=fresh")
    shutil.copy(fresh[0], f"{cert}.new")
    shutil.copy(fresh[1], f"{key}.new")
    os.replace(f"{cert}.new", cert)
    os.replace(f"{key}.new", key)

    def replaced():
        assert get_model(tls_stub(daemon, authority)), "nobody is refused meanwhile"
        return "CN = fresh" in served_certificate(daemon, authority)

    before = daemon.metrics()
    wait_until(replaced, "new connections get the new one")
    next(running)  # goes on over its old connection
    running.cancel()
    assert get_model(tls_stub(daemon, authority))
    after = daemon.metrics()
    assert after["sluice_tls_reloads_total{result=ok}"] == 1 and after["sluice_tls_reloads_total{result=error}"] == 0
    expiry = "sluice_tls_certificate_expiry_time_seconds"
    assert 86400 < before[expiry] - time.time() <= 2 * 86400 + 60 and after[expiry] >= before[expiry]


def test_a_certificate_out_of_its_dates_is_no_good_set(start_daemon, authority, server_pair, tmp_path):
    cert, key = server_pair
    expired = authority.issue("old", "/CN=old", days=-1)
    said = refused(f"--model={harness.MODEL}", f"--tls_cert={expired[0]}", f"--tls_key={expired[1]}")
    assert f"--tls_cert={expired[0]}: the certificate expired at 20" in said
    daemon = start_daemon(f"--tls_cert={cert}", f"--tls_key={key}")
    shutil.copy(expired[0], cert)
    shutil.copy(expired[1], key)
    wait_until(lambda: "the certificate expired at 20" in daemon.stderr(), "the log names the reason")
    assert get_model(tls_stub(daemon, authority)), "the one before still serves"


def test_handshakes_given_up_halfway(start_daemon, authority, server_pair):
    cert, key = server_pair
    daemon = start_daemon(f"--tls_cert={cert}", f"--tls_key={key}")
    host, port = daemon.address.rsplit(":", 1)
    garbage = [b"", b"\x16\x03\x01", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64), b"PRI * HTTP/2.0\r\n\r\n",
               bytes(range(256)) * 8, b"GET / HTTP/1.1\r\n\r\n"]
    for i in range(200):
        with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
            connection.sendall(garbage[i % len(garbage)])
    assert get_model(tls_stub(daemon, authority))
    wait_until(lambda: daemon.metrics()["sluice_connections"] <= 1, "the others are gone")


def test_refuses_to_start(authority, stranger, tmp_path):
    model = f"--model={harness.MODEL}"
    cert, key = authority.issue("start", "/CN=start")
    other_key = stranger.issue("start", "/CN=start")[1]
    text = tmp_path / "text"
    text.write_text("not PEM")
    assert "together" in refused(model, f"--tls_cert={cert}")
    assert "--tls_client_ca needs" in refused(model, f"--tls_client_ca={cert}")
    assert f"--tls_cert={text}: " in refused(model, f"--tls_cert={text}", f"--tls_key={key}")
    assert f"--tls_key={other_key}: key values mismatch" in refused(model, f"--tls_cert={cert}", f"--tls_key={other_key}")
    assert f"--tls_key={tmp_path}/none: " in refused(model, f"--tls_cert={cert}", f"--tls_key={tmp_path}/none")
    assert f"--tls_client_ca={text}: " in refused(model, f"--tls_cert={cert}", f"--tls_key={key}",
                                                  f"--tls_client_ca={text}")
    text.write_text("")
    for bad in ((text, key), (cert, text)):
        assert f"={text}: the file is empty" in refused(model, f"--tls_cert={bad[0]}", f"--tls_key={bad[1]}")
    text.write_text("tenant a\ntoken a plain\n")
    assert f"--auth_tokens_file: {text}:2: token needs" in refused(model, f"--auth_tokens_file={text}")
    assert "No such file" in refused(model, "--auth_tokens_file=/no/such/file")


def test_plain_text_beyond_loopback_is_asked_for(start_daemon):
    said = refused(f"--model={harness.MODEL}", "--listen=0.0.0.0:0")
    assert "--allow_plaintext" in said and "--tls_cert" in said
    daemon = start_daemon("--listen=0.0.0.0:0", "--allow_plaintext")
    port = daemon.address.rsplit(":", 1)[1]
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        assert get_model(inference_pb2_grpc.InferenceServiceStub(channel)).name == "classics-12m"
