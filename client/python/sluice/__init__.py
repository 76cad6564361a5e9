"""Client of sluiced.

    with sluice.Client("localhost:50051") as client:
        for text in client.generate("Once upon a time", temperature=0.8):
            print(text, end="", flush=True)

AsyncClient has the same calls for asyncio. The messages of the API are in sluice.v1.
"""

from sluice._async import AsyncClient, AsyncGeneration, AsyncSession, AsyncSessions
from sluice._channel import TLS
from sluice._errors import (
    AbortedError,
    AlreadyExistsError,
    CancelledError,
    DataLossError,
    DeadlineExceededError,
    FailedPreconditionError,
    FieldViolation,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    ResourceExhaustedError,
    SluiceError,
    UnauthenticatedError,
    UnavailableError,
    UnimplementedError,
)
from sluice._options import GenerateOptions, ScoreOptions, SessionOptions
from sluice._results import Completion, GenerateResult, ScoreResult, Tokens
from sluice._retry import NO_RETRY, RetryPolicy
from sluice._sync import Client, Generation, Session, Sessions

__all__ = [
    "NO_RETRY",
    "TLS",
    "AbortedError",
    "AlreadyExistsError",
    "AsyncClient",
    "AsyncGeneration",
    "AsyncSession",
    "AsyncSessions",
    "CancelledError",
    "Client",
    "Completion",
    "DataLossError",
    "DeadlineExceededError",
    "FailedPreconditionError",
    "FieldViolation",
    "GenerateOptions",
    "GenerateResult",
    "Generation",
    "InternalError",
    "InvalidArgumentError",
    "NotFoundError",
    "PermissionDeniedError",
    "ResourceExhaustedError",
    "RetryPolicy",
    "ScoreOptions",
    "ScoreResult",
    "Session",
    "SessionOptions",
    "Sessions",
    "SluiceError",
    "Tokens",
    "UnauthenticatedError",
    "UnavailableError",
    "UnimplementedError",
]
