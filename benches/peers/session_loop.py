"""ONNX Runtime alone: runs a model at several batch sizes for a while each, and prints the CPU time of one row.

One thread, inputs and outputs bound once: Python adds about three microseconds to each run. Argument: the model.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import onnxruntime

SIZES = (1, 2, 4, 8, 16, 32, 64)
SECONDS = 0.4


def main() -> None:
    """Prints one JSON object: nanoseconds of CPU time per row, by batch size."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
    (spec,) = session.get_inputs()
    random = np.random.default_rng(7)
    found = {}
    for size in SIZES:
        values = random.normal(size=(size, *spec.shape[1:])).astype(np.float32)
        binding = session.io_binding()
        binding.bind_cpu_input(spec.name, values)
        binding.bind_output(session.get_outputs()[0].name)
        session.run_with_iobinding(binding)
        begun, runs = time.process_time(), 0
        while time.process_time() - begun < SECONDS:
            session.run_with_iobinding(binding)
            runs += 1
        found[size] = (time.process_time() - begun) * 1e9 / runs / size
    print(json.dumps(found))


if __name__ == "__main__":
    main()
