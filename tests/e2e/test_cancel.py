"""Clients that leave, in every way and at every moment: nothing of theirs stays behind."""

import random
import signal
import socket
import subprocess
import time

import grpc
import pytest

from harness import BIN, PATIENCE, SCALE, clean_environment, in_threads, proc_status, request, rpc_error, score_pb2, wait_until

ENDLESS = {"max_new_tokens": 1_000_000, "ignore_eos": True}


def test_a_thousand_cancels_at_random_moments(daemon):
    """Before admission, in the queue, in the prompt, between tokens, after the end."""
    threads, each = 10, round(100 * SCALE)
    stubs = [daemon.stub() for _ in range(threads)]

    def client(i):
        rng = random.Random(i)
        for _ in range(each):
            kind = rng.randrange(4)
            prompt = [1] + [300] * rng.choice((1, 20, 400))
            stop = ENDLESS if kind else {"max_new_tokens": rng.randint(1, 8)}
            call = stubs[i].Generate(request(prompt, n=rng.choice((1, 1, 1, 4)), stop=stop), timeout=PATIENCE)
            if kind == 1:  # at once, or some moment later
                time.sleep(rng.choice((0, 0, rng.uniform(0, 0.02))))
            elif kind >= 2:  # after some messages
                for _ in range(rng.randint(1, 6)):
                    if next(call, None) is None:
                        break
            call.cancel()
            call.cancel()  # twice is harmless

    in_threads(threads, client)
    daemon.wait_idle()
    assert daemon.generate("The").only.text


def test_killed_clients(daemon):
    """SIGKILL: the connection just ends."""
    for _ in range(round(10 * SCALE)):
        client = subprocess.Popen([str(BIN / "sluice"), f"--address={daemon.address}", "generate", "The sea",
                                   "--max_new_tokens=1000000", "--ignore_eos"],
                                  stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=clean_environment())
        assert client.stdout.read(1), "it streams"
        assert daemon.live()
        client.send_signal(signal.SIGKILL)
        client.wait()
        client.stdout.close()
        daemon.wait_idle()


def test_closed_connections(daemon):
    """Many streams of one connection end with it."""
    for _ in range(5):
        channel = daemon.new_channel()
        calls = [channel.unary_stream("/sluice.v1.InferenceService/Generate")(
            request("The", stop=ENDLESS).SerializeToString(), timeout=PATIENCE) for _ in range(20)]
        for call in calls:
            next(call)
        channel.close()
        daemon.wait_idle()


def test_cancel_of_a_score(daemon):
    for _ in range(5):
        call = daemon.inference.Score(score_pb2.ScoreRequest(tokens={"ids": [300] * 200_000}), timeout=PATIENCE)
        next(call)
        call.cancel()
        daemon.wait_idle()


def test_cancelled_call_says_so(daemon):
    call = daemon.inference.Generate(request("The", stop=ENDLESS), timeout=PATIENCE)
    next(call)
    call.cancel()
    with pytest.raises(grpc.RpcError):
        for _ in call:
            pass
    assert call.code() == grpc.StatusCode.CANCELLED


# A window that no one opens further: what the daemon may send is bounded, and the reader takes nothing.
SMALL_WINDOW = (("grpc.http2.lookahead_bytes", 65535), ("grpc.http2.bdp_probe", 0))


def slow_call(stub, n=8):
    call = stub.Generate(request("The", n=n, sampling={"seed": 1}, stop=ENDLESS, output={"logprobs": 20}),
                         timeout=PATIENCE)
    assert next(call).WhichOneof("event") == "started"
    return call


def test_slow_reader_delays_nobody(start_daemon):
    daemon = start_daemon("--write_stall=1h")
    alone = daemon.generate("The night", stop={"max_new_tokens": 200}).only.bits()
    slow = [slow_call(daemon.stub(*SMALL_WINDOW)) for _ in range(4)]
    wait_until(lambda: daemon.metrics()["sluice_sequences_paused"] > 0, "slow readers are paused")
    for _ in range(5):
        assert daemon.generate("The night", stop={"max_new_tokens": 200}, timeout=PATIENCE).only.bits() == alone
    # A reader that comes back gets everything, in order.
    awake = slow[0]
    numbers = [message.sequence_number for _, message in zip(range(200), awake)]
    assert numbers == list(range(1, 201))
    for call in slow:
        call.cancel()
    daemon.wait_idle()


def test_stalled_reader_is_cut_off(start_daemon):
    daemon = start_daemon("--write_stall=500ms")
    call = slow_call(daemon.stub(*SMALL_WINDOW))
    daemon.wait_idle()  # its slots and permit are free though it never read on
    with rpc_error(grpc.StatusCode.CANCELLED, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE):
        for _ in call:
            pass
    assert daemon.generate("The").only.text


def test_more_streams_than_allowed(start_daemon):
    daemon = start_daemon("--max_streams=4")
    calls = [daemon.inference.Generate(request("The", stop=ENDLESS), timeout=PATIENCE) for _ in range(4)]
    for call in calls:
        assert next(call).WhichOneof("event") == "started"
    with rpc_error(grpc.StatusCode.RESOURCE_EXHAUSTED) as caught:
        daemon.generate("The")
    assert "RetryInfo" in caught.details
    for call in calls:
        call.cancel()
    daemon.wait_idle()
    assert daemon.generate("The").only.text


def test_connection_churn(daemon):
    """Connections that say nothing, nonsense, or only hello."""
    host, port = daemon.address.rsplit(":", 1)
    rng = random.Random(3)

    def visit(i):
        for _ in range(20):
            with socket.create_connection((host, int(port)), timeout=PATIENCE) as connection:
                kind = (i + _) % 4
                if kind == 1:
                    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
                elif kind == 2:
                    connection.sendall(bytes(rng.randrange(256) for _ in range(200)))
                elif kind == 3:
                    connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")

    in_threads(10, visit)
    assert daemon.generate("The").only.text


def test_threads_do_not_grow(daemon):
    """The library's threads, ours, and no thread a call."""
    calls = [daemon.inference.Generate(request("The", stop=ENDLESS), timeout=PATIENCE) for _ in range(100)]
    for call in calls:
        next(call)
    assert proc_status(daemon.process.pid, "Threads") < 64
    for call in calls:
        call.cancel()
    daemon.wait_idle()
