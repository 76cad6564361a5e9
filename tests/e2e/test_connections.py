"""The listener: bounds on connections, and a daemon that runs out of file descriptors."""

import socket

import grpc
import pytest

from harness import model_pb2, wait_until


def connect(daemon):
    host, port = daemon.address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), timeout=10)


def is_closed_by_peer(connection):
    """gRPC greets with a settings frame; a connection that was shed ends without a byte."""
    connection.settimeout(10)
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def read_to_the_end(connection):
    """How it ended: "at once", or "greeted" by gRPC before."""
    connection.settimeout(10)
    try:
        got = connection.recv(4096)
        while got and connection.recv(4096):
            pass
    except ConnectionResetError:
        return "at once"
    return "greeted" if got else "at once"


def test_runs_out_of_file_descriptors_and_serves_again(start_daemon):
    daemon = start_daemon(wrapper=("bash", "-c", 'ulimit -n 64; exec "$@"', "bash"))
    daemon.channel.close()
    connections = [connect(daemon) for _ in range(150)]
    # The oldest of those that never call make room for the newest; some never had a descriptor.
    ended = [read_to_the_end(c) for c in connections[:100]]
    assert all(ended), "the oldest are closed"
    shed = ended.count("at once")
    for c in connections:
        c.close()
    wait_until(lambda: daemon.metrics()["sluice_connections"] == 0, "no connection is left")
    samples = daemon.metrics()
    counted = sum(v for k, v in samples.items() if k.startswith("sluice_connections_shed_total"))
    assert shed <= counted < 150
    assert samples["sluice_connections_accepted_total"] == 150 - counted
    assert samples["sluice_connections_evicted_total{reason=no_call}"] >= 100 - counted
    assert daemon.stub().GetModel(model_pb2.GetModelRequest(), timeout=10).name == "classics-12m"


def test_bounds_on_connections(start_daemon):
    daemon = start_daemon("--max_connections=4")
    inside = [daemon.stub() for _ in range(4)]
    for stub in inside:
        stub.GetModel(model_pb2.GetModelRequest(), timeout=10)
    assert is_closed_by_peer(connect(daemon))
    with pytest.raises(grpc.RpcError) as error:
        daemon.stub().GetModel(model_pb2.GetModelRequest(), timeout=5)
    assert error.value.code() == grpc.StatusCode.UNAVAILABLE
    # Who is in already does not notice.
    for stub in inside:
        stub.GetModel(model_pb2.GetModelRequest(), timeout=10)
    assert daemon.metrics()["sluice_connections_shed_total{reason=max_connections}"] >= 2
    daemon.close_channels()
    wait_until(lambda: daemon.metrics()["sluice_connections"] == 0, "the others are gone")
    daemon.stub().GetModel(model_pb2.GetModelRequest(), timeout=10)


def test_bounds_on_connections_of_one_peer(start_daemon):
    daemon = start_daemon("--max_connections_per_peer=2")
    daemon.inference.GetModel(model_pb2.GetModelRequest(), timeout=10)
    second = connect(daemon)
    assert not is_closed_by_peer(second)
    third = connect(daemon)
    assert is_closed_by_peer(third)
    assert daemon.metrics()["sluice_connections_shed_total{reason=max_connections_per_peer}"] == 1


def test_a_connection_that_never_speaks_is_closed(start_daemon):
    daemon = start_daemon()
    silent = connect(daemon)
    silent.settimeout(20)
    while silent.recv(4096):
        pass
    assert daemon.metrics()["sluice_connections"] <= 1


def test_streams_through_the_listener_survive_others_churn(start_daemon):
    daemon = start_daemon()
    expected = daemon.generate("Once upon a time").sequences[0].bits()
    for _ in range(300):
        connect(daemon).close()
    assert daemon.generate("Once upon a time").sequences[0].bits() == expected
    wait_until(lambda: daemon.metrics()["sluice_connections"] == 1, "only ours is left")
