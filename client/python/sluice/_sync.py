"""The blocking client."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import grpc

from sluice import _calls, _channel, _errors, _results
from sluice._calls import Call
from sluice._options import (
    Duration,
    GenerateOptions,
    Prompt,
    ScoreOptions,
    SessionOptions,
    SessionRef,
)
from sluice._results import GenerateResult, GenerationBase, ScoreResult, Tokens
from sluice._retry import Attempts, RetryPolicy
from sluice._session import SessionInfo
from sluice.v1 import generate_pb2, model_pb2

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack


def _pause(seconds: float, stop: threading.Event) -> None:
    """Between two tries; ends early when the call is cancelled. Tests put another in its place."""
    stop.wait(seconds)


class _Stream:
    """The messages of a server stream, made again until it produces some. Sent when first read."""

    def __init__(self, client: Client, call: Call) -> None:
        self._client = client
        self._call = call
        self._rpc: Any = None
        self._stop = threading.Event()
        self._messages = self._read()

    def __iter__(self) -> Iterator[Any]:
        return self._messages

    def cancel(self) -> None:
        """From any thread. Whoever reads gets CANCELLED."""
        self._stop.set()
        if self._rpc is not None:
            self._rpc.cancel()

    def close(self) -> None:
        """From the thread that reads, which then finds the end."""
        self._messages.close()

    def _read(self) -> Generator[Any, None, None]:
        attempts = self._client._attempts(self._call)
        while not self._stop.is_set():
            self._rpc = self._client._start(self._call, attempts)
            if self._stop.is_set():
                self._rpc.cancel()
            produced = False
            try:
                for message in self._rpc:
                    produced = True
                    yield message
                return
            except grpc.RpcError as error:
                if self._stop.is_set():
                    break
                failure = _errors.from_rpc(error, self._client.target)
                seconds = attempts.pause(failure, produced=produced)
            finally:
                self._rpc.cancel()
            _pause(seconds, self._stop)
        raise _errors.cancelled()


class Generation(GenerationBase):
    """The text of a call, piece by piece. The call starts when it is first read.

    Iterating gives text; pieces() gives (sequence, text), which n > 1 needs; events() gives the
    messages. All read one stream. close(), which leaving a `with` block does too, ends the call.
    """

    def __init__(self, client: Client, call: Call, session: Session | None) -> None:
        assert isinstance(call.request, generate_pb2.GenerateRequest)
        super().__init__(call.request.n, session)
        self._stream = _Stream(client, call)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self._check_single()
        for message in self._stream:
            piece = self._fold(message)
            if piece is not None:
                return piece[1]
        raise StopIteration

    def pieces(self) -> Iterator[tuple[int, str]]:
        for message in self._stream:
            piece = self._fold(message)
            if piece is not None:
                yield piece

    def events(self) -> Iterator[generate_pb2.GenerateResponse]:
        for message in self._stream:
            self._fold(message)
            yield message

    def read(self) -> GenerateResult:
        """Reads what is left; the whole result."""
        for message in self._stream:
            self._fold(message)
        return self.result

    def cancel(self) -> None:
        """From any thread: whoever reads gets CancelledError."""
        self._stream.cancel()

    def close(self) -> None:
        """Ends the call where it is, from the thread that reads it."""
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Session(SessionInfo):
    """A session of a daemon. `info` and `etag` are as the last answer had them."""

    def __init__(self, client: Client, info: Any) -> None:
        super().__init__(info)
        self._client = client

    def generate(
        self, prompt: Prompt | None = None, **options: Unpack[GenerateOptions]
    ) -> Generation:
        """Goes on from its history, and commits when it ends well."""
        options["session"] = self
        return Generation(self._client, _calls.generate(prompt, options), self)

    def complete(
        self, prompt: Prompt | None = None, **options: Unpack[GenerateOptions]
    ) -> GenerateResult:
        return self.generate(prompt, **options).read()

    def score(self, input: Prompt, **options: Unpack[ScoreOptions]) -> ScoreResult:
        """The score of a continuation of its history, which is not changed."""
        options["session"] = self
        return self._client.score(input, **options)

    def fork(self, id: str = "", *, etag: str = "", **options: Unpack[SessionOptions]) -> Session:
        """A new session that continues from the same state."""
        return self._client.sessions.fork(self, id, etag=etag, **options)

    def update(
        self,
        *,
        labels: Mapping[str, str] | None = None,
        ttl: Duration | None = None,
        etag: str = "",
        timeout: float | None = None,
    ) -> Session:
        """Changes what is given."""
        call = _calls.update_session(self, labels, ttl, etag, timeout)
        self._info = self._client._unary(call)
        return self

    def refresh(self, *, timeout: float | None = None) -> Session:
        self._info = self._client._unary(_calls.get_session(self, timeout))
        return self

    def export(self, *, etag: str = "", timeout: float | None = None) -> Iterator[bytes]:
        return self._client.sessions.export(self, etag=etag, timeout=timeout)

    def delete(self, *, etag: str = "", timeout: float | None = None) -> None:
        self._client.sessions.delete(self, etag=etag, timeout=timeout)


class Sessions:
    """Client.sessions: sessions made, found, forked, moved and ended."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def create(
        self, id: str = "", *, model: str = "", **options: Unpack[SessionOptions]
    ) -> Session:
        """An empty one; without an id, of 128 random bits."""
        return self._session(_calls.create_session(id, model, options))

    def get(self, id: SessionRef, *, timeout: float | None = None) -> Session:
        return self._session(_calls.get_session(id, timeout))

    def list(
        self,
        *,
        labels: Mapping[str, str] | None = None,
        page_size: int = 0,
        timeout: float | None = None,
    ) -> Iterator[Session]:
        """All of the caller's that carry these labels, ordered by id, page after page."""
        token = ""
        while True:
            page = self._client._unary(_calls.list_sessions(labels, page_size, token, timeout))
            for info in page.sessions:
                yield Session(self._client, info)
            token = page.next_page_token
            if not token:
                return

    def update(
        self,
        id: SessionRef,
        *,
        labels: Mapping[str, str] | None = None,
        ttl: Duration | None = None,
        etag: str = "",
        timeout: float | None = None,
    ) -> Session:
        """Changes what is given."""
        return self._session(_calls.update_session(id, labels, ttl, etag, timeout))

    def fork(
        self, id: SessionRef, new_id: str = "", *, etag: str = "", **options: Unpack[SessionOptions]
    ) -> Session:
        """A new session that continues from the same state."""
        return self._session(_calls.fork_session(id, new_id, etag, options))

    def delete(self, id: SessionRef, *, etag: str = "", timeout: float | None = None) -> None:
        self._client._unary(_calls.delete_session(id, etag, timeout))

    def export(
        self, id: SessionRef, *, etag: str = "", timeout: float | None = None
    ) -> Iterator[bytes]:
        """Its bytes, piece by piece. They are whole only when the iteration ends."""
        for piece in _Stream(self._client, _calls.export_session(id, etag, timeout)):
            yield piece.data

    def import_(
        self, data: bytes | Iterable[bytes], id: str = "", **options: Unpack[SessionOptions]
    ) -> Session:
        """A session made of exported bytes."""
        return self._session(_calls.import_session(data, id, options))

    def _session(self, call: Call) -> Session:
        return Session(self._client, self._client._unary(call))


class Client:
    """A connection to a daemon, made at the first call. Threads may share one.

    `token` goes with every call. `tls`: True trusts the system's authorities; None: plain text.
    `timeout`: seconds of a call that names none, its tries included; None: no limit.
    `traceparent`: the W3C trace context of every call, or a function that is asked before each.
    """

    def __init__(
        self,
        target: str = "localhost:50051",
        *,
        token: str | None = None,
        tls: _channel.TLS | bool | None = None,
        timeout: float | None = None,
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008  (frozen)
        traceparent: _channel.Traceparent | None = None,
    ) -> None:
        self.target = target
        self.timeout = timeout
        self.retry = retry
        credentials = _channel.credentials(tls)
        if credentials is None:
            self.channel = grpc.insecure_channel(target, options=_channel.OPTIONS)
        else:
            self.channel = grpc.secure_channel(target, credentials, options=_channel.OPTIONS)
        self.sessions = Sessions(self)
        self._token = token
        self._traceparent = traceparent
        self._method = _channel.methods(self.channel)

    def generate(
        self, prompt: Prompt | None = None, **options: Unpack[GenerateOptions]
    ) -> Generation:
        """The text that follows the prompt, as an iterator over its pieces."""
        return Generation(self, _calls.generate(prompt, options), None)

    def complete(
        self, prompt: Prompt | None = None, **options: Unpack[GenerateOptions]
    ) -> GenerateResult:
        """The whole result of generate()."""
        return self.generate(prompt, **options).read()

    def score(self, input: Prompt, **options: Unpack[ScoreOptions]) -> ScoreResult:
        """Log-probabilities of given text or tokens."""
        return _results.fold_score(_Stream(self, _calls.score(input, options)))

    def tokenize(
        self,
        text: str,
        *,
        add_special_tokens: bool | None = None,
        model: str = "",
        timeout: float | None = None,
    ) -> Tokens:
        response = self._unary(_calls.tokenize(text, add_special_tokens, model, timeout))
        return Tokens(list(response.token_ids), list(response.pieces))

    def detokenize(
        self, token_ids: Sequence[int], *, model: str = "", timeout: float | None = None
    ) -> str:
        return str(self._unary(_calls.detokenize(token_ids, model, timeout)).text)

    def model(self, name: str = "", *, timeout: float | None = None) -> model_pb2.Model:
        """What is loaded, and the limits on a request."""
        model: model_pb2.Model = self._unary(_calls.get_model(name, timeout))
        return model

    def health(self, service: str = "", *, timeout: float | None = None) -> str:
        """ "SERVING" or "NOT_SERVING"; UnavailableError where nothing answers."""
        return _calls.health_name(self._unary(_calls.check_health(service, timeout)))

    def close(self) -> None:
        """Ends running calls too."""
        self.channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _attempts(self, call: Call) -> Attempts:
        return Attempts(self.retry, self.timeout, call)

    def _start(self, call: Call, attempts: Attempts) -> Any:
        return self._method(call.method)(
            call.request,
            timeout=attempts.timeout(),
            metadata=_channel.metadata(self._token, call.affinity, self._traceparent),
        )

    def _unary(self, call: Call) -> Any:
        attempts = self._attempts(call)
        while True:
            try:
                return self._start(call, attempts)
            except grpc.RpcError as error:
                seconds = attempts.pause(_errors.from_rpc(error, self.target))
            _pause(seconds, threading.Event())
