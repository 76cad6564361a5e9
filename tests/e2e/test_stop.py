"""Every field of StopConditions, deadlines and time limits."""

import grpc
from google.protobuf import duration_pb2

from harness import GOLDENS, PATIENCE, collect, request, rpc_error, wait_until

PROMPT = GOLDENS["cases"][1]["text"]  # "It was a dark and stormy night; the"
STORY = GOLDENS["cases"][1]["greedy_text"]  # "wind was blowing, and the wind was blowing. The wind ..."


def greedy(daemon, **stop):
    return daemon.generate(PROMPT, stop={"max_new_tokens": 40, "ignore_eos": True, **stop})


def test_max_new_tokens(daemon):
    for count in (1, 2, 17):
        result = greedy(daemon, max_new_tokens=count)
        assert len(result.only.token_ids) == count and result.only.reason == "MAX_TOKENS"


def test_default_max_new_tokens(daemon):
    call = request(PROMPT)
    call.stop.ClearField("max_new_tokens")
    call.stop.ignore_eos = True
    result = collect(daemon.inference.Generate(call, timeout=PATIENCE))
    assert len(result.only.token_ids) == 256


def test_stop_string(daemon):
    whole = greedy(daemon).only.text
    result = greedy(daemon, strings=["never said", "blowing."])
    assert result.only.reason == "STOP_STRING"
    assert result.only.finished.matched_stop == "blowing."
    assert result.only.text == whole[:whole.index("blowing.")]


def test_stop_string_across_tokens_never_leaks(daemon):
    whole = greedy(daemon).only.text
    for stop in ("owing, and the wi", "g.", ", a", "wind was blowing. T"):
        call = daemon.inference.Generate(request(PROMPT, stop={"max_new_tokens": 40, "ignore_eos": True,
                                                               "strings": [stop]}), timeout=PATIENCE)
        before = whole[:whole.index(stop)]
        text = ""
        for message in call:
            text += message.delta.text
            assert before.startswith(text), "text that belongs to the stop string was sent"
        assert text == before


def test_partial_stop_is_sent_when_it_does_not_complete(daemon):
    whole = greedy(daemon).only.text
    assert greedy(daemon, strings=["blowing, and the wolf"]).only.text == whole


def test_first_of_several_stops_wins(daemon):
    whole = greedy(daemon).only.text
    result = greedy(daemon, strings=["The wind", "and the", "was"])
    assert result.only.finished.matched_stop == "was"
    assert result.only.text == whole[:whole.index("was")]


def test_include_stop(daemon):
    whole = greedy(daemon).only.text
    result = greedy(daemon, strings=["blowing."], include_stop=True)
    assert result.only.text == whole[:whole.index("blowing.") + len("blowing.")]
    assert result.only.reason == "STOP_STRING"


def test_stop_token(daemon):
    ids = greedy(daemon).only.token_ids
    stop = ids[3]
    at = ids.index(stop)
    result = greedy(daemon, token_ids=[stop])
    assert result.only.reason == "STOP_TOKEN"
    assert result.only.token_ids == ids[:at + 1], "the token that ended it is in the ids"
    assert result.only.finished.matched_stop
    assert result.only.finished.usage.new_tokens == at + 1
    excluded, included = result.only.text, greedy(daemon, token_ids=[stop], include_stop=True).only.text
    assert included.startswith(excluded) and len(included) > len(excluded)


def test_min_new_tokens(daemon):
    biased = {"temperature": 0, "logit_bias": {2: 100.0}}
    result = daemon.generate(PROMPT, sampling=biased, stop={"min_new_tokens": 5})
    assert result.only.reason == "EOS" and len(result.only.token_ids) == 6
    assert 2 not in result.only.token_ids[:5]

    ids = greedy(daemon).only.token_ids
    late = greedy(daemon, token_ids=[ids[0]], min_new_tokens=3)
    assert ids[0] not in late.only.token_ids[:3]

    whole = greedy(daemon).only.text
    text = greedy(daemon, strings=["wind"], min_new_tokens=8).only.text
    assert whole.startswith(text) and text.count("wind") >= 1


def test_stop_strings_work_without_text(daemon):
    result = daemon.generate(PROMPT, stop={"strings": ["blowing"]}, output={"text": False})
    assert result.only.reason == "STOP_STRING" and result.only.text == ""


def test_time_limit_ends_normally(daemon):
    result = daemon.generate(PROMPT, stop={"max_new_tokens": 1000000, "ignore_eos": True,
                                           "time_limit": duration_pb2.Duration(nanos=300_000_000)})
    assert result.only.reason == "TIME_LIMIT"
    assert len(result.only.token_ids) == result.only.finished.usage.new_tokens > 0
    daemon.wait_idle()


def test_time_limit_before_the_prompt_is_done(daemon):
    with rpc_error(grpc.StatusCode.DEADLINE_EXCEEDED):
        daemon.generate([300] * 100_000, stop={"time_limit": duration_pb2.Duration(nanos=1_000_000)})
    daemon.wait_idle()


def test_deadline_while_decoding(daemon):
    with rpc_error(grpc.StatusCode.DEADLINE_EXCEEDED):
        daemon.generate(PROMPT, timeout=0.3, stop={"max_new_tokens": 1000000, "ignore_eos": True})
    daemon.wait_idle()


def test_deadline_in_a_long_prompt(daemon):
    with rpc_error(grpc.StatusCode.DEADLINE_EXCEEDED):
        daemon.generate([300] * 900_000, timeout=0.1)  # a GPU takes half a second
    daemon.wait_idle()


def test_expired_deadline(daemon):
    for timeout in (0, 1e-6, 1e-3):
        with rpc_error(grpc.StatusCode.DEADLINE_EXCEEDED):
            daemon.generate(PROMPT, timeout=timeout, stop={"max_new_tokens": 1000000, "ignore_eos": True})
    daemon.wait_idle()


def test_deadline_in_the_queue(daemon):
    """Every slot is taken: a call waits, and its deadline ends it there."""
    slots = daemon.slots()[1]
    # A call has at most 64 sequences.
    sizes = [min(64, slots - first) for first in range(0, slots, 64)]
    holders = [daemon.inference.Generate(
        request(PROMPT, n=n, stop={"max_new_tokens": 1000000, "ignore_eos": True}), timeout=PATIENCE) for n in sizes]
    for holder in holders:
        assert next(holder).WhichOneof("event") == "started"
    wait_until(lambda: daemon.slots()[0] == slots, "all slots are taken")
    try:
        with rpc_error(grpc.StatusCode.DEADLINE_EXCEEDED):
            daemon.generate(PROMPT, timeout=0.5)
    finally:
        for holder in holders:
            holder.cancel()
    daemon.wait_idle()
