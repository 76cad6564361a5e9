"""What lm-eval asks of a model, over Score and Generate; without lm-eval itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sluice._sync import Client

_MAX_TOKENS_NAMES = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")


class Evaluation:
    """Evaluates the model that a daemon serves. Threads may share one."""

    def __init__(self, client: Client, max_length: int | None = None) -> None:
        """`max_length`: tokens that a score may look back over; None: what the daemon allows."""
        self.client = client
        self.model = client.model()
        # One token more is sent, which has no score itself.
        self.max_length = max_length or self.model.limits.max_prompt_tokens - 1
        eos = list(self.model.eos_token_ids)
        self.eot_token_id = eos[0] if eos else self.model.bos_token_id
        #: What the first token of a text is scored after: BOS where the model has one.
        self.prefix_token_id = self.model.bos_token_id
        if self.prefix_token_id < 0:
            self.prefix_token_id = self.eot_token_id
        if self.prefix_token_id < 0:
            raise ValueError(f"{self.model.name} has neither BOS nor EOS to start a text with")

    def loglikelihood(
        self, context: Sequence[int], continuation: Sequence[int]
    ) -> tuple[float, bool]:
        """The log-probability of the continuation, and whether greedy decoding gives it. `context` is not empty."""
        if not continuation:
            return 0.0, True
        tokens = [*context, *continuation][-(self.max_length + 1) :]
        logprobs = self.client.score(tokens).logprobs[-len(continuation) :]
        if len(logprobs) < len(continuation):
            raise ValueError(
                f"a continuation of {len(continuation)} tokens is longer than max_length, "
                f"{self.max_length}"
            )
        return math.fsum(p.logprob for p in logprobs), all(p.rank == 1 for p in logprobs)

    def loglikelihood_rolling(self, text: str) -> float:
        """The log-probability of a text of any length. Every token is scored once, after as many as fit."""
        tokens = self.client.tokenize(text, add_special_tokens=False).ids
        if not tokens:
            return 0.0
        before = [self.prefix_token_id, *tokens]  # before[i] comes before tokens[i]
        total = 0.0
        for start in range(0, len(tokens), self.max_length):
            end = min(start + self.max_length, len(tokens))
            context = before[max(end - self.max_length, 0) : start + 1]
            piece = tokens[start:end]
            if len(context) == 1:
                total += self.client.score([*context, *piece], summary_only=True).total_logprob
            else:
                total += self.loglikelihood(context, piece)[0]
        return total

    def generate_until(self, context: str, gen_kwargs: Mapping[str, Any]) -> str:
        """Greedy, unless gen_kwargs say otherwise."""
        given = dict(gen_kwargs)
        until = given.pop("until", None) or []
        sample = given.pop("do_sample", None)
        temperature = float(given.pop("temperature", 0.0))
        lengths = [given.pop(name, None) for name in _MAX_TOKENS_NAMES]
        return self.client.complete(
            context,
            stop=[text for text in ([until] if isinstance(until, str) else until) if text],
            temperature=0.0 if sample is False else temperature,
            max_new_tokens=next((int(n) for n in lengths if n is not None), 256),
            **given,
        ).text
