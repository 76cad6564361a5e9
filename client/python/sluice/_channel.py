"""What a connection is made of: target, credentials, metadata."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1 import health_pb2_grpc

from sluice.v1 import inference_pb2_grpc, session_pb2_grpc

# Tokenize answers a message of the daemon's limit (4 MiB) with several bytes for each of its own.
OPTIONS = [("grpc.max_receive_message_length", 256 << 20)]
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_AFFINITY = re.compile(r"[A-Za-z0-9_-]{1,64}")

#: A PEM file's path, or its content.
Pem = str | os.PathLike[str] | bytes


@dataclass(frozen=True)
class TLS:
    """Whom to trust, and who we are: each a path to a PEM file, or its bytes."""

    ca: Pem | None = None  # authorities to trust; None: the system's
    cert: Pem | None = None  # our own certificate, with its key
    key: Pem | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        if (self.cert is None) != (self.key is None):
            raise ValueError("a client certificate and its key are given together")
        return grpc.ssl_channel_credentials(
            root_certificates=_read(self.ca),
            private_key=_read(self.key),
            certificate_chain=_read(self.cert),
        )


def credentials(tls: TLS | bool | None) -> grpc.ChannelCredentials | None:
    """None: plain text."""
    if isinstance(tls, TLS):
        return tls.credentials()
    return TLS().credentials() if tls else None


#: A W3C traceparent, or what gives the one of the moment (None: no trace).
Traceparent = str | Callable[[], str | None]


def metadata(
    token: str | None, affinity: str, traceparent: Traceparent | None = None
) -> tuple[tuple[str, str], ...]:
    pairs = []
    if token:
        pairs.append(("authorization", f"Bearer {token}"))
    # Any other is left for the daemon to refuse by name; gRPC would abort the call over it.
    if _AFFINITY.fullmatch(affinity):
        pairs.append(("x-sluice-affinity", affinity))
    trace = traceparent() if callable(traceparent) else traceparent
    # The daemon ignores one that is not valid; so does this.
    if trace and _TRACEPARENT.fullmatch(trace):
        pairs.append(("traceparent", trace))
    return tuple(pairs)


def methods(channel: Any) -> Callable[[str], Any]:
    """Finds a method of the daemon's services by its name, on a channel of grpc or of grpc.aio."""
    stubs = (
        inference_pb2_grpc.InferenceServiceStub(channel),
        session_pb2_grpc.SessionServiceStub(channel),
        health_pb2_grpc.HealthStub(channel),
    )
    return lambda name: next(getattr(stub, name) for stub in stubs if hasattr(stub, name))


def _read(pem: Pem | None) -> bytes | None:
    return pem if pem is None or isinstance(pem, bytes) else pathlib.Path(pem).read_bytes()
