"""The client for asyncio: the calls of _sync.py over grpc.aio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
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


async def _pause(seconds: float) -> None:
    """Between two tries. Tests put another in its place."""
    await asyncio.sleep(seconds)


class _Stream:
    """The same as _sync._Stream."""

    def __init__(self, client: AsyncClient, call: Call) -> None:
        self._client = client
        self._call = call
        self._rpc: Any = None
        self._stopped = False
        self._messages = self._read()

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._messages

    def cancel(self) -> None:
        self._stopped = True
        if self._rpc is not None:
            self._rpc.cancel()

    async def aclose(self) -> None:
        await self._messages.aclose()

    async def _read(self) -> AsyncGenerator[Any, None]:
        attempts = self._client._attempts(self._call)
        while not self._stopped:
            self._rpc = self._client._start(self._call, attempts)
            produced = False
            try:
                async for message in self._rpc:
                    produced = True
                    yield message
                return
            except asyncio.CancelledError:
                # Either our own cancel() was called, or the task that reads was cancelled.
                if self._stopped:
                    break
                raise
            except grpc.RpcError as error:
                if self._stopped:
                    break
                failure = _errors.from_rpc(error, self._client.target)
                seconds = attempts.pause(failure, produced=produced)
            finally:
                self._rpc.cancel()
            await _pause(seconds)
        raise _errors.cancelled()


class AsyncGeneration(GenerationBase):
    """The same as Generation, with `async for` and `async with`."""

    def __init__(self, client: AsyncClient, call: Call, session: AsyncSession | None) -> None:
        assert isinstance(call.request, generate_pb2.GenerateRequest)
        super().__init__(call.request.n, session)
        self._stream = _Stream(client, call)

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        self._check_single()
        async for message in self._stream:
            piece = self._fold(message)
            if piece is not None:
                return piece[1]
        raise StopAsyncIteration

    async def pieces(self) -> AsyncIterator[tuple[int, str]]:
        async for message in self._stream:
            piece = self._fold(message)
            if piece is not None:
                yield piece

    async def events(self) -> AsyncIterator[generate_pb2.GenerateResponse]:
        async for message in self._stream:
            self._fold(message)
            yield message

    async def read(self) -> GenerateResult:
        """Reads what is left; the whole result."""
        async for message in self._stream:
            self._fold(message)
        return self.result

    def cancel(self) -> None:
        """From any task: whoever reads gets sluice.CancelledError."""
        self._stream.cancel()

    async def aclose(self) -> None:
        """Ends the call where it is, from the task that reads it."""
        await self._stream.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class AsyncSession(SessionInfo):
    """The same as Session."""

    def __init__(self, client: AsyncClient, info: Any) -> None:
        super().__init__(info)
        self._client = client

    def generate(
        self, prompt: Prompt | None = None, **options: Unpack[GenerateOptions]
    ) -> AsyncGeneration:
        options["session"] = self
        return AsyncGeneration(self._client, _calls.generate(prompt, options), self)

    async def complete(
        self, prompt: Prompt | None = None, **options: Unpack[GenerateOptions]
    ) -> GenerateResult:
        return await self.generate(prompt, **options).read()

    async def score(self, input: Prompt, **options: Unpack[ScoreOptions]) -> ScoreResult:
        options["session"] = self
        return await self._client.score(input, **options)

    async def fork(
        self, id: str = "", *, etag: str = "", **options: Unpack[SessionOptions]
    ) -> AsyncSession:
        return await self._client.sessions.fork(self, id, etag=etag, **options)

    async def update(
        self,
        *,
        labels: Mapping[str, str] | None = None,
        ttl: Duration | None = None,
        etag: str = "",
        timeout: float | None = None,
    ) -> AsyncSession:
        call = _calls.update_session(self, labels, ttl, etag, timeout)
        self._info = await self._client._unary(call)
        return self

    async def refresh(self, *, timeout: float | None = None) -> AsyncSession:
        self._info = await self._client._unary(_calls.get_session(self, timeout))
        return self

    def export(self, *, etag: str = "", timeout: float | None = None) -> AsyncIterator[bytes]:
        return self._client.sessions.export(self, etag=etag, timeout=timeout)

    async def delete(self, *, etag: str = "", timeout: float | None = None) -> None:
        await self._client.sessions.delete(self, etag=etag, timeout=timeout)


class AsyncSessions:
    """The same as Sessions."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def create(
        self, id: str = "", *, model: str = "", **options: Unpack[SessionOptions]
    ) -> AsyncSession:
        return await self._session(_calls.create_session(id, model, options))

    async def get(self, id: SessionRef, *, timeout: float | None = None) -> AsyncSession:
        return await self._session(_calls.get_session(id, timeout))

    async def list(
        self,
        *,
        labels: Mapping[str, str] | None = None,
        page_size: int = 0,
        timeout: float | None = None,
    ) -> AsyncIterator[AsyncSession]:
        token = ""
        while True:
            call = _calls.list_sessions(labels, page_size, token, timeout)
            page = await self._client._unary(call)
            for info in page.sessions:
                yield AsyncSession(self._client, info)
            token = page.next_page_token
            if not token:
                return

    async def update(
        self,
        id: SessionRef,
        *,
        labels: Mapping[str, str] | None = None,
        ttl: Duration | None = None,
        etag: str = "",
        timeout: float | None = None,
    ) -> AsyncSession:
        return await self._session(_calls.update_session(id, labels, ttl, etag, timeout))

    async def fork(
        self, id: SessionRef, new_id: str = "", *, etag: str = "", **options: Unpack[SessionOptions]
    ) -> AsyncSession:
        return await self._session(_calls.fork_session(id, new_id, etag, options))

    async def delete(self, id: SessionRef, *, etag: str = "", timeout: float | None = None) -> None:
        await self._client._unary(_calls.delete_session(id, etag, timeout))

    async def export(
        self, id: SessionRef, *, etag: str = "", timeout: float | None = None
    ) -> AsyncIterator[bytes]:
        async for piece in _Stream(self._client, _calls.export_session(id, etag, timeout)):
            yield piece.data

    async def import_(
        self, data: bytes | Iterable[bytes], id: str = "", **options: Unpack[SessionOptions]
    ) -> AsyncSession:
        return await self._session(_calls.import_session(data, id, options))

    async def _session(self, call: Call) -> AsyncSession:
        return AsyncSession(self._client, await self._client._unary(call))


class AsyncClient:
    """The same as Client, for the event loop that it is made in."""

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
            self.channel = grpc.aio.insecure_channel(target, options=_channel.OPTIONS)
        else:
            self.channel = grpc.aio.secure_channel(target, credentials, options=_channel.OPTIONS)
        self.sessions = AsyncSessions(self)
        self._token = token
        self._traceparent = traceparent
        self._method = _channel.methods(self.channel)

    def generate(
        self, prompt: Prompt | None = None, **options: Unpack[GenerateOptions]
    ) -> AsyncGeneration:
        return AsyncGeneration(self, _calls.generate(prompt, options), None)

    async def complete(
        self, prompt: Prompt | None = None, **options: Unpack[GenerateOptions]
    ) -> GenerateResult:
        return await self.generate(prompt, **options).read()

    async def score(self, input: Prompt, **options: Unpack[ScoreOptions]) -> ScoreResult:
        stream = _Stream(self, _calls.score(input, options))
        return _results.fold_score([message async for message in stream])

    async def tokenize(
        self,
        text: str,
        *,
        add_special_tokens: bool | None = None,
        model: str = "",
        timeout: float | None = None,
    ) -> Tokens:
        response = await self._unary(_calls.tokenize(text, add_special_tokens, model, timeout))
        return Tokens(list(response.token_ids), list(response.pieces))

    async def detokenize(
        self, token_ids: Sequence[int], *, model: str = "", timeout: float | None = None
    ) -> str:
        return str((await self._unary(_calls.detokenize(token_ids, model, timeout))).text)

    async def model(self, name: str = "", *, timeout: float | None = None) -> model_pb2.Model:
        model: model_pb2.Model = await self._unary(_calls.get_model(name, timeout))
        return model

    async def health(self, service: str = "", *, timeout: float | None = None) -> str:
        return _calls.health_name(await self._unary(_calls.check_health(service, timeout)))

    async def aclose(self) -> None:
        await self.channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _attempts(self, call: Call) -> Attempts:
        return Attempts(self.retry, self.timeout, call)

    def _start(self, call: Call, attempts: Attempts) -> Any:
        return self._method(call.method)(
            call.request,
            timeout=attempts.timeout(),
            metadata=_channel.metadata(self._token, call.affinity, self._traceparent),
        )

    async def _unary(self, call: Call) -> Any:
        attempts = self._attempts(call)
        while True:
            try:
                return await self._start(call, attempts)
            except grpc.RpcError as error:
                seconds = attempts.pause(_errors.from_rpc(error, self.target))
            await _pause(seconds)
