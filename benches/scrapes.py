"""What a scrape costs for each version: bytes of the page, and the time that the data plane takes to write it.

Not here: the observe port, which makes one page at a time and serves it for a second. Run: ``python -m benches.scrapes``.
"""

from __future__ import annotations

import argparse
import gzip
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from benches.host import Host, tiny

FORMS = {"full": False, "compact": True}


def held_up(plane: Any, compact: bool) -> float:
    """The longest that another Python thread waits for its turn while a page is written, in milliseconds."""
    done = threading.Event()
    worst = 0.0

    def watch() -> None:
        nonlocal worst
        while not done.is_set():
            begun = time.perf_counter()
            time.sleep(0.001)
            worst = max(worst, time.perf_counter() - begun - 0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    plane.exposition(False, compact)
    done.set()
    watcher.join()
    return worst * 1e3


def main() -> None:
    """Prints a row for each form."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--versions", type=int, default=1000)
    versions = arguments.parse_args().versions
    with tempfile.TemporaryDirectory() as folder:
        model = tiny(Path(folder) / "tiny.onnx", 2.0)
        host = Host({})
        plane = host.plane
        sizes = {form: len(plane.exposition(False, compact)) for form, compact in FORMS.items()}
        for number in range(versions):
            host.apply(f"endpoint-{number}", [("v1", "sha256:tiny", model)])
            host.ask(f"endpoint-{number}")
        for form, compact in FORMS.items():
            begun = time.perf_counter()
            page = plane.exposition(False, compact)
            took = time.perf_counter() - begun
            each = (len(page) - sizes[form]) / versions
            packed = len(gzip.compress(page, 1)) / versions
            print(
                f"{form}: {len(page) / 1e6:.2f} MB, {each:.0f} bytes a version ({packed:.0f} in gzip), "
                f"{took * 1e6 / versions:.1f} us a version, others waited {held_up(plane, compact):.1f} ms at most"
            )
        plane.stop(0, 0)


if __name__ == "__main__":
    main()
