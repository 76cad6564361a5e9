"""What an operator relies on: health, reflection, metrics, logs, draining, two daemons side by side."""

import json
import random
import signal
import subprocess
import threading
import time

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from harness import (BIN, LIVE_GAUGES, MODEL, PATIENCE, SCALE, Result, clean_environment, collect, request, rpc_error,
                     wait_until)

ENDLESS = {"max_new_tokens": 1_000_000, "ignore_eos": True}
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICES = ("", "sluice.v1.InferenceService")


def test_health_check(daemon):
    health = health_pb2_grpc.HealthStub(daemon.channel)
    for service in SERVICES:
        answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE)
        assert answer.status == SERVING
    with pytest.raises(grpc.RpcError) as error:
        health.Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=PATIENCE)
    assert error.value.code() == grpc.StatusCode.NOT_FOUND


def test_health_watch(daemon):
    health = health_pb2_grpc.HealthStub(daemon.channel)
    for service in SERVICES:
        watch = health.Watch(health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE)
        assert next(watch).status == SERVING
        watch.cancel()
    unknown = health.Watch(health_pb2.HealthCheckRequest(service="nobody"), timeout=PATIENCE)
    assert next(unknown).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    unknown.cancel()


def test_reflection(daemon):
    database = ProtoReflectionDescriptorDatabase(daemon.channel)
    services = set(database.get_services())
    assert {"sluice.v1.InferenceService", "sluice.v1.SessionService", "grpc.health.v1.Health"} <= services
    for service, file in (("sluice.v1.InferenceService", "sluice/v1/inference.proto"),
                          ("sluice.v1.SessionService", "sluice/v1/session.proto"),
                          ("grpc.health.v1.Health", None)):
        descriptor = database.FindFileContainingSymbol(service)
        assert file is None or descriptor.name == file
        assert descriptor.service
    inference = database.FindFileContainingSymbol("sluice.v1.InferenceService").service[0]
    assert [m.name for m in inference.method] == ["Generate", "Score", "Tokenize", "Detokenize", "GetModel"]
    assert database.FindFileByName("google/rpc/status.proto")
    assert "grpc.reflection.v1alpha.ServerReflection" in services
    assert database.FindFileContainingSymbol("sluice.v1.GenerateRequest").name == "sluice/v1/generate.proto"
    stub = reflection_pb2_grpc.ServerReflectionStub(daemon.channel)
    unknown = [{"file_by_filename": "no/such.proto"}, {"file_containing_symbol": "no.Such"},
               {"file_containing_extension": {"containing_type": "sluice.v1.GenerateRequest", "extension_number": 1}},
               {"file_containing_extension": {"containing_type": "no.Such", "extension_number": 1}},
               {"all_extension_numbers_of_type": "no.Such"}, {}]
    known = [{"all_extension_numbers_of_type": "sluice.v1.GenerateRequest"}]
    asked = [reflection_pb2.ServerReflectionRequest(**fields) for fields in unknown + known]
    answers = list(stub.ServerReflectionInfo(iter(asked), timeout=PATIENCE))
    codes = [answer.error_response.error_code for answer in answers]
    assert codes == [grpc.StatusCode.NOT_FOUND.value[0]] * 5 + [grpc.StatusCode.INVALID_ARGUMENT.value[0], 0]
    assert answers[-1].all_extension_numbers_response.base_type_name == "sluice.v1.GenerateRequest"
    assert [answer.original_request for answer in answers] == asked


def test_an_unknown_method_is_unimplemented(daemon):
    for method in ("/sluice.v1.InferenceService/Nothing", "/no.such.Service/Method"):
        with pytest.raises(grpc.RpcError) as error:
            daemon.channel.unary_unary(method)(b"", timeout=PATIENCE)
        assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_admin_endpoints(daemon):
    assert daemon.get("/healthz")[0] == 200
    assert daemon.get("/readyz")[0] == 200
    assert daemon.get("/nothing")[0] == 404


def test_admin_beyond_loopback_is_asked_for(start_daemon):
    with pytest.raises(AssertionError, match="--admin_listen=0.0.0.0:0 is plain HTTP"):
        start_daemon("--admin_listen=0.0.0.0:0")
    assert start_daemon("--admin_listen=0.0.0.0:0", "--allow_plaintext").get("/healthz")[0] == 200


def test_metrics_pass_promtool(daemon):
    daemon.generate("The")
    status, text = daemon.get("/metrics")
    assert status == 200
    check = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True)
    problems = [line for line in (check.stdout + check.stderr).splitlines() if not line.startswith("vllm:")]
    # The names behind "vllm:" are those that existing dashboards read; promtool dislikes some of them.
    assert not problems, problems


def test_metrics_count(daemon):
    daemon.wait_idle()
    before = daemon.metrics()
    result = daemon.generate("The old man", stop={"max_new_tokens": 10, "ignore_eos": True})
    after = daemon.metrics()

    def grew(name):
        return after[name] - before.get(name, 0)

    assert grew("sluice_generated_tokens_total") == 10
    assert grew("sluice_prompt_tokens_total") == result.started.prompt_tokens
    assert grew("vllm:generation_tokens_total" + label_of(after, "vllm:generation_tokens_total")) == 10
    assert grew("sluice_time_to_first_token_seconds_count") == 1
    assert grew("sluice_inter_token_seconds_count") == 9
    assert grew("sluice_decode_seconds_count") == grew("sluice_compute_seconds_count") == 1
    assert grew("sluice_request_prompt_tokens_sum") == result.started.prompt_tokens
    assert grew("sluice_request_max_new_tokens_sum") == grew("sluice_sequence_new_tokens_sum") == 10
    assert grew("sluice_request_sequences_sum") == 1
    assert grew("sluice_stream_write_stall_seconds_count") == grew("sluice_stream_writes_total") > 0
    generate = "{grpc_method=Generate,grpc_service=sluice.v1.InferenceService}"
    assert grew(f"grpc_server_handling_seconds_count{generate}") == 1
    assert after["sluice_orphan_rows_total"] == 0
    for name in LIVE_GAUGES:
        assert name in after


def label_of(samples, name):
    """The labels of the only sample of that name."""
    found = [sample[len(name):] for sample in samples if sample == name or sample.startswith(name + "{")]
    assert len(found) == 1, found
    return found[0]


def test_metrics_are_bounded(daemon):
    """No series is made of what a client sends."""
    daemon.generate("The", request_id="one")
    with rpc_error(grpc.StatusCode.NOT_FOUND):
        daemon.generate("The", model="other")
    series = set(daemon.metrics())
    for i in range(20):
        daemon.generate(f"Marker{i}", request_id=f"id-{i}", stop={"max_new_tokens": 1, "strings": [f"s{i}"]},
                        priority=i)
        with rpc_error(grpc.StatusCode.NOT_FOUND):
            daemon.generate("The", model=f"other{i}")
    new = set(daemon.metrics()) - series
    assert not new, new


def test_gauges_while_running(daemon):
    daemon.wait_idle()
    call = daemon.inference.Generate(request("The", n=3, stop=ENDLESS), timeout=PATIENCE)
    assert next(call).WhichOneof("event") == "started"
    wait_until(lambda: daemon.metrics()["sluice_sequences_running"] == 3, "three sequences run")
    samples = daemon.metrics()
    assert daemon.slots()[0] == 3
    assert samples["sluice_live_requests"] == samples["sluice_streams"] == samples["sluice_permits"] == 1
    call.cancel()
    daemon.wait_idle()


def test_logs_hold_no_text(start_daemon):
    """Neither prompts nor what was generated, in any format, level or error."""
    secret, stop_word = "Zanzibarsecret", "Quokkastop"
    for flags in (("--log_format=json", "--log_level=debug"), ("--log_format=text", "--log_level=debug")):
        daemon = start_daemon(*flags)
        result = daemon.generate(f"The {secret} captain", request_id="call-77", stop={"strings": [stop_word]})
        daemon.score(text=f"The {secret} captain")
        daemon.tokenize(secret)
        with rpc_error(grpc.StatusCode.INVALID_ARGUMENT):
            daemon.generate(secret, sampling={"temperature": -1.0}, stop={"strings": [stop_word]})
        with rpc_error(grpc.StatusCode.INVALID_ARGUMENT):
            daemon.generate(secret, request_id="bad\nid \x1b[31m")
        with rpc_error(grpc.StatusCode.NOT_FOUND):
            daemon.generate(secret, model="a\nforged line")
        assert daemon.stop() == 0
        log = daemon.stderr()
        assert "call-77" in log, "a call is logged by its id"
        for word in (secret, stop_word, result.only.text.strip()[:24], "\x1b"):
            assert word not in log
        assert not [line for line in log.splitlines() if line.startswith("forged") or line.startswith("id ")]
        if "json" in flags[0]:
            for line in log.splitlines():
                entry = json.loads(line)
                assert isinstance(entry, dict) and entry


def drained_without_loss(calls):
    """Reads calls to their end; what each ended with: "done", or the status's details."""
    ends = []
    for call, result in calls:
        try:
            collect(call, into=result)
            ends.append("done")
        except grpc.RpcError as error:
            ends.append(error)
    return ends


def is_from_daemon(error):
    """True if a status was sent by the daemon, and not made up by the client's own library."""
    made_up = ("socket", "connection", "goaway", "transport", "stream removed", "broken pipe", "rst_stream")
    return error.code() == grpc.StatusCode.UNAVAILABLE and not any(w in error.details().lower() for w in made_up)


@pytest.mark.parametrize("moment", [0, 1, 3] if SCALE == 1 else [1])
def test_sigterm_finishes_fifty_streams(start_daemon, moment):
    """Streams that run are read to their end; readiness goes first; new calls are refused with a status."""
    # The limit of a drain is another test's: under a sanitizer the streams take longer than the 30 s that it is by itself.
    daemon = start_daemon("--log_format=json", f"--drain_timeout={PATIENCE:.0f}s")
    stubs = [daemon.stub() for _ in range(5)]
    calls = []
    for i in range(50):
        call = stubs[i % 5].Generate(
            request(f"Chapter {i}.", sampling={"seed": i}, stop={"max_new_tokens": 150, "ignore_eos": True}),
            timeout=PATIENCE)
        calls.append((call, Result()))
    for call, result in calls:
        for _ in range(1 + moment):
            result.add(next(call))
    late = daemon.stub()
    watch = health_pb2_grpc.HealthStub(daemon.channel).Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
    assert next(watch).status == SERVING
    daemon.send(signal.SIGTERM)
    assert next(watch).status == NOT_SERVING
    watch.cancel()
    try:
        collect(late.Generate(request("late"), timeout=PATIENCE))
        raise AssertionError("a call after SIGTERM was served")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.UNAVAILABLE
    ends = drained_without_loss(calls)
    assert ends == ["done"] * 50, [str(e) for e in ends if e != "done"][:3]
    assert all(len(result.only.token_ids) == 150 for _, result in calls)
    assert daemon.wait() == 0, daemon.stderr()


def test_not_ready_while_draining(start_daemon):
    daemon = start_daemon()
    call = daemon.inference.Generate(request("The", stop=ENDLESS), timeout=PATIENCE)
    next(call)
    daemon.send(signal.SIGTERM)
    wait_until(lambda: daemon.get("/readyz")[0] == 503, "/readyz says 503")
    assert daemon.get("/healthz")[0] == 200, "it is alive"
    call.cancel()
    assert daemon.wait() == 0


def test_drain_timeout_ends_the_rest(start_daemon):
    daemon = start_daemon("--drain_timeout=300ms")
    calls = [(daemon.inference.Generate(request("The", stop=ENDLESS), timeout=PATIENCE), Result()) for _ in range(50)]
    for call, result in calls:
        result.add(next(call))
    daemon.send(signal.SIGTERM)
    ends = drained_without_loss(calls)
    assert all(end != "done" and is_from_daemon(end) for end in ends), ends[0]
    assert daemon.wait() == 0, daemon.stderr()


def test_second_sigterm_ends_at_once(start_daemon):
    daemon = start_daemon("--drain_timeout=1h")
    calls = [(daemon.inference.Generate(request("The", stop=ENDLESS), timeout=PATIENCE), Result()) for _ in range(20)]
    for call, result in calls:
        result.add(next(call))
    daemon.send(signal.SIGTERM)
    wait_until(lambda: daemon.get("/readyz")[0] == 503, "the first SIGTERM was seen")
    assert daemon.process.poll() is None
    daemon.send(signal.SIGTERM)
    ends = drained_without_loss(calls)
    assert all(end != "done" and is_from_daemon(end) for end in ends), ends[0]
    assert daemon.wait() == 0, daemon.stderr()


def test_open_watch_and_idle_connections_do_not_hold_up_the_end(start_daemon):
    daemon = start_daemon("--drain_timeout=1h")
    watch = health_pb2_grpc.HealthStub(daemon.channel).Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
    assert next(watch).status == SERVING
    daemon.generate("The")
    started = time.monotonic()
    daemon.send(signal.SIGINT)
    assert daemon.wait() == 0
    assert time.monotonic() - started < 30


def test_sigterm_right_after_it_serves(start_daemon):
    for _ in range(10):
        daemon = start_daemon()
        daemon.send(signal.SIGTERM)
        assert daemon.wait() == 0, daemon.stderr()


def test_sigterm_while_it_starts():
    """At any moment: drained, or ended by the signal before there was anything to drain."""
    command = [str(BIN / "sluiced"), f"--model={MODEL}", "--listen=127.0.0.1:0", "--admin_listen=127.0.0.1:0",
               "--http_listen="]
    rng = random.Random(1)
    for _ in range(20):
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE, env=clean_environment())
        time.sleep(rng.uniform(0, 0.15))
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=PATIENCE)
        assert process.returncode in (0, -signal.SIGTERM), log


def test_two_daemons(daemon, start_daemon):
    other = start_daemon()
    assert other.address != daemon.address
    results = {}

    def ask(name, server):
        results[name] = server.generate("The night", sampling={"seed": 5}, output={"logprobs": 2}).only.bits()

    threads = [threading.Thread(target=ask, args=pair) for pair in (("a", daemon), ("b", other))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results["a"] == results["b"]


def test_scrapes_under_load(daemon):
    """A scrape waits for no step, and a step for no scrape."""
    call = daemon.inference.Generate(request("The", n=16, stop=ENDLESS), timeout=PATIENCE)
    next(call)
    for _ in range(100):
        assert daemon.get("/metrics")[0] == 200
    call.cancel()
    daemon.wait_idle()
