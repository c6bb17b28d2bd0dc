"""ONNX Runtime alone on a device: new inputs are copied in, a bound run, the outputs copied out, one after the other.

Arguments: the model, the provider (``CUDAExecutionProvider``, ``CPUExecutionProvider``), seconds for each size. Prints one JSON
object: rows a second and the median of a run in microseconds, by batch size.
"""

from __future__ import annotations

import json
import statistics
import sys
import time

import numpy as np
import onnxruntime

SIZES = (1, 2, 4, 8, 16, 32, 64)


def main() -> None:
    """Runs every size for a while."""
    model, provider, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
    session = onnxruntime.InferenceSession(model, providers=[provider])
    if provider not in session.get_providers():
        raise SystemExit(f"the session computes with {session.get_providers()}, not with {provider}")
    device = "cuda" if provider.startswith("CUDA") else "cpu"
    (spec,), (out,) = session.get_inputs(), session.get_outputs()
    random = np.random.default_rng(7)
    found = {}
    for size in SIZES:
        values = random.normal(size=(size, *spec.shape[1:])).astype(np.float32)
        inside = onnxruntime.OrtValue.ortvalue_from_numpy(values, device, 0)
        result = onnxruntime.OrtValue.ortvalue_from_shape_and_type((size, 10), np.float32, device, 0)
        binding = session.io_binding()
        binding.bind_ortvalue_input(spec.name, inside)
        binding.bind_ortvalue_output(out.name, result)
        for _ in range(20):
            session.run_with_iobinding(binding)
        took = []
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            begun = time.perf_counter()
            inside.update_inplace(values)
            session.run_with_iobinding(binding)
            result.numpy()
            took.append(time.perf_counter() - begun)
        found[size] = {"rows": size * len(took) / sum(took), "p50_us": statistics.median(took) * 1e6}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
