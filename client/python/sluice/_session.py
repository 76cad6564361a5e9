"""A session as it was last seen."""

from __future__ import annotations

import datetime

from sluice.v1 import session_pb2


class SessionInfo:
    """What sync and async sessions share."""

    def __init__(self, info: session_pb2.Session) -> None:
        self._info = info

    @property
    def info(self) -> session_pb2.Session:
        """The whole message, as the last answer had it."""
        return self._info

    @property
    def id(self) -> str:
        return self._info.id

    @property
    def affinity(self) -> str:
        return self._info.affinity

    @property
    def etag(self) -> str:
        """Changes with each commit and update: a call given it is ABORTED when it is old."""
        return self._info.etag

    @property
    def position(self) -> int:
        """Tokens in its history."""
        return self._info.position

    @property
    def labels(self) -> dict[str, str]:
        return dict(self._info.labels)

    @property
    def expire_time(self) -> datetime.datetime | None:
        """When it ends unless it is used before; None: never."""
        if not self._info.HasField("expire_time"):
            return None
        return self._info.expire_time.ToDatetime(tzinfo=datetime.timezone.utc)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} at position {self.position}>"
