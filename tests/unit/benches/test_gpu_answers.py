"""When answers count as wrong, and that the models of the corners are what they are there for."""

from __future__ import annotations

import json

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator

from benches.gpu import corners
from benches.gpu.answers import apart, decoded, furthest, request_of

RIGHT = np.array([100.0, 0.0, -1.0], np.float32)


def wrong(answer: np.ndarray, right: np.ndarray = RIGHT, *, exact: bool = False) -> bool:
    (found,) = apart({"Y": answer}, {"Y": right}, exact=exact)
    return found.wrong


@pytest.mark.parametrize(("off", "is_wrong"), [(0.0, False), (1.9, False), (2.1, True), (-2.1, True)])
def test_what_is_too_far_is_a_share_of_the_largest_magnitude(off: float, is_wrong: bool) -> None:
    assert wrong(RIGHT + np.array([0, off, 0], np.float32)) == is_wrong


def test_where_equality_is_asked_for_the_least_difference_is_wrong() -> None:
    assert not wrong(RIGHT.copy(), exact=True)
    assert wrong(np.nextafter(RIGHT, np.float32(200)), exact=True)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_wrong_unless_both_say_so(value: float) -> None:
    answer = RIGHT.copy()
    answer[1] = value
    assert wrong(answer)
    assert wrong(RIGHT, answer)
    assert not wrong(answer, answer.copy(), exact=True)


def test_another_shape_or_type_is_wrong() -> None:
    assert wrong(RIGHT[:2])
    assert wrong(RIGHT.reshape(1, 3))
    assert wrong(RIGHT.astype(np.float64))
    assert wrong(np.zeros((2, 0), np.int64), np.zeros((2, 1), np.int64))
    assert not wrong(np.zeros((2, 0), np.int64), np.zeros((2, 0), np.int64))


def test_whole_numbers_must_be_equal_and_halves_may_be_as_far_as_floats() -> None:
    assert wrong(np.array([1000, 1]), np.array([1000, 0]))
    assert wrong(np.array([True]), np.array([False]))
    half = np.array([100, 0], np.float16)
    assert not wrong(half + np.float16(1), half)
    assert wrong(np.array([1.0, 1e-5]), np.array([1.0, 0.0]))


def test_another_set_of_outputs_ends_the_bench() -> None:
    with pytest.raises(SystemExit, match="Z"):
        apart({"Z": RIGHT}, {"Y": RIGHT})


def test_of_each_output_the_furthest_is_kept() -> None:
    off = RIGHT + np.float32(5)
    found = furthest([*apart({"Y": RIGHT}, {"Y": RIGHT}), *apart({"Y": off}, {"Y": RIGHT})])
    assert [one.wrong for one in found] == [True]
    assert "Y (FP32) 0.05, allowed 0.02" in str(found[0])


def test_a_request_carries_its_tensors_as_an_answer_does() -> None:
    inputs = {"X": RIGHT.reshape(3, 1), "S": np.array([3, -1], np.int64)}
    request = request_of(inputs)
    length = int(request.headers["Inference-Header-Content-Length"])
    head = json.loads(request.body[:length])
    assert request.rows == 3
    assert head["parameters"] == {"binary_data_output": True}
    answer = json.dumps({"outputs": head["inputs"]}).encode()
    back = decoded(answer + request.body[length:], len(answer))
    for name, values in inputs.items():
        np.testing.assert_array_equal(back[name], values)


@pytest.mark.parametrize("corner", corners.corners(), ids=lambda corner: corner.name)
def test_the_corners_are_exact_in_the_mantissa_of_a_device(corner: corners.Corner) -> None:
    for request in corner.requests:
        for values in request.values():
            # Ten bits, and the one that is not written.
            assert np.array_equal(values, np.round(values))
            assert np.abs(values).max() < 2**11
    assert json.loads(corner.warmup())["inputs"][0]["shape"] == list(corner.requests[0]["X"].shape)


def test_the_corners_have_outputs_of_several_shapes_and_repeat_a_shape_with_other_values() -> None:
    shapes = {}
    for corner in (corners.reshaped(), corners.counted()):
        model = ReferenceEvaluator(corner.model)
        shapes[corner.name] = [model.run(["Y"], request)[0].shape for request in corner.requests]
    assert shapes["reshaped"] == [(4, 6), (8, 3), (3, 8), (12, 2), (24, 1), (4, 6)]
    assert len(set(shapes["counted"])) > 3
    assert shapes["counted"][-1] == (2, 0)
    for corner in corners.corners():
        first, second = (request["X"] for request in corner.requests[:2])
        assert first.shape == second.shape
        assert not np.array_equal(first, second)


def test_no_row_is_near_a_threshold_of_the_trees() -> None:
    corner = corners.trees()
    model = ReferenceEvaluator(corner.model)
    seen = {float(value) for request in corner.requests for value in model.run(["Y"], request)[0].ravel()}
    # Both trees take both ways.
    assert seen == {1.0 + 4.0, 1.0 + 0.5, -2.5 + 4.0, -2.5 + 0.5}
