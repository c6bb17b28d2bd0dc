"""Captured requests are those that clients sent and got, in files that pyarrow opens; a kill and a full disk cost what they must and
nothing else.

Not here: rotation, retention and recovery byte by byte (``rust/capture/src/store/tests.rs``).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import httpx
import numpy as np
import pyarrow as pa
import pytest
from onnx import TensorProto, helper

from support import identities, models
from support.gateway import GatewayProcess
from support.tools import need_native, need_program

SECONDS = 120.0


def document(name: str, rest: str = "", capture: str = "{share: 100%}", traffic: str = "") -> str:
    """An endpoint with one version that is captured."""
    return f"""\
apiVersion: headgate/v1
kind: Endpoint
name: {name}
versions: {{v1: "file:{name}/1"}}
traffic: {{champion: v1, sticky: header.x-user-id{traffic}}}
capture: {capture}
{rest}
"""


def serve(folder: Path, documents: dict[str, str], **options: Any) -> GatewayProcess:
    """A gateway of these documents, whose models are below the folder."""
    paths = []
    for name, text in documents.items():
        path = folder / f"{name}.yaml"
        path.write_text(text)
        paths.append(str(path))
    return GatewayProcess(folder / "state", paths, **options)


def until(holds: Callable[[], bool], why: Callable[[], object] = lambda: "") -> None:
    """Waits for what another process does."""
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline, why()
        time.sleep(0.02)


def metric(gateway: GatewayProcess, name: str, **labels: str) -> float:
    """A sample of /metrics."""
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    lines = gateway.observe("/metrics").text.splitlines()
    found = [line for line in lines if line.startswith(name) and all(label in line for label in wanted)]
    assert len(found) == 1, (name, labels, found)
    return float(found[0].rpartition(" ")[2])


def files(folder: Path, endpoint: str) -> list[Path]:
    """The files of an endpoint, in their order."""
    return sorted((folder / "captures" / endpoint).glob("*.arrows*"))


def read(path: Path) -> pa.Table:
    """All rows of a file, checked."""
    table = pa.ipc.open_stream(path.read_bytes()).read_all()
    table.validate(full=True)
    return table


def rows(state: Path, endpoint: str) -> list[dict[str, Any]]:
    """All rows of an endpoint, in the order in which they were captured."""
    return [row for path in files(state, endpoint) for row in read(path).to_pylist()]


class Client:
    """Sends tensors and gets them as bytes, so that every value arrives as it is."""

    def __init__(self, gateway: GatewayProcess) -> None:
        self.http = httpx.Client(base_url=f"http://{gateway.http}", timeout=SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def infer(
        self, path: str, tensors: Mapping[str, tuple[str, np.ndarray[Any, Any]]], **headers: str
    ) -> tuple[httpx.Response, dict[str, bytes]]:
        """The answer, and its outputs as bytes."""
        raw = {name: encoded(datatype, values) for name, (datatype, values) in tensors.items()}
        head = {
            "inputs": [
                {
                    "name": name,
                    "datatype": datatype,
                    "shape": list(values.shape),
                    "parameters": {"binary_data_size": len(raw[name])},
                }
                for name, (datatype, values) in tensors.items()
            ],
            "parameters": {"binary_data_output": True},
        }
        text = json.dumps(head).encode()
        content = text + b"".join(raw.values())
        sent = {"Inference-Header-Content-Length": str(len(text)), "Content-Type": "application/octet-stream"}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = self.http.post(f"/v2/models/{path}/infer", content=content, headers=sent | named)
        if answer.status_code != 200:
            return answer, {}
        length = int(answer.headers["Inference-Header-Content-Length"])
        outputs, rest = {}, answer.content[length:]
        for output in json.loads(answer.content[:length])["outputs"]:
            size = output["parameters"]["binary_data_size"]
            outputs[output["name"]], rest = rest[:size], rest[size:]
        return answer, outputs


def encoded(datatype: str, values: np.ndarray[Any, Any]) -> bytes:
    """A tensor as the protocol's binary form has it."""
    if datatype != "BYTES":
        return values.tobytes()
    return b"".join(len(one).to_bytes(4, "little") + one for one in values.ravel())


def captured(table: pa.Table, column: str, row: int) -> bytes:
    """The elements of a captured tensor in the same form."""
    values = table.column(column)[row].values
    if pa.types.is_binary(values.type):
        return encoded("BYTES", np.array(values.to_pylist(), np.object_))
    return bytes(values.to_numpy(zero_copy_only=False).tobytes())


def test_a_row_is_what_a_client_sent_and_got(tmp_path: Path) -> None:
    """Every datatype, and shapes that are easily mistaken."""
    need_native()
    identities.place_all(tmp_path)
    documents: dict[str, str] = {}
    sent: dict[tuple[str, str], list[np.ndarray[Any, Any]]] = {}
    for datatype in identities.ONNX_TYPES:
        for shape in identities.SHAPES.values():
            name = identities.name(datatype, len(shape))
            documents[name] = document(name)
            arrays = [identities.corners(datatype, shape)]
            if datatype in identities.BEYOND_JSON and shape == (9,):
                arrays.append(identities.BEYOND_JSON[datatype])
            sent.setdefault((name, datatype), []).extend(arrays)
    got: dict[str, list[bytes]] = {}
    with serve(tmp_path, documents) as gateway, Client(gateway) as client:
        for (name, datatype), arrays in sent.items():
            for values in arrays:
                answer, outputs = client.infer(name, {"x": (datatype, values)}, x_user_id="me")
                assert answer.status_code == 200, (name, answer.text)
                got.setdefault(name, []).append(outputs["y"])
        assert gateway.stop() == 0
    for (name, datatype), arrays in sent.items():
        (path,) = files(gateway.state, name)
        assert path.suffix == ".arrows"
        table = read(path)
        assert table.column("input_shape.x").to_pylist() == [list(values.shape) for values in arrays]
        assert table.column("output_shape.y").to_pylist() == [list(values.shape) for values in arrays]
        assert [captured(table, "input.x", row) for row in range(len(arrays))] == [
            encoded(datatype, values) for values in arrays
        ], name
        assert [captured(table, "output.y", row) for row in range(len(arrays))] == got[name], name
        field = table.schema.field("input.x")
        assert field.metadata == {b"headgate.datatype": datatype.encode()}


@pytest.fixture
def scale(tmp_path: Path) -> Path:
    """A folder with an endpoint of two versions."""
    need_native()
    for version in (1, 2):
        models.place(models.scale(float(version)), tmp_path, "scale", str(version))
    return tmp_path


VALUES = np.arange(8, dtype=np.float32).reshape(2, 4)
TWO = """\
apiVersion: headgate/v1
kind: Endpoint
name: scale
versions: {v1: "file:scale/1", v2: "file:scale/2"}
traffic:
  champion: v1
  weights: {v2: 50%}
  sticky: header.x-user-id
  rules: [{when: {header.x-tester: "1"}, to: v2}]
capture: {share: 100%}
"""


def test_a_row_says_which_version_answered_and_why_but_not_to_whom(scale: Path) -> None:
    secret = "user-4711-of-somewhere"
    with serve(scale, {"scale": TWO}) as gateway, Client(gateway) as client:
        begun = time.time()
        answers = [
            client.infer("scale", {"X": ("FP32", VALUES)}, x_user_id=secret)[0],
            client.infer("scale", {"X": ("FP32", VALUES)}, x_user_id=secret)[0],
            client.infer("scale", {"X": ("FP32", VALUES)}, x_user_id="another")[0],
            client.infer("scale", {"X": ("FP32", VALUES)})[0],
            client.infer("scale", {"X": ("FP32", VALUES)}, x_tester="1")[0],
            client.infer("scale/versions/v1", {"X": ("FP32", VALUES)})[0],
        ]
        # A mistake of the client says nothing about a version.
        assert client.infer("scale", {"X": ("FP32", VALUES[:, :3])})[0].status_code == 400
        ended = time.time()
        assert gateway.stop() == 0
    found = sorted(rows(gateway.state, "scale"), key=lambda row: row["time"])
    assert [row["version"] for row in found] == [answer.headers["x-headgate-version"] for answer in answers]
    assert [row["reason"] for row in found] == ["sticky", "sticky", "sticky", "drawn", "rule", "direct"]
    assert [row["rule"] for row in found] == [None, None, None, None, 0, None]
    units = [row["unit"] for row in found]
    assert units[0] == units[1] != units[2]
    assert None not in units[:3]
    assert units[3:] == [None, None, None]
    assert len({row["request"] for row in found}) == len(found)
    for row in found:
        assert begun - 1 < row["time"].timestamp() < ended + 1
        assert (row["code"], row["revision"]) == ("ok", 1)
        assert 0 < row["run_ns"] <= row["total_ns"]
        assert row["digest"].startswith("sha256:")
        factor = float(row["version"].removeprefix("v"))
        assert row["output.Y"] == [value * factor for value in row["input.X"]]
    assert all(secret.encode() not in path.read_bytes() for path in files(gateway.state, "scale"))


def test_a_share_is_drawn_and_nothing_is_captured_by_default(scale: Path) -> None:
    two = {
        "scale": document("scale", capture="{share: 10%}"),
        "other": TWO.replace("name: scale", "name: other").replace("capture: {share: 100%}\n", ""),
    }
    with serve(scale, two) as gateway, Client(gateway) as client, gateway.admin() as admin:
        for _ in range(1_000):
            assert client.infer("scale", {"X": ("FP32", VALUES)})[0].status_code == 200
        client.infer("other", {"X": ("FP32", VALUES)})
        shown = admin.get("/v1/endpoints/scale")["capture"]
        assert (shown["share"], shown["keep_ms"], shown["max_bytes"]) == ("10%", 604_800_000, 2 << 30)
        assert admin.get("/v1/endpoints/other")["capture"] is None
        assert gateway.stop() == 0
    # Ten standard deviations.
    assert 5 <= len(rows(gateway.state, "scale")) <= 195
    assert [path.name for path in (gateway.state / "captures").iterdir()] == ["scale"]
    assert (gateway.state / "captures").stat().st_mode & 0o777 == 0o700


def test_what_is_redacted_is_in_no_file(tmp_path: Path) -> None:
    need_native()
    graph = helper.make_graph(
        [helper.make_node("Identity", [name], [f"{name}2"]) for name in ("X", "names", "secret")],
        "redacted",
        [
            helper.make_tensor_value_info("X", TensorProto.DOUBLE, ["rows", 3]),
            helper.make_tensor_value_info("names", TensorProto.STRING, ["rows", 2]),
            helper.make_tensor_value_info("secret", TensorProto.INT64, ["rows"]),
        ],
        [
            helper.make_tensor_value_info("X2", TensorProto.DOUBLE, ["rows", 3]),
            helper.make_tensor_value_info("names2", TensorProto.STRING, ["rows", 2]),
            helper.make_tensor_value_info("secret2", TensorProto.INT64, ["rows"]),
        ],
    )
    model = helper.make_model(graph, opset_imports=models.OPSETS, ir_version=8)
    models.place(model, tmp_path, "bank")
    capture = "{share: 100%, redact: [X.iban, X2.iban, names.first, names2.first, secret, secret2]}"
    columns = (
        "columns: {X: [age, iban, sum], X2: [age, iban, sum], names: [first, last], names2: [first, last]}"
    )
    numbers = np.array([[1.5, 123_456.789, 2.5], [3.5, 987_654.321, 4.5]])
    names = np.array([[b"Leopoldine", b"Muster"], [b"Ottokar", b"Probe"]], np.object_)
    secret = np.array([0x1122334455667788, -0x1122334455667788], np.int64)
    sent = {"X": ("FP64", numbers), "names": ("BYTES", names), "secret": ("INT64", secret)}
    with serve(tmp_path, {"bank": document("bank", columns, capture)}) as gateway, Client(gateway) as client:
        answer, outputs = client.infer("bank", sent)
        assert (answer.status_code, outputs["X2"]) == (200, numbers.tobytes())
        assert gateway.stop() == 0
    (path,) = files(gateway.state, "bank")
    table = read(path)
    for side, suffix in (("input", ""), ("output", "2")):
        (row,) = table.to_pylist()
        assert row[f"{side}.X{suffix}"] == [1.5, 0.0, 2.5, 3.5, 0.0, 4.5]
        assert row[f"{side}.names{suffix}"] == [b"", b"Muster", b"", b"Probe"]
        assert (row[f"{side}.secret{suffix}"], row[f"{side}_shape.secret{suffix}"]) == (None, [2])
        marked = [table.schema.field(f"{side}.{name}{suffix}").metadata for name in ("X", "names", "secret")]
        assert [one[b"headgate.redacted"] for one in marked] == [b'["iban"]', b'["first"]', b"*"]
    content = path.read_bytes()
    for value in (*numbers[:, 1], *secret):
        assert value.tobytes() not in content
    assert b"Leopoldine" not in content
    assert b"Ottokar" not in content


def test_a_version_that_fails_is_captured_with_what_it_was_asked(tmp_path: Path) -> None:
    need_native()
    models.place(models.slow(), tmp_path, "slow")
    rounds = np.array([200_000], np.int64)
    one = document("slow", "limits: {timeout: 3s}")
    with serve(tmp_path, {"slow": one}) as gateway, Client(gateway) as client:
        assert client.infer("slow", {"rounds": ("INT64", np.array([1], np.int64))})[0].status_code == 200
        assert client.infer("slow", {"rounds": ("INT64", rounds)})[0].status_code == 504
        until(lambda: metric(gateway, "headgate_capture_rows_total", endpoint="slow") == 2)
        assert gateway.stop() == 0
    good, late = rows(gateway.state, "slow")
    assert (good["code"], good["output_shape.y"]) == ("ok", [256, 256])
    assert (late["code"], late["input.rounds"]) == ("deadline_exceeded", [200_000])
    assert (late["output.y"], late["output_shape.y"]) == (None, None)


def test_a_row_of_a_batch_has_its_own_tensors(scale: Path) -> None:
    batched = document("scale").replace('"file:scale/1"', '{model: "file:scale/1", run: {max_batch: 16}}')
    threads, each = 4, 25

    def ask(thread: int) -> None:
        with Client(gateway) as client:
            for index in range(each):
                values = np.full((1 + index % 3, 4), thread * each + index, np.float32)
                answer, outputs = client.infer("scale", {"X": ("FP32", values)})
                assert (answer.status_code, outputs["Y"]) == (200, values.tobytes())

    with serve(scale, {"scale": batched}) as gateway:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(ask, range(threads)))
        assert gateway.stop() == 0
    found = rows(gateway.state, "scale")
    assert sorted(row["input.X"][0] for row in found) == list(range(threads * each))
    for row in found:
        index = int(row["input.X"][0]) % each
        assert row["input_shape.X"] == row["output_shape.Y"] == [1 + index % 3, 4]
        assert row["input.X"] == row["output.Y"] == [row["input.X"][0]] * (4 * (1 + index % 3))


def test_a_kill_costs_the_open_row_group_alone(scale: Path) -> None:
    """Files that a kill left open are readable as they are, and the next start closes them."""

    def written() -> float:
        return metric(gateway, "headgate_capture_rows_total", endpoint="scale")

    with serve(scale, {"scale": document("scale")}) as gateway, Client(gateway) as client:
        client.infer("scale", {"X": ("FP32", VALUES)})
        until(lambda: written() == 1)
        for _ in range(3_000):
            client.infer("scale", {"X": ("FP32", VALUES)})
        until(lambda: written() >= 2_000)
        # Nothing is promised of what the last scrape does not show.
        count = written()
        gateway.kill()
        (path,) = files(gateway.state, "scale")
        assert path.suffix == ".open"
        left = read(path).to_pylist()
        assert len(left) >= count
        gateway.start()
        until(lambda: files(gateway.state, "scale") == [path.with_suffix("")])
        assert read(path.with_suffix("")).to_pylist() == left
        client.http.base_url = httpx.URL(f"http://{gateway.http}")
        client.infer("scale", {"X": ("FP32", VALUES)})
        assert gateway.stop() == 0
    assert len(files(gateway.state, "scale")) == 2
    assert len(rows(gateway.state, "scale")) == len(left) + 1
    assert all(row["output.Y"] == VALUES.ravel().tolist() for row in rows(gateway.state, "scale"))


ON_A_SMALL_DISK = (
    'mkdir -p "$0/captures" && mount -t tmpfs -o size=2m,mode=700 none "$0/captures" && exec "$@"'
)


def test_a_full_disk_stops_capture_and_nothing_else(tmp_path: Path) -> None:
    need_native()
    unshare = need_program("unshare", "util-linux")
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    for name in ("full", "same"):
        models.place(models.scale(1.0), tmp_path, name)
    two = {"full": document("full"), "same": document("same").replace("capture: {share: 100%}", "")}
    prefix = [unshare, "--map-root-user", "--mount", "sh", "-c", ON_A_SMALL_DISK, str(state)]
    large = np.ones((1_000, 4), np.float32)
    with serve(tmp_path, two, prefix=prefix) as gateway, Client(gateway) as client, gateway.admin() as admin:
        # The disk as the gateway sees it.
        disk = Path(f"/proc/{gateway.pid}/root{state}/captures")

        def count(name: str, **labels: str) -> float:
            return metric(gateway, f"headgate_capture_{name}", endpoint="full", **labels)

        def ask() -> None:
            for endpoint in ("full", "same"):
                answer, outputs = client.infer(endpoint, {"X": ("FP32", large)})
                assert (answer.status_code, outputs["Y"]) == (200, large.tobytes())

        def fails() -> bool:
            ask()
            return count("failing") == 1

        until(fails, lambda: gateway.observe("/metrics").text)
        assert count("errors_total") >= 1
        assert count("dropped_total", reason="failed") >= 1
        (alarm,) = admin.get("/v1/endpoints/full")["alarms"]
        assert "nothing is captured since" in alarm
        assert "too little space is left" in alarm
        assert admin.get("/v1/endpoints/same")["alarms"] == []
        # What was written is complete.
        whole = [read(path) for path in sorted((disk / "full").glob("*.arrows"))]
        assert sum(len(table) for table in whole) == count("rows_total")
        # The rest of the gateway goes on.
        assert admin.act("full", "freeze")["status"]
        ask()
        until(lambda: count("dropped_total", reason="stopped") >= 1)
        before = count("rows_total")
        for path in (disk / "full").glob("*.arrows"):
            path.unlink()

        def is_healed() -> bool:
            ask()
            return count("failing") == 0 and count("rows_total") > before

        until(is_healed, lambda: admin.get("/v1/endpoints/full")["alarms"])
        assert admin.get("/v1/endpoints/full")["alarms"] == []
        assert gateway.stop() == 0
