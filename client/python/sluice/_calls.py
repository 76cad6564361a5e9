"""Keywords into requests. What is wrong with a value is the daemon's to say."""

from __future__ import annotations

import datetime
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import duration_pb2
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from sluice._options import (
    Duration,
    GenerateOptions,
    Prompt,
    ScoreOptions,
    SessionOptions,
    SessionRef,
)
from sluice.v1 import generate_pb2, model_pb2, score_pb2, session_pb2, tokens_pb2

# Bytes of an ImportSession message, far below the daemon's limit on one.
_PIECE_BYTES = 1 << 20


@dataclass
class Call:
    """One call, not made yet."""

    method: str
    request: Message | Iterable[Message]
    affinity: str = ""
    timeout: float | None = None  # None: the client's
    changes_session: bool = False
    attempts: int | None = field(default=None)  # at most; None: as the client's policy has it


def generate(prompt: Prompt | None, options: GenerateOptions) -> Call:
    given: dict[str, Any] = dict(options)
    for name, other in (("max_tokens", "max_new_tokens"), ("stop", "strings")):
        if name in given:
            if other in given:
                raise TypeError(f"{name} and {other} are the same")
            given[other] = given.pop(name)
    if isinstance(given.get("strings"), str):
        given["strings"] = [given["strings"]]
    timeout = given.pop("timeout", None)
    session = given.pop("session", None)
    token_ids = given.pop("token_ids", False)
    stop_token_ids = given.pop("stop_token_ids", ())
    if "time_limit" in given:
        given["time_limit"] = _duration(given["time_limit"])
    if "commit_policy" in given:
        given["commit_policy"] = _enum(
            generate_pb2.CommitPolicy, "commit_policy", given["commit_policy"]
        )
    if "on_conflict" in given:
        given["on_conflict"] = _enum(
            generate_pb2.ConflictPolicy, "on_conflict", given["on_conflict"]
        )
    request = generate_pb2.GenerateRequest(
        session_id=session_id(session),
        sampling=_take(generate_pb2.SamplingParams, given),
        stop=_take(generate_pb2.StopConditions, given),
        output=_take(generate_pb2.OutputOptions, given),
        **_prompt(prompt),
        **{name: given.pop(name) for name in _REQUEST_FIELDS if name in given},
    )
    if given:
        raise TypeError(f"generate() has no option {', '.join(sorted(given))}")
    request.stop.token_ids.extend(stop_token_ids)
    request.output.token_ids = token_ids
    commits = request.commit_policy != generate_pb2.COMMIT_POLICY_NEVER
    return Call(
        "Generate",
        request,
        affinity(session),
        timeout,
        changes_session=bool(request.session_id) and commits,
    )


def score(input: Prompt, options: ScoreOptions) -> Call:
    given: dict[str, Any] = dict(options)
    timeout, session = given.pop("timeout", None), given.pop("session", None)
    request = score_pb2.ScoreRequest(session_id=session_id(session), **_prompt(input), **given)
    return Call("Score", request, affinity(session), timeout)


def tokenize(text: str, add_special_tokens: bool | None, model: str, timeout: float | None) -> Call:
    request = tokens_pb2.TokenizeRequest(
        text=text, add_special_tokens=add_special_tokens, model=model
    )
    return Call("Tokenize", request, timeout=timeout)


def detokenize(token_ids: Sequence[int], model: str, timeout: float | None) -> Call:
    request = tokens_pb2.DetokenizeRequest(token_ids=token_ids, model=model)
    return Call("Detokenize", request, timeout=timeout)


def get_model(model: str, timeout: float | None) -> Call:
    return Call("GetModel", model_pb2.GetModelRequest(model=model), timeout=timeout)


def check_health(service: str, timeout: float | None) -> Call:
    """Made once: it asks how things are now."""
    request = health_pb2.HealthCheckRequest(service=service)
    return Call("Check", request, timeout=timeout, attempts=1)


def health_name(response: health_pb2.HealthCheckResponse) -> str:
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(response.status))


def create_session(id: str, model: str, options: SessionOptions) -> Call:
    new = _new_session(id, options)
    return Call(
        "CreateSession",
        session_pb2.CreateSessionRequest(model=model, options=new),
        new.affinity,
        options.get("timeout"),
        changes_session=True,
    )


def get_session(session: SessionRef, timeout: float | None) -> Call:
    return Call(
        "GetSession",
        session_pb2.GetSessionRequest(id=session_id(session)),
        affinity(session),
        timeout,
    )


def list_sessions(
    labels: Mapping[str, str] | None, page_size: int, page_token: str, timeout: float | None
) -> Call:
    request = session_pb2.ListSessionsRequest(
        labels=labels, page_size=page_size, page_token=page_token
    )
    return Call("ListSessions", request, timeout=timeout)


def update_session(
    session: SessionRef,
    labels: Mapping[str, str] | None,
    ttl: Duration | None,
    etag: str,
    timeout: float | None,
) -> Call:
    request = session_pb2.UpdateSessionRequest(
        session=session_pb2.Session(id=session_id(session), etag=etag, labels=labels)
    )
    if labels is not None:
        request.update_mask.paths.append("labels")
    if ttl is not None:
        request.ttl.CopyFrom(_duration(ttl))
        request.update_mask.paths.append("ttl")
    return Call("UpdateSession", request, affinity(session), timeout, changes_session=True)


def fork_session(session: SessionRef, id: str, etag: str, options: SessionOptions) -> Call:
    new = _session_options(id, options)
    request = session_pb2.ForkSessionRequest(id=session_id(session), etag=etag, options=new)
    return Call(
        "ForkSession", request, affinity(session), options.get("timeout"), changes_session=True
    )


def delete_session(session: SessionRef, etag: str, timeout: float | None) -> Call:
    request = session_pb2.DeleteSessionRequest(id=session_id(session), etag=etag)
    return Call("DeleteSession", request, affinity(session), timeout, changes_session=True)


def export_session(session: SessionRef, etag: str, timeout: float | None) -> Call:
    request = session_pb2.ExportSessionRequest(id=session_id(session), etag=etag)
    return Call("ExportSession", request, affinity(session), timeout)


def import_session(data: bytes | Iterable[bytes], id: str, options: SessionOptions) -> Call:
    """Made once: the data may come from where it cannot be read again."""
    new = _new_session(id, options)

    def parts() -> Iterator[session_pb2.ImportSessionRequest]:
        yield session_pb2.ImportSessionRequest(options=new)
        for piece in [data] if isinstance(data, bytes) else data:
            for begin in range(0, len(piece), _PIECE_BYTES):
                yield session_pb2.ImportSessionRequest(data=piece[begin : begin + _PIECE_BYTES])

    return Call(
        "ImportSession",
        parts(),
        new.affinity,
        options.get("timeout"),
        changes_session=True,
        attempts=1,
    )


def session_id(session: SessionRef | None) -> str:
    return session if isinstance(session, str) else "" if session is None else session.id


def affinity(session: SessionRef | None) -> str:
    return session if isinstance(session, str) else "" if session is None else session.affinity


# The prompt has an argument of its own, and the rest of them is made here.
_REQUEST_FIELDS = {f.name for f in generate_pb2.GenerateRequest.DESCRIPTOR.fields} - {
    "text",
    "tokens",
    "session_id",
    "sampling",
    "stop",
    "output",
}


def _take(message: type[Any], given: dict[str, Any]) -> Any:
    """The message made of what is in `given` under its fields' names, which leaves it."""
    names = [f.name for f in message.DESCRIPTOR.fields if f.name in given]
    return message(**{name: given.pop(name) for name in names})


def _prompt(prompt: Prompt | None) -> dict[str, Any]:
    if prompt is None:
        return {}
    if isinstance(prompt, str):
        return {"text": prompt}
    if isinstance(prompt, (bytes, bytearray)):
        raise TypeError("a prompt is text or token ids, not bytes")
    return {"tokens": tokens_pb2.TokenIds(ids=prompt)}


def _new_session(id: str, options: SessionOptions) -> session_pb2.SessionOptions:
    """An absent id is chosen here, so that the call goes to the daemon that later calls go to."""
    new = _session_options(id or secrets.token_hex(16), options)
    new.affinity = new.affinity or new.id
    return new


def _session_options(id: str, options: SessionOptions) -> session_pb2.SessionOptions:
    given: dict[str, Any] = {name: v for name, v in options.items() if name != "timeout"}
    if "ttl" in given:
        given["ttl"] = _duration(given["ttl"])
    return session_pb2.SessionOptions(id=id, **given)


def _duration(value: Duration) -> duration_pb2.Duration:
    message = duration_pb2.Duration()
    if isinstance(value, datetime.timedelta):
        message.FromTimedelta(value)
    else:
        message.FromNanoseconds(round(value * 1e9))
    return message


def _enum(enum: EnumTypeWrapper, name: str, value: str) -> int:
    """The value COMMIT_POLICY_NEVER is called "never"."""
    prefix = enum.keys()[0].removesuffix("UNSPECIFIED")
    try:
        return int(enum.Value(prefix + value.upper()))
    except ValueError:
        known = [key.removeprefix(prefix).lower() for key in enum.keys()[1:]]
        raise ValueError(f"{name} is {value!r}, must be one of {', '.join(known)}") from None
