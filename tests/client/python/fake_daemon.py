"""A server that answers as it is told to: with errors that are hard to have from the real one."""

from concurrent import futures

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from sluice.v1 import generate_pb2, inference_pb2_grpc, score_pb2, session_pb2, session_pb2_grpc, tokens_pb2


def failure(code, message="not now", retry_ms=None):
    """A status with details, as the daemon sends it."""
    status = status_pb2.Status(code=code.value[0], message=message)
    if retry_ms is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(retry_ms)
        detail = any_pb2.Any()
        detail.Pack(retry)
        status.details.append(detail)
    return rpc_status.to_status(status)


def text(piece):
    return generate_pb2.GenerateResponse(delta=generate_pb2.Delta(text=piece))


END = generate_pb2.GenerateResponse(finished=generate_pb2.Finished(reason=generate_pb2.FINISH_REASON_EOS))


class FakeDaemon(inference_pb2_grpc.InferenceServiceServicer, session_pb2_grpc.SessionServiceServicer):
    """Each call takes the next of `script`: what fails is a list that ends with a status (of failure()) or a bare code."""

    def __init__(self):
        self.script = []
        self.calls = []  # (method, metadata, seconds until its deadline)
        self.server = grpc.server(futures.ThreadPoolExecutor(4))
        inference_pb2_grpc.add_InferenceServiceServicer_to_server(self, self.server)
        session_pb2_grpc.add_SessionServiceServicer_to_server(self, self.server)
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()

    def _play(self, method, context):
        self.calls.append((method, dict(context.invocation_metadata()), context.time_remaining()))
        for step in self.script.pop(0):
            if isinstance(step, grpc.StatusCode):
                context.abort(step, "the connection broke")
            elif isinstance(step, grpc.Status):
                context.abort_with_status(step)
            yield step

    def Generate(self, request, context):
        yield from self._play("Generate", context)

    def Score(self, request, context):
        yield from self._play("Score", context)

    def Tokenize(self, request, context):
        return list(self._play("Tokenize", context))[0]

    def CreateSession(self, request, context):
        return list(self._play("CreateSession", context))[0]


TOKENS = tokens_pb2.TokenizeResponse(token_ids=[1, 2], pieces=["a", "b"])
SESSION = session_pb2.Session(id="a", affinity="shelf", etag="1")
SUMMARY = score_pb2.ScoreResponse(summary=score_pb2.ScoreSummary(tokens=3, scored_tokens=2, total_logprob=-4.0))
