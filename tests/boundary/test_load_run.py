"""The load generator as Python calls it, against the real gateway: HTTP, gRPC, streams, refusals, stops and forks."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headgate.errors import Conflict, HeadgateError, InvalidArgument
from support import models
from support import native as plane
from support.tools import descriptor_count, need_native, thread_count

SECOND = 1_000_000_000
LONGEST_WAIT_NS = 60 * SECOND
SERVICE = "/inference.GRPCInferenceService"
INPUTS = [{"name": "X", "datatype": "FP32", "shape": [1, 4]}]
BODY = json.dumps({"inputs": [INPUTS[0] | {"data": [1, 2, 3, 4]}]}).encode()
PATHS = {
    "http": "/v2/models/scale/infer",
    "grpc": f"{SERVICE}/ModelInfer",
    "grpc_stream": f"{SERVICE}/ModelStreamInfer",
}


@pytest.fixture
def served(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A gateway that serves the endpoint ``scale``, and ``limited`` ten times at once; its addresses."""
    need_native()
    from headgate import _native

    model = models.place(models.scale(2.0), tmp_path, "scale")
    gateway = _native.Gateway(plane.config(grpc="127.0.0.1:0"))
    addresses = json.loads(gateway.start())
    try:
        plane.serve(gateway, "scale", model)
        limited = json.loads(plane.endpoint("limited", model))
        limited["spec"]["limits"]["rate"] = {"per_second": 1, "burst": 10}
        event = plane.settle(gateway, gateway.apply(json.dumps(limited).encode()))
        assert event["event"] == "applied", event
        yield {"http": addresses["http"], "grpc": addresses["grpc"], "grpc_stream": addresses["grpc"]}
    finally:
        gateway.stop(0, 5_000)


def message(model: str) -> bytes:
    """A ``ModelInferRequest`` to an endpoint."""
    from headgate import _native

    envelope = json.dumps({"model_name": model, "inputs": INPUTS})
    return _native.encode_grpc_infer(envelope, [struct.pack("<4f", 1, 2, 3, 4)])


def plan(address: str, protocol: str, **changes: Any) -> dict[str, Any]:
    """A closed loop of 200 requests of four clients; ``changes`` replace fields."""
    values: dict[str, Any] = {
        "seed": 42,
        "threads": 1,
        "wait": "sleep",
        "timeout_ns": 20 * SECOND,
        "max_in_flight": 100,
        "max_records": 100_000,
        "load": {"closed": {"clients": 4, "for_ns": 60 * SECOND, "requests": 200}},
        "targets": [{"address": address, "authority": address, "protocol": protocol}],
        "requests": [{"target": 0, "group": "scale", "weight": 1, "path": PATHS[protocol], "body": 0}],
        "timing_share": 0.5,
        "check_share": 1.0,
    }
    return values | changes


def result_of(plan: dict[str, Any], body: bytes) -> dict[str, Any]:
    """Sends a plan; its result."""
    from headgate import _native

    run = _native.LoadRun(json.dumps(plan), [body])
    run.start()
    assert run.wait(LONGEST_WAIT_NS), run.look("{}")
    result: dict[str, Any] = json.loads(run.result('{"from_ns": 0}'))
    return result


@pytest.mark.parametrize("protocol", ["http", "grpc", "grpc_stream"])
def test_every_request_is_answered_and_every_answer_is_the_same(
    served: dict[str, str], protocol: str
) -> None:
    body = BODY if protocol == "http" else message("scale")
    result = result_of(plan(served[protocol], protocol), body)
    assert result["counts"]["good"] == 200, result["errors"]
    assert result["replies"] == {"compared": 199, "differing": 0, "example": None}
    assert result["response"]["quantiles"][0]["value_ns"] >= result["service"]["quantiles"][0]["value_ns"] > 0
    # On a stream the messages ask, since metadata belongs to all of them.
    assert 60 < result["phases"]["sampled"] < 140
    assert result["phases"]["run"]["mean_ns"] > 0
    assert result["phases"]["total"]["mean_ns"] >= result["phases"]["run"]["mean_ns"]


@pytest.mark.parametrize(
    ("protocol", "what"),
    [
        ("http", "404 model_not_found"),
        ("grpc", "NOT_FOUND"),
        ("grpc_stream", "error_message on a stream: model_not_found"),
    ],
)
def test_errors_of_the_gateway_are_told_with_an_example(
    served: dict[str, str], protocol: str, what: str
) -> None:
    wanted = plan(served[protocol], protocol)
    wanted["requests"][0]["path"] = wanted["requests"][0]["path"].replace("scale", "nothing")
    result = result_of(wanted, BODY if protocol == "http" else message("nothing"))
    assert result["counts"]["failed"] == 200
    [error] = result["errors"]
    assert (error["what"], error["count"]) == (what, 200)
    assert 'no endpoint is called "nothing"' in error["example"].replace("\\", "")


@pytest.mark.parametrize(
    ("protocol", "what"),
    [
        ("http", "429 rate_limited"),
        ("grpc", "RESOURCE_EXHAUSTED"),
        ("grpc_stream", "error_message on a stream: rate_limited"),
    ],
)
def test_refusals_of_a_busy_server_are_shed_on_every_wire(
    served: dict[str, str], protocol: str, what: str
) -> None:
    wanted = plan(served[protocol], protocol)
    wanted["requests"][0]["path"] = wanted["requests"][0]["path"].replace("scale", "limited")
    result = result_of(wanted, BODY if protocol == "http" else message("limited"))
    counts = result["counts"]
    assert counts["shed"] > 150
    assert counts["shed"] + counts["good"] == 200, result["errors"]
    [error] = result["errors"]
    assert (error["what"], error["count"]) == (what, counts["shed"])


def test_many_calls_share_connections_and_more_are_opened(served: dict[str, str]) -> None:
    load = {"closed": {"clients": 300, "for_ns": 60 * SECOND, "requests": 3000}}
    for protocol in ("grpc", "grpc_stream"):
        wanted = plan(served[protocol], protocol, load=load, max_in_flight=300, threads=2)
        result = result_of(wanted, message("scale"))
        assert result["counts"]["good"] == 3000, result["errors"]


def test_a_fault_of_a_plan_is_told_with_its_path() -> None:
    need_native()
    from headgate import _native

    stages = [{"from": 1, "to": 1, "for_ns": 1}, {"from": -3, "to": 1, "for_ns": 1}]
    load = {"open": {"arrivals": {"kind": "poisson"}, "stages": stages}}
    with pytest.raises(InvalidArgument, match=r"^load\.open\.stages\[1\]\.from: must be above 0, got -3$"):
        _native.LoadRun(json.dumps(plan("127.0.0.1:1", "http", load=load)), [BODY])
    with pytest.raises(InvalidArgument, match=r"requests\[0\]\.body: must be below the number of bodies, 0"):
        _native.LoadRun(json.dumps(plan("127.0.0.1:1", "http")), [])
    with pytest.raises(InvalidArgument, match="https is not built yet"):
        _native.LoadRun(json.dumps(plan("https://a", "http")), [BODY])


def test_a_run_is_looked_at_stopped_and_started_only_once(served: dict[str, str]) -> None:
    from headgate import _native

    stages = [{"from": 200, "to": 200, "for_ns": 600 * SECOND}]
    load = {"open": {"arrivals": {"kind": "poisson"}, "stages": stages}}
    run = _native.LoadRun(json.dumps(plan(served["http"], "http", load=load, max_records=200_000)), [BODY])
    with pytest.raises(Conflict, match="not started"):
        run.look("{}")
    run.start()
    with pytest.raises(Conflict, match="started before"):
        run.start()
    assert not run.wait(SECOND // 5)
    with pytest.raises(Conflict, match="not finished"):
        run.result("{}")
    while json.loads(run.look("{}"))["counts"]["good"] < 5:
        assert not run.wait(SECOND // 100)
    run.stop()
    assert run.wait(LONGEST_WAIT_NS)
    result = json.loads(run.result("{}"))
    assert result["interrupted"] == "stopped"
    assert result["counts"]["due"] == result["counts"]["good"]


def test_a_run_that_is_dropped_leaves_no_thread_and_no_descriptor(served: dict[str, str]) -> None:
    from headgate import _native

    load = {"closed": {"clients": 4, "for_ns": 600 * SECOND}}

    def begun() -> None:
        run = _native.LoadRun(json.dumps(plan(served["http"], "http", load=load, threads=2)), [BODY])
        run.start()
        while json.loads(run.look("{}"))["counts"]["good"] < 5:
            assert not run.wait(SECOND // 100)

    begun()
    threads = thread_count()
    descriptors = descriptor_count()
    for _ in range(5):
        begun()
    # The server may not have noticed yet that its end of a connection is closed.
    assert thread_count() <= threads
    assert descriptor_count() <= descriptors + 4


def test_a_run_made_before_a_fork_is_refused_in_the_child(served: dict[str, str]) -> None:
    from headgate import _native

    run = _native.LoadRun(json.dumps(plan(served["http"], "http")), [BODY])
    run.start()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            run.look("{}")
        except HeadgateError as error:
            code = 0 if "before a fork" in str(error) else 2
        finally:
            del run
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert run.wait(LONGEST_WAIT_NS)


@pytest.mark.parametrize("protocol", ["http", "grpc", "grpc_stream"])
def test_the_self_test_says_what_the_client_can(protocol: str) -> None:
    need_native()
    from headgate import _native

    question = {
        "seconds": 0.3,
        "rate": 500,
        "request_bytes": 200,
        "reply_bytes": 100,
        "threads": 1,
        "wait": "sleep",
        "protocol": protocol,
    }
    # A busy machine may be too late for one of the answers of a run.
    for _ in range(10):
        answer = json.loads(_native.bench_selftest(json.dumps(question)))
        assert answer["counts"]["due"] > 50
        if answer["counts"]["good"] == answer["counts"]["due"]:
            break
    assert answer["counts"]["good"] == answer["counts"]["due"]
    assert answer["lateness"]["p99_ns"] > 0
    with pytest.raises(InvalidArgument, match="^seconds: must be above 0"):
        _native.bench_selftest(json.dumps(question | {"seconds": 0}))
