"""The daemon on a GPU, through its API. Run by tests/gpu/run.sh on a GPU host, with tests/e2e beside it."""

import pathlib
import shutil
import subprocess
import sys
import threading
import time

import grpc
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/e2e"))

import harness  # noqa: E402
from grpc_health.v1 import health_pb2, health_pb2_grpc  # noqa: E402
from harness import BIN, MODEL, Daemon, collect, in_threads, request, score_pb2, wait_until  # noqa: E402
from seen import ONLY_A_GPU, Seen  # noqa: E402

ENDLESS = {"max_new_tokens": 1_000_000, "ignore_eos": True}
TEXT = ("It was a dark and stormy night; the rain fell in torrents, except at occasional intervals, when it was checked "
        "by a violent gust of wind which swept up the streets. ") * 40


@pytest.fixture(scope="module")
def gpu():
    daemon = Daemon("--device=cuda")
    yield daemon
    daemon.wait_idle()
    assert daemon.stop() == 0, daemon.stderr()


@pytest.fixture(scope="module")
def cpu():
    daemon = Daemon("--device=cpu")
    yield daemon
    assert daemon.stop() == 0, daemon.stderr()


def refused(*arguments, code):
    end = subprocess.run([BIN / "sluiced", "--listen=127.0.0.1:0", "--admin_listen=127.0.0.1:0", "--http_listen=", *arguments],
                         stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    assert end.returncode == code, (end.returncode, end.stderr)
    assert end.stdout == "" and len(end.stderr.splitlines()) == 1, end.stderr
    return end.stderr


def test_says_where_it_runs(gpu):
    model = gpu.inference.GetModel(harness.model_pb2.GetModelRequest(), timeout=60)
    assert gpu.device == "cuda:0" and "cuda:0" in str(model)
    assert "cuda-" in str(model) and "bf16" in str(model)
    info = [name for name in gpu.metrics() if name.startswith("sluice_build_info")]
    assert len(info) == 1 and "cuda:0 (NVIDIA" in info[0], info
    assert gpu.slots()[1] == 1024


def test_auto_takes_the_gpu():
    daemon = Daemon()
    assert daemon.device == "cuda:0"
    assert daemon.stop() == 0


def test_alone_and_together(gpu):
    """The same bits alone and beside 63 others, prompts of 1 to 1,600 tokens."""
    ids = gpu.tokenize(TEXT)

    def ask(i):
        prompt = ids[:1 + i * 25]
        sampling = {"temperature": 0.8, "top_p": 0.9, "seed": i} if i % 2 else {"temperature": 0}
        return gpu.generate(prompt, sampling=sampling, stop={"max_new_tokens": 20 + i % 7, "ignore_eos": True},
                            output={"logprobs": 2}).only.bits()

    alone = [ask(i) for i in range(64)]
    for _ in range(2):
        assert in_threads(64, ask) == alone


def test_close_to_the_cpu(gpu, cpu):
    ids = gpu.tokenize(TEXT)[:1500]
    tokens = harness.tokens_pb2.TokenIds(ids=ids)
    scores = [[p.logprob for p in d.score(tokens=tokens).logprobs] for d in (gpu, cpu)]
    assert len(scores[0]) == len(scores[1]) > 1400
    difference = [abs(a - b) for a, b in zip(*scores)]
    assert sum(difference) / len(difference) < 0.01, sum(difference) / len(difference)


def test_metrics_that_only_a_gpu_moves(gpu):
    """The other half of tests/e2e/test_metrics.py: steps are in flight when clients leave."""
    seen = Seen()

    def all_moved():
        calls = [gpu.inference.Generate(request("The sea", stop=ENDLESS), timeout=60) for _ in range(4)]
        for call in calls:
            next(call)
            call.cancel()
        gpu.wait_idle()
        seen.look(gpu)
        return all(seen.most[series] > 0 for series in ONLY_A_GPU)

    wait_until(all_moved, f"{ONLY_A_GPU} above zero", timeout=60)


def test_more_sequences_than_slots():
    daemon = Daemon("--device=cuda", f"--device_state_bytes={5 * 600 * 1024}")
    slots = daemon.slots()[1]
    assert 2 <= slots <= 8
    want = daemon.generate("The sea", stop={"max_new_tokens": 50}).only.bits()
    assert in_threads(24, lambda i: daemon.generate("The sea", stop={"max_new_tokens": 50}).only.bits()) == [want] * 24
    assert daemon.stop() == 0


def test_refusals(tmp_path):
    assert "GPU 7" in refused(f"--model={MODEL}", "--device=cuda:7", code=2)
    said = refused(f"--model={MODEL}", "--device=cuda", f"--device_state_bytes={600 * 1024 * 1000000}",
                   "--max_batch_tokens=1048576", code=3)
    assert "bytes of device memory" in said and "are free" in said, said
    made = subprocess.run([sys.executable, ROOT / "tests/bench/random_checkpoint.py", tmp_path, "--hidden=120", "--layers=1",
                           "--heads=5", "--vocab=4096"], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    assert "dk (keys of a head) is 12, must be a multiple of 8" in refused(f"--model={tmp_path}", "--device=cuda", code=2)
    daemon = Daemon(model=tmp_path)
    assert daemon.device == "cpu" and "must be a multiple of 8" in daemon.stderr()
    assert daemon.stop() == 0


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_no_gpu_in_sight(hidden):
    daemon = Daemon(environment={"CUDA_VISIBLE_DEVICES": hidden})
    assert daemon.device == "cpu"
    why = [line for line in daemon.stderr().splitlines() if "no GPU on this host" in line]
    assert len(why) == 1, daemon.stderr()
    assert daemon.stop() == 0


def test_a_fault_of_the_device_ends_the_daemon(monkeypatch):
    """A kernel that writes where there is no memory, in the daemon's own process."""
    monkeypatch.setattr(harness, "BIN", pathlib.Path(shutil.copytree(BIN, "/tmp/faulty", dirs_exist_ok=True)))
    shutil.copy(BIN / "sluiced_with_fault", "/tmp/faulty/sluiced")
    daemon = Daemon("--device=cuda")
    health = health_pb2_grpc.HealthStub(daemon.channel).Watch(health_pb2.HealthCheckRequest(), timeout=120)
    assert next(health).status == health_pb2.HealthCheckResponse.SERVING
    ends, moments = [None] * 20, {}
    started = threading.Barrier(21)

    def stream(i):
        call = daemon.inference.Generate(request("The sea", stop=ENDLESS), timeout=120)
        waiting = True
        result = harness.Result()
        try:
            for message in call:
                result.add(message)
                if waiting and result.sequences:
                    waiting = False
                    started.wait(60)
            ends[i] = "OK"
        except grpc.RpcError as error:
            ends[i] = error.code()
        assert not any(s.finished for s in result.sequences.values())

    threads = [threading.Thread(target=stream, args=(i,)) for i in range(20)]
    for thread in threads:
        thread.start()
    started.wait(60)
    begin = time.monotonic()
    daemon.send(10)  # SIGUSR1
    try:
        for message in health:
            if message.status == health_pb2.HealthCheckResponse.NOT_SERVING:
                moments["NOT_SERVING"] = time.monotonic() - begin
                break
    except grpc.RpcError:
        pass
    for thread in threads:
        thread.join(60)
    assert daemon.wait() == 70, daemon.stderr()
    moments["exit"] = time.monotonic() - begin
    print(f"fault: {moments}, {daemon.stderr().splitlines()[-4:]}")
    assert set(ends) == {grpc.StatusCode.UNAVAILABLE}, ends
    assert moments["NOT_SERVING"] < 1 and moments["exit"] < 2, moments
    assert "device_fault" in daemon.stderr() and "illegal memory access" in daemon.stderr()
    daemon.kill()


def test_drains():
    daemon = Daemon("--device=cuda")
    call = daemon.inference.Generate(request("The sea", stop={"max_new_tokens": 3000, "ignore_eos": True}), timeout=120)
    next(call)
    daemon.send(15)
    result = harness.Result()
    result.messages = 1
    result.started = True
    assert len(collect(call, result).only.token_ids) == 3000
    assert daemon.wait() == 0
    daemon.kill()
