"""Every metric moves: one test drives each series of /metrics above zero through real daemons.

A new metric needs a line in one of the scenarios below, or in seen.ONLY_A_GPU and tests/gpu/test_daemon.py."""

import concurrent.futures
import contextlib
import hashlib
import json
import os
import resource
import shutil
import socket
import struct
import time
import urllib.request

import grpc
import pytest
from google.protobuf import duration_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from certificates import Authority
from harness import EOS, MODEL, PATIENCE, ROOT, generate_pb2, model_pb2, request, rpc_error, score_pb2, wait_until
from seen import ALWAYS_ZERO, ONLY_A_GPU, Seen, declared, metric_of
from sessions import Sessions, key_file

Code = grpc.StatusCode
STATE = 589_824  # bytes of one state of the bundled model
ENDLESS = {"max_new_tokens": 1_000_000, "ignore_eos": True}
LONG = [300] * 100_000  # tokens that take seconds
SMALL_WINDOW = (("grpc.http2.lookahead_bytes", 65535), ("grpc.http2.bdp_probe", 0))


def slots(count):
    return f"--device_state_bytes={count * STATE + 1000}"


def open_call(daemon, prompt="The", stub=None, **fields):
    """An endless call that has begun."""
    timeout, metadata = fields.pop("timeout", PATIENCE), fields.pop("metadata", None)
    call = (stub or daemon.inference).Generate(request(prompt, **{"stop": ENDLESS, **fields}), metadata=metadata, timeout=timeout)
    assert next(call).WhichOneof("event") == "started"
    return call


def read_to_the_end(call):
    try:
        for _ in call:
            pass
    except grpc.RpcError as error:
        return error.code()
    return Code.OK


def cancel(daemon, *calls):
    for call in calls:
        call.cancel()
    daemon.wait_idle()


def every_method(start, seen, tmp_path):
    daemon = start(f"--state_key_file={key_file(tmp_path)}", "--http_listen=127.0.0.1:0")
    daemon.generate("The")
    daemon.score(text="The old man")
    daemon.detokenize(daemon.tokenize("The"))
    daemon.inference.GetModel(model_pb2.GetModelRequest(), timeout=PATIENCE)
    sessions = Sessions(daemon)
    sessions.create("a")
    sessions.say("a", "The", tokens=2)
    sessions.get("a")
    assert sessions.ids() == ["a"]
    sessions.update("a", labels={"k": "v"}, paths=["labels"])
    sessions.fork("a", "b")
    sessions.import_(sessions.export("a"), "c")
    sessions.delete("a")
    health = health_pb2_grpc.HealthStub(daemon.channel)
    health.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
    for path, body in (("models", None), ("completions", {"prompt": "The", "max_tokens": 2}),
                       ("chat/completions", {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2})):
        asked = urllib.request.Request(f"http://{daemon.http}/v1/{path}", headers={"Content-Type": "application/json"},
                                       data=json.dumps(body).encode() if body else None)
        assert urllib.request.urlopen(asked, timeout=PATIENCE).status == 200
    watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
    next(watch)
    watch.cancel()
    seen.until(daemon, "grpc_server_handled_total{grpc_code=CANCELLED,grpc_method=Watch,grpc_service=grpc.health.v1.Health}")


def every_end(start, seen, tmp_path):
    """Finish reasons, and bad UTF-8."""
    daemon = start()
    daemon.generate("The", stop={"max_new_tokens": 2})
    daemon.generate("The", sampling={"temperature": 0, "logit_bias": {EOS: 100.0}})
    daemon.generate("The", stop={"strings": ["e"], "max_new_tokens": 500})
    daemon.generate("The", sampling={"temperature": 0, "logit_bias": {300: 100.0}}, stop={"token_ids": [300]})
    daemon.generate("The", stop={**ENDLESS, "time_limit": duration_pb2.Duration(nanos=100_000_000)})
    raw = daemon.channel.unary_stream("/sluice.v1.InferenceService/Generate")
    assert read_to_the_end(raw(b"\x1a\x02\xff\xfe", timeout=PATIENCE)) != Code.OK
    compressed = daemon.channel.unary_stream("/sluice.v1.InferenceService/Generate")
    packed = compressed(request("The").SerializeToString(), compression=grpc.Compression.Gzip, timeout=PATIENCE)
    assert read_to_the_end(packed) == Code.UNIMPLEMENTED
    seen.until(daemon, "sluice_compressed_calls_refused_total", "sluice_protobuf_errors_total", "sluice_sequences_finished_total{reason=time_limit}")


def calls_that_never_come(start, seen, tmp_path):
    """Heads of more calls than a connection may begin, and no messages."""
    daemon = start("--max_streams_per_connection=2")
    fields = [(":method", "POST"), (":scheme", "http"), (":path", "/grpc.health.v1.Health/Check"), (":authority", "x"),
              ("content-type", "application/grpc"), ("te", "trailers")]
    block = b"".join(b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode() for name, value in fields)
    heads = b"".join(struct.pack(">IBB", len(block), 1, 4)[1:] + struct.pack(">I", stream) + block for stream in range(1, 41, 2))
    host, port = daemon.address.rsplit(":", 1)
    with socket.create_connection((host, int(port))) as peer:
        peer.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000") + heads)
        seen.until(daemon, "sluice_early_calls_refused_total")


def a_model_that_overflows(start, seen, tmp_path):
    model = shutil.copytree(MODEL, tmp_path / "model")
    weights = model / "model.safetensors"
    data = bytearray(weights.read_bytes())
    (header_bytes,) = struct.unpack("<Q", data[:8])
    begin, end = json.loads(data[8:8 + header_bytes])["model.norm.weight"]["data_offsets"]
    data[8 + header_bytes + begin:8 + header_bytes + end] = b"\x7f\x7f" * ((end - begin) // 2)  # 3.4e38 in bf16
    weights.chmod(0o600)
    weights.write_bytes(data)
    daemon = start("--model_name=classics-12m", model=model)
    assert daemon.generate("The").only.reason == "ERROR"
    seen.look(daemon)


def cancelled_and_late(start, seen, tmp_path):
    """In the queue, in the prompt, and between tokens."""
    daemon = start(slots(1))
    cancelled = "sluice_requests_cancelled_total{stage=%s}"
    late = "sluice_deadline_exceeded_total{stage=%s}"
    short = {**ENDLESS, "time_limit": duration_pb2.Duration(nanos=300_000_000)}
    holder = open_call(daemon)
    queued = open_call(daemon)
    seen.until(daemon, "sluice_requests_waiting", "sluice_queued_requests", "sluice_queued_tokens", "sluice_streams",
               "sluice_permits", "sluice_live_requests", "sluice_sequences_running",
               "sluice_state_slots{status=used,tier=device}", "sluice_state_bytes{tier=device}", "sluice_connections")
    queued.cancel()
    seen.until(daemon, cancelled % "queued")
    assert read_to_the_end(daemon.inference.Generate(request("The", stop=short))) == Code.DEADLINE_EXCEEDED
    seen.until(daemon, late % "queued")
    holder.cancel()
    seen.until(daemon, cancelled % "decode")
    prompt = open_call(daemon, LONG)
    wait_until(lambda: seen.look(daemon)["sluice_prompt_tokens_total"] > 1000, "it computes the prompt")
    prompt.cancel()
    seen.until(daemon, cancelled % "prefill")
    assert read_to_the_end(daemon.inference.Generate(request(LONG, stop=short))) == Code.DEADLINE_EXCEEDED
    seen.until(daemon, late % "prefill")

    def late_in_decode():
        assert read_to_the_end(open_call(daemon, timeout=0.5)) != Code.OK
        return seen.look(daemon)[late % "decode"]

    wait_until(late_in_decode, "a deadline that the daemon sees before the client's cancel")


def slow_readers(start, seen, tmp_path):
    """Paused, moved off the device for others, and cut off."""
    daemon = start(slots(2), "--write_stall=2s", "--ring_events=16")
    slow = [open_call(daemon, stub=daemon.stub(*SMALL_WINDOW), output={"logprobs": 20}) for _ in range(2)]
    seen.until(daemon, "sluice_sequences_paused", "sluice_stream_ring_bytes")
    daemon.generate("The")
    seen.until(daemon, "sluice_state_spills_total")
    seen.until(daemon, "sluice_streams_dropped_total{reason=slow_reader}")
    cancel(daemon, *slow)


def attention_pages(start, seen, tmp_path):
    """Pages in use, pages that the sequences of one call share, and pages of calls that were moved off the device."""
    pages = "sluice_attention_pages{status=%s}"
    most, prompt = 4096, [3] * 1000
    daemon = start("--tokenizer=none", "--model_name=classics-12m", f"--max_attention_tokens={most}",
                   f"--device_state_bytes={(most + 1024) * 512}", "--ring_events=16", "--prefix_cache_bytes=0",
                   model=ROOT / "tests/goldens/llama/rope_llama3")
    slow = open_call(daemon, prompt, stub=daemon.stub(*SMALL_WINDOW), output={"logprobs": 20}, n=2,
                     stop={"max_new_tokens": 600, "ignore_eos": True})
    seen.until(daemon, pages % "used", pages % "free", pages % "shared", "sluice_sequences_paused")
    daemon.generate([5] * 3500, stop={"max_new_tokens": 2})
    seen.until(daemon, pages % "spilled")
    cancel(daemon, slow)


def refused_calls(start, seen, tmp_path):
    refused = "sluice_admission_refused_total{reason=%s}"
    daemon = start(slots(1), "--max_streams=3", "--max_queued_requests=2", "--max_queued_tokens=500")
    holder = open_call(daemon)
    wait_until(lambda: daemon.slots()[0] == 1, "it has the slot")
    waiting = [open_call(daemon)]
    with rpc_error(Code.RESOURCE_EXHAUSTED):
        daemon.generate([300] * 600)
    seen.until(daemon, refused % "max_queued_tokens")
    waiting.append(open_call(daemon))
    with rpc_error(Code.RESOURCE_EXHAUSTED):
        daemon.generate("The")
    cancel(daemon, holder, *waiting)
    other = start("--max_streams=4", "--max_queued_requests=1", slots(1))
    holder = open_call(other)
    wait_until(lambda: other.slots()[0] == 1, "it has the slot")
    waiting = open_call(other)
    with rpc_error(Code.RESOURCE_EXHAUSTED):
        other.generate("The")
    seen.look(daemon)
    seen.until(other, refused % "max_queued_requests")
    cancel(other, holder, waiting)
    full = start("--memory_limit=1000000")
    holder = open_call(full)

    def refused_for_memory():
        call = full.inference.Generate(request("The", stop={"max_new_tokens": 1}), timeout=PATIENCE)
        read_to_the_end(call)
        return seen.look(full)[refused % "memory_limit"]

    wait_until(refused_for_memory, "a call is refused for memory")
    cancel(full, holder)


def connect(daemon):
    host, port = daemon.address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=10)


def shed_connections(start, seen, tmp_path):
    shed = "sluice_connections_shed_total{reason=%s}"
    for reason, flags in (("max_connections", ("--max_connections=2",)),
                          ("max_connections_per_peer", ("--max_connections_per_peer=2",)),
                          ("file_descriptors", ())):
        daemon = start(*flags)
        if reason == "file_descriptors":
            daemon.generate("The")
            used = len(os.listdir(f"/proc/{daemon.process.pid}/fd"))
            most = resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE)[1]
            resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (used + 3, most))
        if reason == "max_connections":  # those that have called are not closed to make room
            for _ in range(2):
                daemon.stub().GetModel(model_pb2.GetModelRequest(), timeout=PATIENCE)
        connections = [connect(daemon) for _ in range(12)]
        time.sleep(0.1)  # no descriptor is left for a scrape while they are open
        for connection in connections:
            connection.close()

        def counted():
            with contextlib.suppress(OSError):  # there may be no descriptor for a scrape yet
                return seen.look(daemon)[shed % reason] > 0

        wait_until(counted, f"connections shed for {reason}")


def http_ports(start, seen, tmp_path):
    daemon = start("--http_listen=127.0.0.1:0", "--max_connections=4")

    def open_with(data):
        host, port = daemon.http.split(":")
        peer = socket.create_connection((host, int(port)), timeout=10)
        peer.sendall(data)
        return peer

    def ask(data):
        with contextlib.closing(open_with(data)) as peer:
            while peer.recv(65536):
                pass

    refused = "sluice_http_refused_total{reason=%s}"
    for reason, fields in (("malformed", b"Host: localhost\r\n"), ("unknown_coding", b"Transfer-Encoding: x\r\n"),
                           ("too_large", b"a: b\r\n" * 200)):
        ask(b"POST / HTTP/1.1\r\nHost: localhost\r\n" + fields + b"\r\n")
        seen.until(daemon, refused % reason)
    host, port = daemon.admin.split(":")
    with contextlib.closing(socket.create_connection((host, int(port)), timeout=30)) as peer:
        peer.sendall(b"GET /healthz HTTP/1.1\r\n")
        assert b" 408 " in peer.recv(65536)
    seen.until(daemon, refused % "late", "sluice_http_requests_total")
    evicted = "sluice_http_connections_evicted_total{reason=%s}"
    for reason, data in (("no_call", b"GET"), ("idle", b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n")):
        with contextlib.ExitStack() as stack:
            for _ in range(12):
                peer = stack.enter_context(contextlib.closing(open_with(data)))
                if reason == "idle":
                    peer.recv(65536)
            seen.until(daemon, evicted % reason)


def evicted_connections(start, seen, tmp_path):
    daemon = start("--max_connections=2", "--max_unclaimed_bytes=1", "--max_message_bytes=65536")
    flood = connect(daemon)
    with contextlib.suppress(ConnectionError):
        flood.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\x06\4\0\0\0\0\0\0\4\0\0\xff\xff" * 20_000)
    seen.until(daemon, "sluice_connections_evicted_total{reason=unclaimed_bytes}")
    silent = [connect(daemon) for _ in range(4)]
    seen.until(daemon, "sluice_connections_evicted_total{reason=no_call}")
    for connection in (flood, *silent):
        connection.close()


def who_may_call(start, seen, tmp_path):
    tenants = tmp_path / "tenants"

    def write(text):
        fresh = tmp_path / "tenants.new"
        fresh.write_text(text)
        fresh.replace(tenants)

    def token(name):
        return (("authorization", f"Bearer {name}"),)

    table = "".join(f"tenant {name} {setting}\ntoken {name} sha256:{hashlib.sha256(name.encode()).hexdigest()}\n"
                    for name, setting in (("a", ""), ("b", "inter_token=0.01ms")))
    write(table)
    daemon = start(f"--auth_tokens_file={tenants}", "--auth_failures_per_minute=3")
    flood = [daemon.inference.Generate(request("The", stop=ENDLESS), metadata=token("a")) for _ in range(8)]
    light = daemon.inference.Generate(request("The", stop=ENDLESS), metadata=token("b"))
    seen.until(daemon, "sluice_held_rows_total", "sluice_tenants")
    for call in (light, *flood):
        call.cancel()
    revoked = open_call(daemon, metadata=token("a"))
    write(table.replace("tenant a", "tenant c").replace("token a", "token c"))
    seen.until(daemon, "sluice_auth_reloads_total{result=ok}", "sluice_auth_revoked_calls_total")
    assert read_to_the_end(revoked) == Code.UNAUTHENTICATED
    write("nonsense\n")
    seen.until(daemon, "sluice_auth_reloads_total{result=error}")
    for _ in range(5):
        assert read_to_the_end(daemon.inference.Generate(request("The"), metadata=token("wrong"))) != Code.OK
    seen.until(daemon, "sluice_auth_refused_total{reason=unauthenticated}",
               "sluice_auth_refused_total{reason=too_many_failures}")


def certificates_change(start, seen, tmp_path):
    authority = Authority(tmp_path / "authority")
    cert, key = authority.issue("server", "/CN=sluiced")
    daemon = start(f"--tls_cert={cert}", f"--tls_key={key}")
    seen.until(daemon, "sluice_tls_certificate_expiry_time_seconds")
    good = cert.read_bytes()
    cert.write_bytes(b"")
    seen.until(daemon, "sluice_tls_reloads_total{result=error}")
    cert.write_bytes(good)
    seen.until(daemon, "sluice_tls_reloads_total{result=ok}")


def sessions_come_and_go(start, seen, tmp_path):
    daemon = start()
    sessions = Sessions(daemon)
    sessions.create("a")
    call = open_call(daemon, session_id="a")
    seen.until(daemon, "sluice_sessions{status=busy}")
    with rpc_error(Code.ABORTED):
        sessions.say("a", "The", on_conflict=generate_pb2.CONFLICT_POLICY_FAIL)
    cancel(daemon, call)
    sessions.say("a", "The", tokens=1)
    seen.until(daemon, "sluice_sessions{status=idle}", "sluice_session_conflicts_total", "sluice_commits_total")
    sessions.create("short", ttl=duration_pb2.Duration(nanos=200_000_000))
    seen.until(daemon, "sluice_sessions_ended_total{reason=expired}")
    sessions.delete("a")
    seen.look(daemon)


def states_move(start, seen, tmp_path):
    """Between slots, host memory and files, for want of room."""
    daemon = start(f"--session_dir={tmp_path / 'moving'}", slots(2), f"--host_state_bytes={4 * STATE}",
                   f"--prefix_cache_bytes={2 * STATE}")
    sessions = Sessions(daemon)
    names = [f"s{i}" for i in range(10)]
    for name in names:
        sessions.create(name)
        sessions.say(name, "The", tokens=2, durable=True)
        seen.look(daemon)
    for name in names + names[-2:] * 2:
        sessions.say(name, " night", tokens=2, durable=True)
        seen.look(daemon)
    seen.until(daemon, *(f"sluice_states{{tier={tier}}}" for tier in ("device", "disk")),
               "sluice_state_restores_total{from=disk}", "sluice_state_read_seconds_count")
    prompts = [[5 + i] * 300 for i in range(8)]
    for prompt in prompts:
        daemon.generate(prompt, stop={"max_new_tokens": 1})
    seen.until(daemon, "sluice_prefix_cache_evictions_total")


def states_in_memory(start, seen, tmp_path):
    daemon = start(slots(2), f"--host_state_bytes={3 * STATE}", "--prefix_cache_bytes=0")
    sessions = Sessions(daemon)
    for name in ("a", "b", "c"):
        sessions.create(name)
        sessions.say(name, "The", tokens=1)
    for name in ("a", "b", "c") * 2 + ("c",):
        sessions.say(name, "The", tokens=1)
    sessions.create("d")
    with rpc_error(Code.RESOURCE_EXHAUSTED):
        sessions.say("d", "The", tokens=1)
    seen.until(daemon, "sluice_state_refusals_total", "sluice_state_restores_total{from=host}",
               "sluice_state_restores_total{from=device}", "sluice_state_load_seconds_count",
               "sluice_state_spill_seconds_count", "sluice_states{tier=host}",
               "sluice_state_evictions_total{tier=device}")


def a_disk_that_fails(start, seen, tmp_path):
    directory = tmp_path / "failing"
    first = Sessions(start(f"--session_dir={directory}"))
    first.create("bad")
    first.say("bad", "The", durable=True)
    assert first.daemon.stop() == 0
    (state,) = directory.glob("sessions/*/s-bad/*.state")
    state.chmod(0o600)
    state.write_bytes(b"x" * state.stat().st_size)
    second = Sessions(start(f"--session_dir={directory}"))
    with rpc_error(Code.DATA_LOSS):
        second.say("bad", " end")
    seen.until(second.daemon, "sluice_session_store_errors_total", "sluice_requests_failed_total",
               "sluice_session_files_quarantined_total")


def a_session_taken_away(start, seen, tmp_path):
    """Daemons that share a directory do not race; whoever moves a session's files by hand does."""
    directory = tmp_path / "moved"
    sessions = Sessions(start(f"--session_dir={directory}"))
    sessions.create("a")
    (session,) = directory.glob("sessions/*/s-a")
    session.rename(directory / "away")
    with rpc_error(Code.ABORTED):
        sessions.say("a", "The", durable=True)
    seen.until(sessions.daemon, "sluice_session_lost_races_total")


def prefixes(start, seen, tmp_path):
    daemon = start()
    prompt = [300] * 5_000
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: daemon.generate(prompt, stop={"max_new_tokens": 1}), range(2)))
    daemon.generate(prompt, stop={"max_new_tokens": 1})
    seen.until(daemon, "sluice_prefix_cache_waits_total", "sluice_prefix_cache_hits_total",
               "sluice_prefix_cache_calls_total{result=hit}", "sluice_prefix_cache_calls_total{result=miss}",
               "sluice_prefix_cache_entries", "sluice_prefix_cache_bytes")


SCENARIOS = (every_method, every_end, calls_that_never_come, a_model_that_overflows, cancelled_and_late, slow_readers,
             attention_pages, refused_calls, shed_connections, http_ports, evicted_connections, who_may_call, certificates_change,
             sessions_come_and_go, states_move, states_in_memory, a_disk_that_fails, a_session_taken_away, prefixes)


@pytest.mark.slow
def test_every_metric_moves(start_daemon, tmp_path):
    seen = Seen()
    for scenario in SCENARIOS:
        directory = tmp_path / scenario.__name__
        directory.mkdir()
        began = time.monotonic()
        scenario(start_daemon, seen, directory)
        print(f"{scenario.__name__}: {time.monotonic() - began:.1f} s")
    exported = {metric_of(series) for series in seen.most}
    assert exported == set(declared()), "the page and the table of declarations name the same metrics"
    still = {series for series in seen.still() if metric_of(series) not in ONLY_A_GPU | ALWAYS_ZERO}
    # Values of flags, of which some are zero by default.
    still = {series for series in still if metric_of(series) != "sluice_limit"}
    assert not still, f"never above zero: {sorted(still)}"
    assert all(seen.most[series] == 0 for series in seen.most if metric_of(series) in ALWAYS_ZERO)
    assert ONLY_A_GPU | ALWAYS_ZERO <= exported
