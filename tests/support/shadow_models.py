"""A small classifier and challengers of it, each with one thing wrong.

All of them take X FP32 [rows, 4] and give `scores` FP32 [rows, 3] and `label` INT64 [rows]. The first column of X, from 0 to 1, says which
rows a challenger is wrong on, so that a test knows what to expect by running both models itself. Read next: ``e2e/test_shadows``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from support.models import OPSETS

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
#: Rows whose first column is above this are those that a challenger is wrong on, or, for the one that hangs, above the second bound.
WRONG_ABOVE, HANGS_ABOVE = 0.8, 0.97
WEIGHTS = np.random.default_rng(5).normal(size=(4, 3)).astype(np.float32)


@dataclass
class Graph:
    """The nodes and constants of a model, as they are added."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Adds a node; the name of its output."""
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def constant(self, name: str, value: NDArray[Any] | np.generic) -> str:
        """Adds a constant; its name."""
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def is_wrong(self, above: float = WRONG_ABOVE) -> str:
        """BOOL [rows, 1]: whether a challenger is wrong on the row."""
        first = self.constant("first", np.array([[1], [0], [0], [0]], np.float32))
        bound = self.constant("bound", np.float32(above))
        return self.add("Greater", [self.add("MatMul", ["X", first], "column"), bound], "wrong")


def classifier(change: Callable[[Graph], str] | None = None) -> onnx.ModelProto:
    """The champion; or a challenger, whose scores are those that ``change`` makes of `raw`."""
    graph = Graph()
    graph.add("MatMul", ["X", graph.constant("weights", WEIGHTS)], "raw")
    scores = change(graph) if change is not None else "raw"
    graph.add("Identity", [scores], "scores")
    graph.add("ArgMax", ["scores"], "label", axis=1, keepdims=0)
    made = helper.make_graph(
        graph.nodes,
        "classifier",
        [helper.make_tensor_value_info("X", FLOAT, ["rows", 4])],
        [
            helper.make_tensor_value_info("scores", FLOAT, ["rows", 3]),
            helper.make_tensor_value_info("label", INT64, ["rows"]),
        ],
        graph.constants,
    )
    return helper.make_model(made, opset_imports=OPSETS, ir_version=8)


def wrong_on_one_class(graph: Graph) -> str:
    """Takes two classes for each other where the champion says 2."""
    graph.add("ArgMax", ["raw"], "champions", axis=1, keepdims=1)
    is_two = graph.add("Equal", ["champions", graph.constant("two", np.int64(2))], "is_two")
    order = graph.constant("order", np.array([0, 2, 1], np.int64))
    return graph.add("Where", [is_two, graph.add("Gather", ["raw", order], "swapped", axis=1), "raw"], "made")


def permuted(graph: Graph) -> str:
    """The scores of the classes in another order."""
    return graph.add(
        "Gather", ["raw", graph.constant("order", np.array([1, 2, 0], np.int64))], "made", axis=1
    )


def not_a_number(graph: Graph) -> str:
    """NaN for the rows that it is wrong on."""
    nan = graph.constant("nan", np.float32(np.nan))
    return graph.add("Where", [graph.is_wrong(), nan, "raw"], "made")


def failing(graph: Graph) -> str:
    """Fails on a request with a row that it is wrong on: an index is out of range."""
    seven = graph.constant("seven", np.int64(7))
    cast = graph.add("Cast", [graph.is_wrong()], "as_number", to=INT64)
    index = graph.add("Mul", [graph.add("ReduceMax", [cast], "any_wrong", keepdims=0), seven], "index")
    one = graph.constant("one", np.ones(1, np.float32))
    return graph.add("Mul", ["raw", graph.add("Gather", [one, index], "factor")], "made")


def hanging(graph: Graph) -> str:
    """Runs for ever on a request with a row that it hangs on: a loop without an end."""
    body = helper.make_graph(
        [
            helper.make_node("Add", ["carried", "carried"], ["next"]),
            helper.make_node("Identity", ["go_on"], ["go_on_next"]),
        ],
        "round",
        [
            helper.make_tensor_value_info("round", INT64, []),
            helper.make_tensor_value_info("go_on", BOOL, []),
            helper.make_tensor_value_info("carried", FLOAT, [1]),
        ],
        [
            helper.make_tensor_value_info("go_on_next", BOOL, []),
            helper.make_tensor_value_info("next", FLOAT, [1]),
        ],
    )
    cast = graph.add("Cast", [graph.is_wrong(HANGS_ABOVE)], "as_number", to=INT64)
    endless = graph.constant("endless", np.int64(1 << 62))
    trips = graph.add("Mul", [graph.add("ReduceMax", [cast], "any_wrong", keepdims=0), endless], "trips")
    yes, zero = graph.constant("yes", np.array(True)), graph.constant("zero", np.zeros(1, np.float32))
    return graph.add("Add", ["raw", graph.add("Loop", [trips, yes, zero], "nothing", body=body)], "made")
