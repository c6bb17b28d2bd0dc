"""ONNX Runtime alone on a device: new inputs are copied in, a bound run, the outputs copied out.

First by one thread, one step after the other; then by two threads over the same session, each with memory of its own, so that one's
copies are made while the other's run goes on. Arguments: the model, the device (``cuda:0``, ``cpu``), seconds for each size. Prints
one JSON object: by batch size, for each way, rows a second and the median of a round in microseconds.
"""

from __future__ import annotations

import ctypes
import json
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, BrokenBarrierError
from typing import Any

import numpy as np
import onnxruntime

from headgate import nvidia_libraries

SIZES = (1, 2, 4, 8, 16, 32, 64)
THREADS = {"serial": 1, "overlapping": 2}
"""The ways, and how many threads each has."""
UNMEASURED = 20


def open_libraries() -> None:
    """Opens NVIDIA's libraries as Headgate does; the provider asks for them by name, and says which it does not find."""
    for path in nvidia_libraries.find():
        try:
            ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
        except OSError as error:
            print(error, file=sys.stderr)


def session_on(model: str, device: str) -> Any:
    """A session that computes on the device, or the end: the runtime itself falls back to the processor."""
    kind, _, number = device.partition(":")
    provider, options = "CPUExecutionProvider", {}
    if kind == "cuda":
        open_libraries()
        provider, options = "CUDAExecutionProvider", {"device_id": number or "0"}
    session = onnxruntime.InferenceSession(model, providers=[(provider, options)])
    if provider not in session.get_providers():
        raise SystemExit(f"the session computes with {session.get_providers()}, not with {provider}")
    return session


class Lane:
    """One thread's inputs and outputs, in memory of the device and bound to the session."""

    def __init__(self, session: Any, device: str, values: np.ndarray) -> None:
        kind, _, number = device.partition(":")
        place = (kind, int(number or 0))
        (spec,), (out,) = session.get_inputs(), session.get_outputs()
        shape = (len(values), *out.shape[1:])
        self._session = session
        self._values = values
        self._inside = onnxruntime.OrtValue.ortvalue_from_numpy(values, *place)
        self._result = onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, np.float32, *place)
        self._binding = session.io_binding()
        self._binding.bind_ortvalue_input(spec.name, self._inside)
        self._binding.bind_ortvalue_output(out.name, self._result)

    def step(self) -> None:
        """Copies in, runs, copies out."""
        self._inside.update_inplace(self._values)
        self._session.run_with_iobinding(self._binding)
        self._result.numpy()

    def steps(self, start: Barrier, seconds: float) -> list[float]:
        """Goes on for so long once all lanes are there; what each step took, in seconds."""
        try:
            for _ in range(UNMEASURED):
                self.step()
        except BaseException:
            start.abort()
            raise
        took = []
        start.wait()
        now = time.perf_counter()
        end = now + seconds
        while now < end:
            self.step()
            before, now = now, time.perf_counter()
            took.append(now - before)
        return took


def measured(lanes: Sequence[Lane], rows: int, seconds: float) -> dict[str, float]:
    """What these lanes reach together, with so many rows a step."""
    start = Barrier(len(lanes))
    with ThreadPoolExecutor(len(lanes)) as threads:
        running = [threads.submit(lane.steps, start, seconds) for lane in lanes]
    failures = [failure for one in running if (failure := one.exception()) is not None]
    for failure in failures:
        # Who failed first keeps the others from starting.
        if not isinstance(failure, BrokenBarrierError):
            raise failure
    by_lane = [one.result() for one in running]
    rate = sum(rows * len(took) / sum(took) for took in by_lane)
    return {"rows": rate, "p50_us": statistics.median(one for took in by_lane for one in took) * 1e6}


def main() -> None:
    """Runs every size for a while, each way."""
    model, device, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
    session = session_on(model, device)
    (spec,) = session.get_inputs()
    random = np.random.default_rng(7)
    found = {}
    for size in SIZES:
        shape = (size, *spec.shape[1:])
        values = [random.normal(size=shape).astype(np.float32) for _ in range(max(THREADS.values()))]
        lanes = [Lane(session, device, one) for one in values]
        found[size] = {way: measured(lanes[:count], size, seconds) for way, count in THREADS.items()}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
