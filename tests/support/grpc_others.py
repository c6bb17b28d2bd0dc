"""Malformed gRPC calls beside a single ``ModelInfer``: other methods, streams, deadlines. Part of ``conformance/cases_grpc``."""

from __future__ import annotations

import gzip

from support.grpc_calls import (
    DEADLINE,
    DENIED,
    EXHAUSTED,
    GOOD,
    INVALID,
    MAX_BODY,
    NOT_FOUND,
    PAIR,
    RAW,
    UNIMPLEMENTED,
    A,
    B,
    Call,
)
from support.grpc_wire import blob, bool_value, entry, frame, request, tag, text_value, varint, whole


def others() -> list[Call]:
    """Calls beside ``ModelInfer``: which there are, what they take, and whom they are about."""
    unknown = blob(1, "none")
    repository = {"RepositoryModelLoad": blob(2, "pair"), "RepositoryModelUnload": blob(2, "pair")}
    memory = blob(1, "r")
    rows = [
        ("ModelMetadata", unknown, NOT_FOUND, '"none"'),
        ("ModelMetadata", blob(1, "pair") + blob(2, "9"), NOT_FOUND, '"9"'),
        ("ModelMetadata", b"", NOT_FOUND, '""'),
        ("ModelConfig", unknown, NOT_FOUND, '"none"'),
        ("ModelStatistics", unknown, NOT_FOUND, '"none"'),
        ("RepositoryIndex", unknown, NOT_FOUND, '"none"'),
        *[(name, message, DENIED, "--allow-repository-control") for name, message in repository.items()],
        ("SystemSharedMemoryRegister", memory, UNIMPLEMENTED, "shared memory"),
        ("CudaSharedMemoryRegister", memory, UNIMPLEMENTED, "shared memory"),
        ("TraceSetting", blob(1, entry("trace_level", blob(1, "MAX"))), DENIED, "--allow-repository-control"),
        ("LogSettings", blob(1, entry("log_info", bool_value(0))), DENIED, "--allow-repository-control"),
        ("/grpc.health.v1.Health/Check", unknown, NOT_FOUND, '"none"'),
        ("/inference.GRPCInferenceService", b"", UNIMPLEMENTED, "GRPCInferenceService"),
        ("/inference.Nobody/ModelInfer", PAIR, UNIMPLEMENTED, "Nobody"),
        ("/", b"", UNIMPLEMENTED, "/"),
        ("/v2/models/pair/infer", PAIR, UNIMPLEMENTED, "/v2/models/pair/infer"),
    ]
    unreadable = [
        ("other-kind", "ModelMetadata", frame(whole(1, 1))),
        ("not-utf-8", "ModelMetadata", frame(blob(1, b"\xff"))),
        ("field-cut-off", "ModelConfig", frame(tag(1, 2) + varint(9))),
        ("unknown-field-cut-off", "ServerLive", frame(tag(15, 0))),
        ("no-message", "ServerLive", b""),
        ("flag-2", "ServerLive", frame(b"", 2)),
        ("message-cut-off", "ServerLive", frame(b"", length=9)),
        ("trailing-bytes", "ServerLive", frame(b"") + bytes(3)),
        ("corrupt-gzip", "ServerLive", frame(b"abc", 1)),
    ]
    over = frame(b"", length=MAX_BODY + 1)
    bomb = frame(gzip.compress(bytes(64 * MAX_BODY)), 1)
    return [
        *[
            Call(f"call-{place}-{method}", frame(message), status, mentions, method)
            for place, (method, message, status, mentions) in enumerate(rows)
        ],
        *[
            Call(f"call-{method}", frame(b""), UNIMPLEMENTED, method, method)
            for method in ("Nothing", "modelInfer")
        ],
        *[
            Call(f"call-{name}", body, INVALID, "", method, {"grpc-encoding": "gzip"})
            for name, method, body in unreadable
        ],
        Call("call-two-messages", frame(b"") * 2, INVALID, "", "ServerLive"),
        Call("call-brotli", frame(b"", 1), UNIMPLEMENTED, "br", "ServerLive", {"grpc-encoding": "br"}),
        Call("call-gzip-bomb", bomb, EXHAUSTED, "", "ServerLive", {"grpc-encoding": "gzip"}),
        Call("call-claims-more-than-the-limit", over, EXHAUSTED, "", "ServerLive"),
        Call("call-over-the-limit", frame(bytes(MAX_BODY + 1)), EXHAUSTED, "--max-body", "ServerLive"),
    ]


def streams() -> list[Call]:
    """``ModelStreamInfer``: a bad request is said in its answer, a bad frame or an impatient client ends the call."""
    method = "ModelStreamInfer"
    wants = {"triton_grpc_error": "true"}
    late = {"grpc-timeout": "0n"}
    bad = [
        ("unknown-model", request([A, B], RAW, model="none"), NOT_FOUND, '"none"'),
        ("not-protobuf", PAIR + tag(15, 0), INVALID, "not well-formed protobuf"),
        ("no-inputs", request(), INVALID, '"A" is missing'),
        ("shared-memory", request([A + blob(4, entry("shared_memory_region", text_value("r")))]), UNIMPLEMENTED, "shared"),
        ("empty", b"", NOT_FOUND, '""'),
    ]  # fmt: skip
    return [
        *[Call(f"stream-said-{name}", frame(message), status, mentions, method, said=True)
          for name, message, status, mentions in bad],
        *[Call(f"stream-ends-{name}", frame(message), status, mentions, method, wants)
          for name, message, status, mentions in bad],
        Call("stream-flag-2", frame(PAIR, 2), INVALID, "flag", method),
        Call("stream-cut-off", frame(PAIR, length=1000), INVALID, "", method),
        Call("stream-corrupt-gzip", frame(b"abc", 1), INVALID, "", method, {"grpc-encoding": "gzip"}),
        Call("stream-brotli", frame(PAIR, 1), UNIMPLEMENTED, "br", method, {"grpc-encoding": "br"}),
        Call("stream-gzip-bomb", frame(gzip.compress(bytes(64 * MAX_BODY)), 1), EXHAUSTED, "--max-body", method,
             {"grpc-encoding": "gzip"}),
        Call("stream-over-the-limit", frame(b"", length=MAX_BODY + 1), EXHAUSTED, "--max-body", method),
        Call("stream-late", GOOD, DEADLINE, "deadline", method, late),
    ]  # fmt: skip


def deadlines() -> list[Call]:
    """``grpc-timeout``: of a form that it does not have, or over before the run."""
    wrong = ["", "S", "1", "-1S", "+1S", "1 S", "1.5S", "123456789S", "1s", "1SS", "0x1S", "S1", "infinite"]
    return [
        *[
            Call(f"timeout-{place}", GOOD, INVALID, "grpc-timeout", headers={"grpc-timeout": value})
            for place, value in enumerate(wrong)
        ],
        *[
            Call(f"timeout-{value}", GOOD, DEADLINE, "deadline", headers={"grpc-timeout": value})
            for value in ("0n", "1n", "0H")
        ],
        Call("timeout-stream", GOOD, INVALID, "grpc-timeout", "ModelStreamInfer", {"grpc-timeout": "1s"}),
        Call("timeout-live", frame(b""), INVALID, "", "ServerLive", {"grpc-timeout": "1s"}),
        Call("timeout-live-0", frame(b""), DEADLINE, "", "ServerLive", {"grpc-timeout": "0n"}),
    ]


CASES = [*others(), *streams(), *deadlines()]
