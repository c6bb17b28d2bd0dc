"""Callgrind's files as ``make bench-profile`` reads them."""

from __future__ import annotations

from benches import callgrind

COUNTS = """\
version: 1
creator: callgrind-3.19.0
positions: instr line
events: Ir

ob=(1) /lib/native.so
fl=(1) a.rs
fn=(1) hyper::serve
0x1000 10 20
+4 +1 20
fi=(2) inlined.rs
+3c 5 10
fe=(1)
cob=(2) /lib/libonnxruntime.so.1
cfi=(3) run.cc
cfn=(2) Run
calls=10 0x9000 1
* 12 700
* 12 10
fn=(3) core::ptr::drop_in_place<<headgate_core::Kept as h2::Kept>>
0x1041 1 2

ob=(2)
fl=(3)
fn=(2)
0x9000 1 600
-0x10 * 100
"""


def test_counts_are_told_apart_by_function_object_and_file() -> None:
    counts = callgrind.parse(COUNTS.splitlines())
    dropped = "core::ptr::drop_in_place<<headgate_core::Kept as h2::Kept>>"
    assert counts.own == {"hyper::serve": 60, dropped: 2, "Run": 700}
    assert counts.whole["hyper::serve"] == 760
    assert counts.objects == {"/lib/native.so": 62, "/lib/libonnxruntime.so.1": 700}
    assert counts.sources == {"a.rs": 52, "inlined.rs": 10, "run.cc": 700}
    assert counts.total == 762
    assert counts.of_object("onnxruntime") == 700
    assert counts.of_crates(frozenset({"hyper", "h2"})) == 60


def test_a_line_of_code_counts_once_and_by_its_most_executed_instruction() -> None:
    counts = callgrind.parse(COUNTS.splitlines())
    ours = {address: most for (name, address), most in counts.lines.items() if "native" in name}
    assert ours == {0x1000 >> 6: 20, 0x1040 >> 6: 10}
    assert counts.lines_of() == 4
    assert counts.lines_of(without="onnxruntime") == 2
    assert counts.lines_of(20, without="onnxruntime") == 1


def test_the_crate_of_a_function_is_that_of_its_type() -> None:
    names = {
        "h2::proto::streams::Store::find": "h2",
        "<hyper::server::conn::http2::Connection<T> as core::future::Future>::poll": "hyper",
        "<&mut h2::Codec as futures::Sink>::poll_ready": "h2",
        "core::ptr::drop_in_place<h2::frame::Data>": "h2",
        "headgate_server::call::grpc::handle": "headgate_server",
        "__memcpy_avx_unaligned_erms": "",
    }
    assert {name: callgrind.crate(name) for name in names} == names
