"""The keywords of the calls, under the names that the fields have in proto/sluice/v1."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias, TypedDict

if TYPE_CHECKING:
    from sluice._session import SessionInfo

#: Seconds, or a timedelta.
Duration: TypeAlias = "float | datetime.timedelta"
#: Text, or token ids that are used as they are.
Prompt: TypeAlias = "str | Sequence[int]"
#: A session's id, or what Sessions gave out; the latter knows where the session's daemon is.
SessionRef: TypeAlias = "str | SessionInfo"


class GenerateOptions(TypedDict, total=False):
    """The options of generate() and complete(). generate.proto states each one's range and default."""

    # SamplingParams
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    typical_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    logit_bias: Mapping[int, float]
    seed: int
    # StopConditions
    max_new_tokens: int
    max_tokens: int  # another name of max_new_tokens
    min_new_tokens: int
    stop: str | Sequence[str]  # StopConditions.strings
    stop_token_ids: Sequence[int]  # StopConditions.token_ids
    ignore_eos: bool
    include_stop: bool
    time_limit: Duration
    # OutputOptions
    token_ids: bool
    logprobs: int
    prompt_logprobs: bool
    echo: bool
    text: bool
    # GenerateRequest
    request_id: str
    model: str
    add_special_tokens: bool
    session: SessionRef
    etag: str
    commit_policy: Literal["on_success", "never"]
    on_conflict: Literal["fail", "wait", "cancel_running"]
    durable: bool
    n: int
    priority: int
    bypass_prefix_cache: bool
    # The call
    timeout: float  # seconds, tries included


class ScoreOptions(TypedDict, total=False):
    """The options of score(); see score.proto."""

    model: str
    add_special_tokens: bool
    session: SessionRef
    top_logprobs: int
    summary_only: bool
    timeout: float


class SessionOptions(TypedDict, total=False):
    """What a new session is to be like; see session.proto."""

    affinity: str
    ttl: Duration
    labels: Mapping[str, str]
    timeout: float
