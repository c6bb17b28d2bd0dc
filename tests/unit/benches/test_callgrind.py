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


def test_a_line_of_code_counts_once_and_by_its_most_executed_instruction() -> None:
    counts = callgrind.parse(COUNTS.splitlines())
    ours = {address: most for (name, address), most in counts.lines.items() if "native" in name}
    assert ours == {0x1000 >> 6: 20, 0x1040 >> 6: 10}
    assert counts.lines_of() == 4
    assert counts.lines_of(without="onnxruntime") == 2
    assert counts.lines_of(20, without="onnxruntime") == 1


CALLS = """\
positions: instr line
events: Ir
ob=(1) native.so
fn=(1) ours
0x1 1 10
cob=(2) libonnxruntime.so
cfn=(2) Run
calls=1 0x9 1
0x2 1 500
cob=(3) libc.so
cfn=(3) malloc
calls=1 0x9 1
0x3 1 30

ob=(2)
fn=(2)
0x9 1 410
cob=(3)
cfn=(3)
calls=1 0x9 1
0xa 1 90

ob=(3)
fn=(3)
0x20 1 80
cfn=(4) grow
calls=1 0x30 1
0x21 1 40
fn=(4)
0x30 1 40
"""


def test_what_a_library_calls_is_charged_to_it_by_its_share() -> None:
    counts = callgrind.parse(CALLS.splitlines())
    # Three quarters of malloc, and of what it calls.
    assert counts.called_by("onnxruntime") == 410 + 0.75 * 120
    assert counts.called_by("libc") == 120
    assert counts.called("malloc") == 120
    assert counts.called("Run") == 500
