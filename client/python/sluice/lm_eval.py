"""The model "sluice" of lm-eval (PyPI lm-eval; `pip install "sluice-client[lm-eval]"`).

    sluice-lm-eval run --model sluice --model_args target=localhost:50051 --tasks ...

is lm-eval's own command, which knows this model too. Elsewhere, importing this module registers it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from tqdm import tqdm

from sluice._channel import TLS
from sluice._evaluation import Evaluation
from sluice._sync import Client

T = TypeVar("T")


@register_model("sluice")
class SluiceLM(TemplateLM):
    """Scores and generates at a daemon, `num_concurrent` requests at a time.

    `max_length`: tokens of context of a score; default: what the daemon allows, so that texts are
    scored whole.
    """

    def __init__(
        self,
        target: str = "localhost:50051",
        token: str | None = None,
        tls: bool = False,
        tls_ca: str | None = None,
        tls_cert: str | None = None,
        tls_key: str | None = None,
        num_concurrent: int = 8,
        max_length: int | None = None,
        **_: Any,  # batch_size, device and the like: the daemon's own affair
    ) -> None:
        super().__init__()
        files = TLS(ca=tls_ca, cert=tls_cert, key=tls_key) if tls_ca or tls_cert else tls
        self._evaluation = Evaluation(Client(target, token=token, tls=files), max_length)
        self._concurrent = num_concurrent

    @property
    def eot_token_id(self) -> int:
        return self._evaluation.eot_token_id

    @property
    def prefix_token_id(self) -> int:
        return self._evaluation.prefix_token_id

    @property
    def max_length(self) -> int:
        return self._evaluation.max_length

    @property
    def tokenizer_name(self) -> str:
        return f"sluice-{self._evaluation.model.fingerprint}"

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: Any
    ) -> list[int]:
        tokens = self._evaluation.client.tokenize(string, add_special_tokens=add_special_tokens)
        return tokens.ids

    def _loglikelihood_tokens(
        self, requests: Any, disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        def one(request: Any) -> tuple[float, bool]:
            key, context, continuation = request
            answer = self._evaluation.loglikelihood(context, continuation)
            self.cache_hook.add_partial("loglikelihood", key, answer)
            return answer

        return self._map(one, requests, "loglikelihood", disable_tqdm)

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
        def one(text: str) -> float:
            answer = self._evaluation.loglikelihood_rolling(text)
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), answer)
            return answer

        texts = [request.args[0] for request in requests]
        return self._map(one, texts, "loglikelihood_rolling", disable_tqdm)

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
        def one(args: Any) -> str:
            answer = self._evaluation.generate_until(*args)
            self.cache_hook.add_partial("generate_until", args, answer)
            return answer

        arguments = [request.args for request in requests]
        return self._map(one, arguments, "generate_until", disable_tqdm)

    def _map(
        self, one: Callable[[Any], T], requests: Iterable[Any], what: str, disable_tqdm: bool
    ) -> list[T]:
        requests = list(requests)
        with ThreadPoolExecutor(self._concurrent) as pool:
            answers = pool.map(one, requests)
            return list(tqdm(answers, desc=what, total=len(requests), disable=disable_tqdm))


def main() -> None:
    """lm-eval's command line, with "sluice" among its models."""
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()


if __name__ == "__main__":
    main()
