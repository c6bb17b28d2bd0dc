"""Whether the generator adds to what it measures near the capacity of a server: its service times beside those on the wire.

The wire's times are the kernel's, of the first packet of each request and of its answer (packet(7)), so that they need CAP_NET_RAW. A model
runs inline, where requests that the server has not read yet wait in its sockets, and in the pool. Read next: ``load``.
"""

from __future__ import annotations

import json
import socket
import statistics
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import onnx

from benches.batches import mlp
from benches.generator import Generator, Request, at_rate, closed
from benches.servers import Launcher

WIDTH = 2048
SHARES = (0.2, 0.5, 0.7, 0.85, 0.95)
"""Of what a closed loop of two clients reaches."""
DOCUMENT = """
apiVersion: headgate/v1
kind: Endpoint
name: {name}
versions: {{v1: {{model: "file:models/{name}/1", run: {{placement: {name}}}}}}}
traffic: {{champion: v1}}
"""
_ALL_PROTOCOLS, _TIMESTAMPNS, _TCP, _ETHERNET = 0x0003, 35, 6, 14
_BUFFER = 64 << 20


@dataclass
class Sniffer:
    """Durations from a request's first packet to its answer's, on connections that have one request at a time."""

    port: int
    durations: list[int] = field(default_factory=list)
    """Nanoseconds."""
    _asked: dict[int, int] = field(default_factory=dict)
    _ended: threading.Event = field(default_factory=threading.Event)

    def listen(self, sock: socket.socket) -> None:
        """Takes packets until it is ended."""
        while not self._ended.is_set():
            try:
                data, extra, _, address = sock.recvmsg(128, 128)
            except TimeoutError:
                continue
            # The loopback interface shows each packet as it leaves, and again as it comes.
            if address[2] == socket.PACKET_OUTGOING and extra:
                seconds, nanoseconds = struct.unpack("qq", extra[0][2])
                self.take(data[_ETHERNET:], seconds * 1_000_000_000 + nanoseconds)

    def end(self) -> None:
        """Lets ``listen`` return."""
        self._ended.set()

    def take(self, packet: bytes, at_ns: int) -> None:
        """A packet of IPv4."""
        if packet[0] >> 4 != 4 or packet[9] != _TCP:
            return
        head = (packet[0] & 15) * 4
        source, target = struct.unpack("!HH", packet[head : head + 4])
        payload = struct.unpack("!H", packet[2:4])[0] - head - (packet[head + 12] >> 4) * 4
        if payload <= 0:
            return
        if target == self.port:
            self._asked.setdefault(source, at_ns)
        elif source == self.port and target in self._asked:
            self.durations.append(at_ns - self._asked.pop(target))


@contextmanager
def sniffing(port: int) -> Iterator[Sniffer]:
    """Listens on the loopback interface while the block runs; ``PermissionError`` without the right to."""
    sniffer = Sniffer(port)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL_PROTOCOLS)) as sock:
        sock.bind(("lo", 0))
        sock.setsockopt(socket.SOL_SOCKET, _TIMESTAMPNS, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        sock.settimeout(0.2)
        thread = threading.Thread(target=sniffer.listen, args=(sock,))
        thread.start()
        try:
            yield sniffer
        finally:
            sniffer.end()
            thread.join()


def lines(launcher: Launcher, seconds: int, core: int) -> list[str]:
    """A table of both placements at some shares of their capacity."""
    table = [
        "## Near the capacity of a server: the generator's service times beside the wire's",
        "",
        "Medians and means in us. `total` is what the server says; a request that it has not read yet is in none of its phases.",
        "",
        "| placement | share | rate/s | service p50 | wire p50 | total p50 | service mean | wire mean | total mean | client's CPU |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name in ("inline", "pool"):
        try:
            table += _rows(name, launcher, seconds, core)
        except PermissionError:
            return [*table[:2], "Not measured: packets can be seen with CAP_NET_RAW only.", ""]
    return [*table, ""]


def _rows(name: str, launcher: Launcher, seconds: int, core: int) -> list[str]:
    model = launcher.folder / "models" / name / "1" / "model.onnx"
    model.parent.mkdir(parents=True)
    onnx.save(mlp(WIDTH).model, model)
    document = launcher.folder / f"{name}.yaml"
    document.write_text(DOCUMENT.format(name=name))
    process, address = launcher.serve(document, name, "--root", str(launcher.folder))
    try:
        row = {"name": "X", "datatype": "FP32", "shape": [1, 64], "data": [0.5] * 64}
        request = Request(f"/v2/models/{name}/infer", json.dumps({"inputs": [row]}).encode())
        generator = Generator(address, request, core, "sleep", timing_share=1.0)
        generator.run(closed(2, 1))
        capacity = generator.run(closed(2, seconds)).all_good(name).good / seconds
        return [_row(name, share, capacity, generator, seconds) for share in SHARES]
    finally:
        process.terminate()
        process.wait(30)


def _row(name: str, share: float, capacity: float, generator: Generator, seconds: int) -> str:
    with sniffing(int(generator.address.rpartition(":")[2])) as sniffer:
        outcome = generator.run(at_rate(share * capacity, seconds))
    answer, wire = outcome.answer, sniffer.durations
    counts = answer["counts"]
    if counts["shed"]:
        # Refusals are quick, so that with them the times would be of something else.
        return (
            f"| {name} | {share:.2f} | {share * capacity:,.0f} | refused {counts['shed']:,} of {counts['due']:,}"
            + " |" * 7
        )
    outcome.all_good(name)
    total = answer["phases"]["total"]
    figures = [
        outcome.service(0.5) * 1e6,
        _median(wire) / 1e3,
        total["p50_ns"] / 1e3,
        answer["service"]["mean_ns"] / 1e3,
        (statistics.fmean(wire) if wire else 0.0) / 1e3,
        total["mean_ns"] / 1e3,
    ]
    shown = " | ".join(f"{figure:,.0f}" for figure in figures)
    return (
        f"| {name} | {share:.2f} | {share * capacity:,.0f} | {shown} | {answer['client']['cpu_share']:.2f} |"
    )


def _median(values: Sequence[int]) -> float:
    return statistics.median(values) if values else 0.0
