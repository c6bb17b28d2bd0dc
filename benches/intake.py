"""How long a model that is taken in keeps other threads from Python: the longest pause of a second thread, and the memory it takes.

Run: ``python -m benches.intake [MEBIBYTES]``. The model is sparse: the disk has no part in it.
A thread that does nothing but look at the clock stands for an emergency call.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import threading
import time
from pathlib import Path

from onnx import TensorProto, helper

from headgate.registry import ArtifactStore

_RAW_DATA = 9
_LENGTH = 2


def varint(number: int) -> bytes:
    """A number as protobuf writes it."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def field(number: int, content: bytes) -> bytes:
    """A field of bytes."""
    return varint(number << 3 | _LENGTH) + varint(len(content)) + content


def write_sparse(path: Path, size: int) -> None:
    """``Y = X + w`` with a tensor ``w`` of ``size`` zero bytes, which take no room on the disk."""
    head = TensorProto(name="w", data_type=TensorProto.UINT8, dims=[size]).SerializeToString()
    raw = varint(_RAW_DATA << 3 | _LENGTH) + varint(size)
    tensor = len(head) + len(raw) + size
    graph = helper.make_graph(
        [helper.make_node("Identity", ["w"], ["Y"])],
        "sparse",
        [],
        [helper.make_tensor_value_info("Y", TensorProto.UINT8, [size])],
    ).SerializeToString()
    inner = varint(5 << 3 | _LENGTH) + varint(tensor)
    model = helper.make_model(helper.make_graph([], "g", [], []), opset_imports=[helper.make_opsetid("", 17)])
    model.ClearField("graph")
    outer = varint(7 << 3 | _LENGTH) + varint(len(graph) + len(inner) + tensor)
    with path.open("wb") as file:
        file.write(model.SerializeToString() + outer + graph + inner + head + raw)
        file.truncate(file.tell() + size)


class Watch:
    """A thread that looks at the clock; the longest time between two looks is what it was kept from Python."""

    def __init__(self) -> None:
        """Begins at once."""
        self.longest = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        last = time.perf_counter()
        while not self._stop.wait(0.001):
            now = time.perf_counter()
            self.longest = max(self.longest, now - last)
            last = now

    def stop(self) -> float:
        """The longest pause, in seconds."""
        self._stop.set()
        self._thread.join()
        return self.longest


def main() -> None:
    """Prints one line of JSON for each step."""
    size = int(sys.argv[1]) if len(sys.argv) > 1 else 900
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.onnx"
        write_sparse(model, size << 20)
        store = ArtifactStore(Path(folder) / "state")
        digest = ""
        for step in ("fingerprint", "ingest", "verify"):
            begun, watch = time.perf_counter(), Watch()
            if step == "fingerprint":
                store.fingerprint(model)
            elif step == "ingest":
                digest = store.ingest(model)
            else:
                store.verify(digest)
            pause = watch.stop()
            took = time.perf_counter() - begun
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
            line = {
                "step": step,
                "mebibytes": size,
                "seconds": round(took, 2),
                "longest_pause_ms": round(pause * 1000, 1),
            }
            print(json.dumps({**line, "peak_memory_mebibytes": peak}))


if __name__ == "__main__":
    main()
