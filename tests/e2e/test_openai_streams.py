"""What a client sees while it waits for a stream: its head after a second, then comments; errors keep their status until then."""

import contextlib
import http.client
import json
import signal
import threading

import pytest

from harness import BOS, PATIENCE, wait_until
from test_openai import FOREVER, client_of, complete, error_of, post

ONE_SLOT = "--device_state_bytes=589824"
COMMENT = b": still here\n\n"
FLAGS = ("--http_listen=127.0.0.1:0", ONE_SLOT, "--http_stream_silence=300ms", "--prefix_cache_bytes=0")


class Waiting:
    """A streamed call whose bytes are read as they come."""

    def __init__(self, daemon, path, body):
        self.connection = http.client.HTTPConnection(*daemon.http.split(":"), timeout=PATIENCE)
        self.connection.request("POST", path, json.dumps({"stream": True, **body}), {"Content-Type": "application/json"})
        self.text = b""

    def head(self):
        self.answer = self.connection.getresponse()
        return self.answer

    def read_until(self, end):
        while end not in self.text:
            more = self.answer.read1(65536)
            assert more, f"ended with {self.text[-200:]!r}"
            self.text += more

    def events(self):
        """The JSON of every event; the stream ends."""
        self.text += self.answer.read()
        parts = [part for part in self.text.decode().split("\n\n") if part and not part.startswith(":")]
        assert all(part.startswith("data: ") for part in parts), parts
        return [json.loads(part.removeprefix("data: ")) for part in parts if part != "data: [DONE]"]


@contextlib.contextmanager
def taken_slot(daemon):
    """The only slot is taken by a stream whose reader keeps up."""
    with complete(client_of(daemon), stream=True, **FOREVER) as stream:
        chunks = iter(stream)
        next(chunks)

        def read():
            with contextlib.suppress(Exception):  # it is closed at the end
                for _ in chunks:
                    pass

        reader = threading.Thread(target=read)
        reader.start()
        try:
            yield
        finally:
            # Shuts the socket down under the reader.
            stream.response.extensions["network_stream"].get_extra_info("socket").shutdown(2)
            reader.join(PATIENCE)


BODIES = [("/v1/completions", {"prompt": "y", "max_tokens": 2}),
          ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}),
          ("/v1/completions", {"prompt": "Once", "echo": True, "max_tokens": 2})]


def test_a_stream_that_waits_for_a_slot_is_not_silent(start_daemon):
    daemon = start_daemon(*FLAGS)
    with taken_slot(daemon):
        waiting = [Waiting(daemon, path, body) for path, body in BODIES]
        for one in waiting:
            head = one.head()
            assert head.status == 200 and head.headers["content-type"].startswith("text/event-stream")
            one.read_until(2 * COMMENT)
            assert b"data" not in one.text
        assert daemon.metrics()["sluice_requests_waiting"] == len(waiting)
    for one, (path, body) in zip(waiting, BODIES):
        told = one.events()
        assert told[-1]["choices"][0]["finish_reason"] in ("length", "stop")
        text = "".join(c["choices"][0].get("text") or c["choices"][0].get("delta", {}).get("content") or "" for c in told)
        assert text.startswith("Once") if "echo" in body else text
        one.connection.close()


def test_nor_is_one_whose_prompt_is_long(start_daemon):
    daemon = start_daemon(*FLAGS, "--threads=1")
    one = Waiting(daemon, "/v1/completions", {"prompt": [BOS] + [300] * 60_000, "max_tokens": 1})
    assert one.head().status == 200
    one.read_until(2 * COMMENT)
    one.connection.close()
    one.answer.close()
    daemon.wait_idle()


def test_an_error_has_its_status_or_is_an_event(start_daemon):
    daemon = start_daemon(*FLAGS, "--max_queued_requests=1", "--drain_timeout=100ms")
    with taken_slot(daemon):
        one = Waiting(daemon, *BODIES[0])
        one.head()
        one.read_until(COMMENT)
        body = json.dumps({**BODIES[0][1], "stream": True}).encode()
        assert error_of(post(daemon, BODIES[0][0], body), 429)["code"] == "rate_limit_exceeded"
        daemon.send(signal.SIGTERM)
        told = one.events()
        assert len(told) == 1 and told[0]["error"]["type"] == "server_error", told
    assert daemon.wait() == 0


@pytest.mark.parametrize("stream", [True, False])
def test_the_official_client_passes_over_comments(start_daemon, stream):
    daemon = start_daemon(*FLAGS)
    with taken_slot(daemon):
        texts = []

        def ask():
            answer = complete(client_of(daemon), temperature=0, max_tokens=3, stream=stream)
            texts.append("".join(c.choices[0].text for c in answer) if stream else answer.choices[0].text)

        asker = threading.Thread(target=ask)
        asker.start()
        wait_until(lambda: daemon.metrics()["sluice_requests_waiting"] == 1, "it waits")
        second = Waiting(daemon, *BODIES[0])
        second.head()
        second.read_until(COMMENT)  # so the first has had comments too
        second.connection.close()
        second.answer.close()
    asker.join(PATIENCE)
    assert texts == [complete(client_of(daemon), temperature=0, max_tokens=3).choices[0].text]
