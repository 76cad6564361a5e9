"""What calls give: the messages of their streams, folded."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import grpc

from sluice import _errors
from sluice._errors import SluiceError
from sluice.v1 import generate_pb2, score_pb2, session_pb2, tokens_pb2


class Tokens(NamedTuple):
    """The tokens of a text."""

    ids: list[int]
    pieces: list[str]  # as the tokenizer's vocabulary writes them


@dataclass
class Completion:
    """One of the n sequences of a call."""

    index: int
    text: str = ""
    token_ids: list[int] = field(default_factory=list)  # with token_ids=True
    logprobs: list[tokens_pb2.TokenLogprob] = field(default_factory=list)  # with logprobs=N
    finish_reason: str = ""  # "max_tokens", "eos", "stop_string", ...; empty: not ended yet
    matched_stop: str = ""
    usage: generate_pb2.Usage = field(default_factory=generate_pb2.Usage)
    timings: generate_pb2.Timings = field(default_factory=generate_pb2.Timings)
    session: session_pb2.Session | None = None  # after the commit; None: it committed to none
    error: SluiceError | None = None  # with finish_reason "error"


@dataclass
class GenerateResult:
    """A whole Generate stream. The properties are those of its first sequence."""

    completions: list[Completion]
    request_id: str = ""
    seed: int = 0  # with it the call can be repeated
    prompt_tokens: int = 0
    prompt_logprobs: list[tokens_pb2.TokenLogprob] = field(default_factory=list)

    @property
    def text(self) -> str:
        return self.completions[0].text

    @property
    def token_ids(self) -> list[int]:
        return self.completions[0].token_ids

    @property
    def logprobs(self) -> list[tokens_pb2.TokenLogprob]:
        return self.completions[0].logprobs

    @property
    def finish_reason(self) -> str:
        return self.completions[0].finish_reason

    @property
    def matched_stop(self) -> str:
        return self.completions[0].matched_stop

    @property
    def usage(self) -> generate_pb2.Usage:
        return self.completions[0].usage

    @property
    def timings(self) -> generate_pb2.Timings:
        return self.completions[0].timings

    @property
    def session(self) -> session_pb2.Session | None:
        return self.completions[0].session

    @property
    def etag(self) -> str | None:
        """The etag of the session after the commit."""
        return self.session.etag if self.session else None


class GenerationBase:
    """What sync and async iteration over a Generate stream share."""

    def __init__(self, sequences: int, session: object = None) -> None:
        self._session = session
        self._result = GenerateResult([Completion(i) for i in range(max(sequences, 1))])
        self._open = len(self._result.completions)

    @property
    def partial(self) -> GenerateResult:
        """What has come so far."""
        return self._result

    @property
    def result(self) -> GenerateResult:
        """The whole, once the stream has been read to its end."""
        if self._open:
            raise RuntimeError("the generation has not ended: read it to its end first")
        return self._result

    def _check_single(self) -> None:
        if len(self._result.completions) > 1:
            raise TypeError("n > 1 gives several texts: iterate over pieces()")

    def _fold(self, message: generate_pb2.GenerateResponse) -> tuple[int, str] | None:
        """Adds one message. (sequence, text) when it brought text."""
        event = message.WhichOneof("event")
        if event == "started":
            started = message.started
            self._result.request_id = started.request_id
            self._result.seed = started.seed
            self._result.prompt_tokens = started.prompt_tokens
        elif event == "prompt_logprobs":
            self._result.prompt_logprobs += message.prompt_logprobs.logprobs
        elif event == "delta":
            completion = self._result.completions[message.delta.index]
            completion.text += message.delta.text
            completion.token_ids += message.delta.token_ids
            completion.logprobs += message.delta.logprobs
            if message.delta.text:
                return completion.index, message.delta.text
        elif event == "finished":
            self._finish(message.finished)
        return None

    def _finish(self, finished: generate_pb2.Finished) -> None:
        completion = self._result.completions[finished.index]
        reason = generate_pb2.FinishReason.Name(finished.reason)
        completion.finish_reason = reason.removeprefix("FINISH_REASON_").lower()
        completion.matched_stop = finished.matched_stop
        completion.usage = finished.usage
        completion.timings = finished.timings
        self._open -= 1
        if finished.HasField("session"):
            completion.session = finished.session
            if self._session is not None:
                self._session._info = finished.session  # type: ignore[attr-defined]
        if finished.reason == generate_pb2.FINISH_REASON_ERROR:
            completion.error = _errors.from_status(finished.status)
            if len(self._result.completions) == 1:
                raise completion.error


@dataclass
class ScoreResult:
    """A whole Score stream."""

    tokens: int  # in the input, added special tokens included
    scored_tokens: int  # all but the first, or all after a session's history
    total_logprob: float  # natural logarithm
    logprobs: list[tokens_pb2.TokenLogprob]  # of the scored tokens, in order
    next: list[tokens_pb2.Alternative]  # most likely after the last, with top_logprobs=N

    @property
    def perplexity(self) -> float:
        """Per token."""
        return math.exp(-self.total_logprob / self.scored_tokens)


def fold_score(messages: Iterable[score_pb2.ScoreResponse]) -> ScoreResult:
    logprobs: list[tokens_pb2.TokenLogprob] = []
    for message in messages:
        logprobs += message.logprobs.logprobs
        if message.HasField("summary"):
            summary = message.summary
            return ScoreResult(
                summary.tokens,
                summary.scored_tokens,
                summary.total_logprob,
                logprobs,
                list(summary.next),
            )
    raise SluiceError(grpc.StatusCode.INTERNAL, "the stream ended without a summary")
