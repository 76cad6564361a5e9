"""The real daemon as a process, its API as Python stubs made from proto/, and what the tests ask of both."""

import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

import grpc
import grpc_tools
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from grpc_tools import protoc

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("SLUICE_BIN_DIR", ROOT / "build/bin"))
# The fault tests that compare speeds are run with another one on a GPU; others know the bundled model's answers.
MODEL = pathlib.Path(os.environ.get("SLUICE_TEST_MODEL", ROOT / "deploy/models/classics-12m"))
GOLDENS = json.loads((ROOT / "tests/goldens/classics-12m.json").read_text())
VOCAB = 4096
BOS, EOS = 1, 2
# Share of the rounds that the longest tests do; a sanitized daemon, 20 times slower, gets fewer of them.
SCALE = float(os.environ.get("SLUICE_TEST_SCALE", "1"))
# Sanitized binaries are slower; every wait has this much patience, and none is expected to need it.
PATIENCE = 120.0


def _make_stubs():
    out = tempfile.TemporaryDirectory(prefix="sluice-stubs-")
    well_known = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    files = sorted(str(p.relative_to(ROOT / "proto")) for p in (ROOT / "proto/sluice/v1").glob("*.proto"))
    arguments = ["protoc", f"-I{ROOT / 'proto'}", f"-I{well_known}", f"--python_out={out.name}",
                 f"--grpc_python_out={out.name}", *files]
    if protoc.main(arguments) != 0:
        raise RuntimeError("protoc could not generate the Python stubs")
    sys.path.insert(0, out.name)
    return out


_stubs = _make_stubs()
# google.rpc comes from googleapis-common-protos: generated modules of that name would collide with it.
from sluice.v1 import generate_pb2, inference_pb2_grpc, model_pb2, score_pb2  # noqa: E402
from sluice.v1 import session_pb2, session_pb2_grpc, tokens_pb2  # noqa: E402

FinishReason = generate_pb2.FinishReason


def wait_until(condition, what, timeout=PATIENCE):
    """Polls until condition() is true and returns what it returned."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"{what}: not within {timeout:.0f} s"
        time.sleep(0.01)


def clean_environment():
    """Without SLUICE_* of the person who runs the tests: they are flags of the daemon."""
    return {k: v for k, v in os.environ.items() if not k.startswith("SLUICE_")}


# What says in /metrics that a request is still held somewhere.
LIVE_GAUGES = (
    "sluice_live_requests",
    "sluice_permits",
    "sluice_queued_requests",
    "sluice_queued_tokens",
    "sluice_requests_waiting",
    "sluice_sequences_paused",
    "sluice_sequences_running",
    "sluice_state_slots{status=used,tier=device}",
    "sluice_stream_ring_bytes",
    "sluice_streams",
)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class Daemon:
    """One sluiced on free ports. Its stdout and stderr go to files."""

    def __init__(self, *flags, model=MODEL, directory=None, wrapper=(), environment=None, program=BIN / "sluiced"):
        self._directory = tempfile.TemporaryDirectory(prefix="sluice-e2e-", dir=directory)
        self.stdout_path = pathlib.Path(self._directory.name) / "stdout"
        self.stderr_path = pathlib.Path(self._directory.name) / "stderr"
        command = [*wrapper, str(program), f"--model={model}", "--listen=127.0.0.1:0",
                   "--admin_listen=127.0.0.1:0", "--http_listen=", *flags]
        with open(self.stdout_path, "wb") as out, open(self.stderr_path, "wb") as err:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                                            env={**clean_environment(), **(environment or {})})
        self._channels = []
        self.serving_line = wait_until(self._serving_line, "sluiced says where it serves")
        match = re.fullmatch(r"serving (\S+) on (\S+) at (\S+:\d+), admin at (\S+:\d+)(?:, http at (\S+:\d+))?",
                             self.serving_line)
        assert match, self.serving_line
        self.model_name, self.device, self.address, self.admin, self.http = match.groups()
        # What rounding may do: to log-probabilities, and to a choice whose margin of logits is no larger. A GPU computes
        # in bf16.
        self.logprob_error, self.margin = (2e-3, 1e-3) if self.device == "cpu" else (0.2, 0.25)
        self.channel = self.new_channel()
        self.inference = inference_pb2_grpc.InferenceServiceStub(self.channel)
        self.sessions = session_pb2_grpc.SessionServiceStub(self.channel)

    def _serving_line(self):
        if self.process.poll() is not None:
            raise AssertionError(f"sluiced ended with {self.process.returncode}: {self.stderr()}")
        text = self.stdout_path.read_text()
        return text.splitlines()[0] if "\n" in text else None

    def new_channel(self, *options):
        channel = grpc.insecure_channel(self.address, options=[("grpc.use_local_subchannel_pool", 1),
                                                               ("grpc.max_receive_message_length", -1), *options])
        self._channels.append(channel)
        return channel

    def stub(self, *options):
        """A stub on a connection of its own."""
        return inference_pb2_grpc.InferenceServiceStub(self.new_channel(*options))

    def stderr(self):
        return self.stderr_path.read_text(errors="replace")

    def get(self, path):
        """(HTTP status, body) of the admin port."""
        try:
            with urllib.request.urlopen(f"http://{self.admin}{path}", timeout=PATIENCE) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metrics(self):
        """Sample name, with its labels in order and without quotes -> value."""
        status, text = self.get("/metrics")
        assert status == 200
        samples = {}
        for line in text.splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                name, _, labels = name.partition("{")
                if labels:
                    name += "{" + ",".join(sorted(f"{k}={v}" for k, v in _LABEL.findall(labels))) + "}"
                samples[name] = float(value)
        return samples

    def slots(self):
        """State slots on the device: (used, all)."""
        samples = self.metrics()
        used, free = (samples[f"sluice_state_slots{{status={s},tier=device}}"] for s in ("used", "free"))
        return int(used), int(used + free)

    def live(self):
        """The gauges that must be zero when nothing runs, those that are not."""
        samples = self.metrics()
        return {name: samples[name] for name in LIVE_GAUGES if samples[name] != 0}

    def wait_idle(self):
        wait_until(lambda: not self.live(), f"gauges return to zero (last: {self.live()})")

    def rss_kib(self):
        return proc_status(self.process.pid, "VmRSS")

    def send(self, number):
        self.process.send_signal(number)

    def wait(self, timeout=PATIENCE):
        return self.process.wait(timeout)

    def close_channels(self):
        for channel in self._channels:
            channel.close()
        self._channels = []

    def stop(self):
        """SIGTERM; its exit code."""
        self.close_channels()
        if self.process.poll() is None:
            self.send(signal.SIGTERM)
        return self.wait()

    def kill(self):
        for channel in self._channels:
            channel.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    # Short forms of calls.

    def generate(self, prompt, **keywords):
        timeout = keywords.pop("timeout", PATIENCE)
        return collect(self.inference.Generate(request(prompt, **keywords), timeout=timeout))

    def score(self, **fields):
        return collect_score(self.inference.Score(score_pb2.ScoreRequest(**fields), timeout=PATIENCE))

    def tokenize(self, text, **fields):
        return list(self.inference.Tokenize(tokens_pb2.TokenizeRequest(text=text, **fields)).token_ids)

    def detokenize(self, token_ids):
        return self.inference.Detokenize(tokens_pb2.DetokenizeRequest(token_ids=token_ids)).text


def proc_status(pid, key):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1])
    raise KeyError(key)


def request(prompt, sampling=None, stop=None, output=None, **fields):
    """A GenerateRequest; the prompt is text or a list of token ids. Greedy with token ids unless told otherwise."""
    if isinstance(prompt, str):
        fields["text"] = prompt
    elif prompt is not None:
        fields["tokens"] = tokens_pb2.TokenIds(ids=prompt)
    return generate_pb2.GenerateRequest(
        sampling=generate_pb2.SamplingParams(**(sampling if sampling is not None else {"temperature": 0})),
        stop=generate_pb2.StopConditions(**{"max_new_tokens": 32, **(stop or {})}),
        output=generate_pb2.OutputOptions(**{"token_ids": True, **(output or {})}),
        **fields)


class Sequence:
    def __init__(self):
        self.text = ""
        self.token_ids = []
        self.logprobs = []
        self.finished = None

    @property
    def reason(self):
        return FinishReason.Name(self.finished.reason).removeprefix("FINISH_REASON_")

    def bits(self):
        """Everything that must not depend on who else is served, exactly."""
        return (self.text, tuple(self.token_ids),
                tuple((p.token_id, p.logprob, p.rank, tuple((a.token_id, a.logprob) for a in p.alternatives))
                      for p in self.logprobs), self.finished.reason, self.finished.matched_stop)


class Result:
    """A whole Generate stream, checked for order while it was read."""

    def __init__(self):
        self.started = None
        self.prompt_logprobs = []
        self.prompt_logprob_messages = 0
        self.sequences = {}
        self.messages = 0

    def add(self, message):
        assert message.sequence_number == self.messages, "sequence numbers have a gap"
        self.messages += 1
        event = message.WhichOneof("event")
        if event == "started":
            assert self.messages == 1
            self.started = message.started
            return
        assert self.started is not None, "Started is the first message"
        if event == "prompt_logprobs":
            assert not self.sequences, "PromptLogprobs come before the first Delta"
            self.prompt_logprobs += message.prompt_logprobs.logprobs
            self.prompt_logprob_messages += 1
        elif event == "delta":
            sequence = self.sequences.setdefault(message.delta.index, Sequence())
            assert sequence.finished is None, "nothing follows Finished"
            sequence.text += message.delta.text
            sequence.token_ids += message.delta.token_ids
            sequence.logprobs += message.delta.logprobs
        else:
            assert event == "finished", event
            sequence = self.sequences.setdefault(message.finished.index, Sequence())
            assert sequence.finished is None, "one Finished for each sequence"
            sequence.finished = message.finished

    @property
    def only(self):
        assert list(self.sequences) == [0]
        return self.sequences[0]


def collect(call, into=None):
    result = into if into is not None else Result()
    for message in call:
        result.add(message)
    assert result.sequences and all(s.finished for s in result.sequences.values()), "ended without Finished"
    return result


class ScoreResult:
    def __init__(self):
        self.logprobs = []
        self.messages = 0
        self.summary = None


def collect_score(call):
    result = ScoreResult()
    for message in call:
        assert result.summary is None, "the summary is the last message"
        if message.WhichOneof("event") == "logprobs":
            result.logprobs += message.logprobs.logprobs
            result.messages += 1
        else:
            result.summary = message.summary
    assert result.summary is not None
    return result


_LEAK = re.compile(r"0x[0-9a-fA-F]{6,}|/\w+/\w+|\w+\.(cc|h):\d+|std::|absl::")


def check_message(text):
    """An error is one line that helps, and gives nothing of the inside away."""
    assert text and "\n" not in text, repr(text)
    assert not _LEAK.search(text), f"gives away something of the inside: {text!r}"


@contextlib.contextmanager
def rpc_error(*codes):
    """Expects the body to fail with one of these codes; yields an object that gets `error` and `details`."""

    class Caught:
        error = None
        details = {}

    caught = Caught()
    try:
        yield caught
    except grpc.RpcError as error:
        caught.error = error
        assert error.code() in codes, f"{error.code()}: {error.details()}"
        check_message(error.details())
        status = rpc_status.from_call(error)
        caught.details = {}
        for any_message in status.details if status else []:
            for kind in (error_details_pb2.BadRequest, error_details_pb2.ErrorInfo, error_details_pb2.RetryInfo):
                if any_message.Is(kind.DESCRIPTOR):
                    detail = kind()
                    any_message.Unpack(detail)
                    caught.details[kind.DESCRIPTOR.name] = detail
        return
    raise AssertionError(f"no error, expected {codes}")


def violated_fields(caught):
    violations = caught.details["BadRequest"].field_violations
    for violation in violations:
        check_message(violation.description)
    return [violation.field for violation in violations]


def in_threads(count, function):
    """Runs function(i) in as many threads, returns what they returned; the first exception is raised."""
    results = [None] * count
    errors = []

    def run(i):
        try:
            results[i] = function(i)
        except BaseException as error:  # noqa: BLE001  (raised below, in the test's thread)
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive(), "a call does not end"
    if errors:
        raise errors[0]
    return results


def run_sluice(daemon, *arguments, stdin=None, address=None, timeout=PATIENCE):
    """Runs the command line client to its end."""
    command = [str(BIN / "sluice"), f"--address={address or daemon.address}", *arguments]
    return subprocess.run(command, input=stdin, stdin=subprocess.DEVNULL if stdin is None else None,
                          capture_output=True, text=True, timeout=timeout, env=clean_environment())
