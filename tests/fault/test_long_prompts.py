"""A short call beside streams of long prompts: what it waits for."""

import threading
import time

import grpc
import pytest

from harness import PATIENCE, in_threads, request, score_pb2
from load import assert_alive

STREAMS = 12
TOKENS = 60_000
SHORT = {"max_new_tokens": 4, "ignore_eos": True}


def score_stream(channel, ids):
    """Its answers are read and not looked at, so that the client takes little of the cores."""
    message = score_pb2.ScoreRequest(tokens={"ids": ids}).SerializeToString()
    return channel.unary_stream("/sluice.v1.InferenceService/Score")(message, timeout=PATIENCE)


def prompt_stream(channel, ids):
    message = request(ids, stop={"max_new_tokens": 1}, bypass_prefix_cache=True).SerializeToString()
    return channel.unary_stream("/sluice.v1.InferenceService/Generate")(message, timeout=PATIENCE)


def short_calls(daemon, seconds):
    """Seconds that short calls took, one after another."""
    stub, took, end = daemon.stub(), [], time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        for _ in stub.Generate(request("The old man", stop=SHORT, bypass_prefix_cache=True), timeout=PATIENCE):
            pass
        took.append(time.monotonic() - began)
        time.sleep(0.01)
    return sorted(took)


@pytest.mark.timed
@pytest.mark.parametrize("kind", [score_stream, prompt_stream])
def test_a_short_call_beside_long_prompts(start_daemon, kind):
    """Twelve streams of prompts of 60,000 tokens, one after another in each; short calls beside them (row 39)."""
    daemon = start_daemon("--log_level=error")
    alone = short_calls(daemon, 1)
    stop, done = threading.Event(), [0] * STREAMS
    calls = [None] * STREAMS

    def stream(i):
        channel, ids = daemon.new_channel(), [5 + i] * TOKENS
        while not stop.is_set():
            calls[i] = kind(channel, ids)
            try:
                for _ in calls[i]:
                    pass
            except grpc.RpcError as error:
                assert stop.is_set() and error.code() == grpc.StatusCode.CANCELLED, error
                return
            done[i] += 1

    threads = threading.Thread(target=in_threads, args=(STREAMS, stream), daemon=True)
    threads.start()
    time.sleep(1)
    begin, began = daemon.metrics(), time.monotonic()
    beside = short_calls(daemon, 20)
    end, took = daemon.metrics(), time.monotonic() - began
    stop.set()
    for call in calls:
        call.cancel()
    threads.join(PATIENCE)
    tokens = (end["sluice_prompt_tokens_total"] - begin["sluice_prompt_tokens_total"]) / took
    print(f"{kind.__name__}s: a short call took {alone[len(alone) // 2]:.3f} s alone, beside {STREAMS} of {TOKENS} tokens "
          f"{beside[len(beside) // 2]:.3f} s at the median, {beside[-1]:.3f} s at worst of {len(beside)}; "
          f"{tokens:.0f} prompt tokens a second beside them, {sum(done)} long prompts done")
    assert beside[-1] < 1
    assert_alive(daemon)
