"""How much a waiting stream costs."""

import asyncio

import grpc
import pytest

from harness import PATIENCE, inference_pb2_grpc, request, wait_until

STREAMS = 5000
LIMIT_KIB = 200_000_000 // 1024


@pytest.mark.slow
def test_five_thousand_waiting_streams(start_daemon):
    """Resident memory of the whole daemon, weights included, with 5,000 streams that wait for their first token."""
    daemon = start_daemon("--max_streams=6000", "--max_queued_requests=6000", "--log_level=warn")
    slots = daemon.slots()[1]
    holder = daemon.inference.Generate(
        request("The", n=slots, stop={"max_new_tokens": 1_000_000, "ignore_eos": True}), timeout=PATIENCE)
    assert next(holder).WhichOneof("event") == "started"
    wait_until(lambda: daemon.slots()[0] == slots, "all slots are taken")

    async def measure():
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [grpc.aio.insecure_channel(daemon.address, options=options) for _ in range(50)]
        stubs = [inference_pb2_grpc.InferenceServiceStub(channel) for channel in channels]
        message = request("The sea", stop={"max_new_tokens": 1})
        calls = [stubs[i % 50].Generate(message) for i in range(STREAMS)]
        first = await asyncio.wait_for(asyncio.gather(*(call.read() for call in calls)), PATIENCE)
        assert all(one.WhichOneof("event") == "started" for one in first)
        # All of them wait, and what took them in is done.
        assert daemon.metrics()["sluice_requests_waiting"] == STREAMS
        resident = daemon.rss_kib()
        for call in calls:
            call.cancel()
        await asyncio.gather(*(channel.close() for channel in channels))
        return resident

    resident = asyncio.run(measure())
    print(f"{STREAMS} waiting streams: {resident / 1024:.0f} MiB resident")
    holder.cancel()
    daemon.wait_idle()
    assert resident <= LIMIT_KIB, f"{resident / 1024:.0f} MiB"
    assert daemon.generate("The").only.text


@pytest.mark.slow
def test_memory_does_not_grow(start_daemon):
    """Ten rounds of 100 calls, half of them cancelled: the last five cost nothing more."""
    daemon = start_daemon("--log_level=warn")

    def one_round():
        stub = daemon.stub()
        for i in range(100):
            call = stub.Generate(request("A story of the sea.", sampling={"seed": i},
                                         stop={"max_new_tokens": 8}, output={"logprobs": 5}), timeout=PATIENCE)
            if i % 2:
                next(call)
                call.cancel()
            else:
                for _ in call:
                    pass
        daemon.wait_idle()
        return daemon.rss_kib()

    sizes = [one_round() for _ in range(10)]
    assert sizes[-1] <= sizes[4] * 1.05 + 2048, sizes


# Slow, and so not for sanitized daemons: what they free, they keep.
@pytest.mark.slow
def test_a_full_memory_is_refused_not_exceeded(start_daemon):
    """Long prompts that wait: refused above nine tenths of the bound, taken in again once those before are gone."""
    limit = 224 << 20  # full before the 256 calls that one connection may have
    daemon = start_daemon(f"--memory_limit={limit}", "--max_queued_tokens=1000000000",
                          f"--device_state_bytes={2 * 600_000}")
    holder = daemon.inference.Generate(
        request("The", n=2, stop={"max_new_tokens": 1_000_000, "ignore_eos": True}), timeout=PATIENCE)
    next(holder)
    message = request([5] * 200_000, stop={"max_new_tokens": 1})
    waiting, refused, most = [], None, 0
    while refused is None:
        assert len(waiting) < 1000, f"never refused; {daemon.rss_kib()} KiB"
        call = daemon.inference.Generate(message, timeout=PATIENCE)
        try:
            next(call)
            waiting.append(call)
        except grpc.RpcError as error:
            refused = error
        most = max(most, daemon.rss_kib() << 10)
    print(f"{len(waiting)} prompts of 200,000 tokens, then refused at {most / limit:.2f} of the bound")
    assert refused.code() == grpc.StatusCode.RESOURCE_EXHAUSTED and "memory" in refused.details()
    assert 0.8 * limit < most < limit
    for call in (*waiting, holder):
        call.cancel()
    daemon.wait_idle()

    def served():
        calls = [daemon.inference.Generate(request("The"), timeout=PATIENCE) for _ in range(2)]
        try:
            return all(list(call) for call in calls)
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            return False

    wait_until(served, "two calls at once are served again")
    assert "memory_full" in daemon.stderr() and "memory_good_again" in daemon.stderr()
