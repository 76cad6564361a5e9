"""A failed call as an exception with one helpful line."""

from __future__ import annotations

from typing import Any, NamedTuple

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

_DETAILS_KEY = "grpc-status-details-bin"


class FieldViolation(NamedTuple):
    """What is wrong with one field of a request."""

    field: str
    description: str


class SluiceError(Exception):
    """A call failed. Its subclasses are one for each gRPC code that the daemon uses."""

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *,
        reason: str = "",
        field_violations: tuple[FieldViolation, ...] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message
        #: Stable name of the daemon's for what happened, such as SESSION_BUSY; empty: it said none.
        self.reason = reason
        self.field_violations = field_violations
        #: Seconds that the daemon asks to wait before another try.
        self.retry_after = retry_after


class AbortedError(SluiceError):
    """The session is busy, or has another etag by now."""


class AlreadyExistsError(SluiceError):
    """There is a session of that id."""


class CancelledError(SluiceError):
    """Cancelled here, by a call with on_conflict="cancel_running", or with its session."""


class DataLossError(SluiceError):
    """A session's bytes are damaged."""


class DeadlineExceededError(SluiceError):
    """The call's timeout was over."""


class FailedPreconditionError(SluiceError):
    """The daemon or the session is not what the call needs."""


class InternalError(SluiceError):
    """A fault of the daemon."""


class InvalidArgumentError(SluiceError):
    """A field of the request is wrong: see field_violations."""


class NotFoundError(SluiceError):
    """There is no such session or model."""


class PermissionDeniedError(SluiceError):
    """The bytes are another tenant's, or signed with another key."""


class ResourceExhaustedError(SluiceError):
    """A queue or quota is full; with retry_after, it will have room again."""


class UnauthenticatedError(SluiceError):
    """The daemon wants a token or certificate that it knows."""


class UnavailableError(SluiceError):
    """The daemon is not there, starting, or shutting down."""


class UnimplementedError(SluiceError):
    """The daemon was started without this."""


_CLASSES: dict[grpc.StatusCode, type[SluiceError]] = {
    grpc.StatusCode.ABORTED: AbortedError,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExistsError,
    grpc.StatusCode.CANCELLED: CancelledError,
    grpc.StatusCode.DATA_LOSS: DataLossError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
    grpc.StatusCode.FAILED_PRECONDITION: FailedPreconditionError,
    grpc.StatusCode.INTERNAL: InternalError,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgumentError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDeniedError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhaustedError,
    grpc.StatusCode.UNAUTHENTICATED: UnauthenticatedError,
    grpc.StatusCode.UNAVAILABLE: UnavailableError,
    grpc.StatusCode.UNIMPLEMENTED: UnimplementedError,
}
_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


def cancelled() -> SluiceError:
    return CancelledError(grpc.StatusCode.CANCELLED, "cancelled by the caller")


def from_rpc(error: Any, target: str) -> SluiceError:
    """The error for the grpc.RpcError of a call that grpc or grpc.aio made."""
    code = error.code()
    rich = status_pb2.Status()
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS_KEY:
            try:
                rich.ParseFromString(value)
            except DecodeError:
                rich.Clear()
    if rich.details or rich.message:
        rich.message = rich.message or error.details() or ""
        return _from_status(code, rich)
    # Nothing answered, and gRPC made the message up itself.
    message = _one_line(error.details() or "")
    if code == grpc.StatusCode.UNAVAILABLE:
        message += f"; is sluiced running at {target}?"
    elif code == grpc.StatusCode.UNIMPLEMENTED:
        message += f"; what answers at {target} does not offer this call"
    return _CLASSES.get(code, SluiceError)(code, message)


def from_status(status: status_pb2.Status) -> SluiceError:
    """The error for the status of one sequence of a call."""
    return _from_status(_CODES.get(status.code, grpc.StatusCode.UNKNOWN), status)


def _from_status(code: grpc.StatusCode, status: status_pb2.Status) -> SluiceError:
    reason = ""
    violations: list[FieldViolation] = []
    retry_after: float | None = None
    bad_request = error_details_pb2.BadRequest()
    info = error_details_pb2.ErrorInfo()
    retry = error_details_pb2.RetryInfo()
    for detail in status.details:
        if detail.Unpack(bad_request):
            violations += [
                FieldViolation(v.field, v.description) for v in bad_request.field_violations
            ]
        elif detail.Unpack(info):
            reason = info.reason
        elif detail.Unpack(retry):
            retry_after = retry.retry_delay.ToNanoseconds() / 1e9
    # Violations repeat what the message says, with the field's name.
    message = "; ".join(f"{v.field}: {v.description}" for v in violations) or status.message
    if retry_after is not None:
        message += f"; retry in {retry_after * 1e3:.0f} ms"
    return _CLASSES.get(code, SluiceError)(
        code,
        _one_line(message),
        reason=reason,
        field_violations=tuple(violations),
        retry_after=retry_after,
    )


def _one_line(text: str) -> str:
    return " ".join(text.splitlines())
