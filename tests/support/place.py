"""A gateway and a folder: a model that a test makes becomes an endpoint, and is asked for what it declares.

Not here: what clients send byte by byte (``client``, ``grpc_wire``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import onnx
from onnx import TensorProto, helper

from support.gateway import GatewayProcess
from support.models import OPSETS

DOCUMENT = """\
apiVersion: headgate/v1
kind: Endpoint
name: {name}
versions: {{"1": {{model: "file:{name}"{run}}}}}
traffic: {{champion: "1"}}
"""


class Place:
    """A gateway and a folder: models become endpoints."""

    def __init__(self, gateway: GatewayProcess, folder: Path) -> None:
        self.gateway = gateway
        self.folder = folder
        self.made = 0

    def apply(self, model: onnx.ModelProto, run: str = "") -> tuple[str, httpx.Response]:
        """The endpoint of a model, and what the admin API said."""
        self.made += 1
        name = f"m{self.made}"
        path = self.folder / name / "model.onnx"
        path.parent.mkdir()
        path.write_bytes(model.SerializeToString())
        headers = {"content-type": "application/yaml", "if-none-match": "*"}
        document = DOCUMENT.format(name=name, run=run)
        with self.gateway.admin() as admin:
            return name, admin.http.put(f"/v1/endpoints/{name}", content=document, headers=headers)

    def serve(self, model: onnx.ModelProto, run: str = "") -> str:
        """The endpoint of a model that must be served."""
        name, answer = self.apply(model, run)
        assert answer.status_code == 201, answer.text
        return name

    def refusal(self, model: onnx.ModelProto, run: str = "") -> str:
        """Why a model is refused."""
        _, answer = self.apply(model, run)
        assert (answer.status_code, answer.json()["code"]) == (422, "model_load_failed"), answer.text
        return str(answer.json()["detail"])

    def infer(self, name: str, inputs: dict[str, Any], **more: Any) -> dict[str, Any]:
        """The outputs by name."""
        listed = [
            {"name": key, "datatype": "FP32", "shape": list(value.shape), "data": value.ravel().tolist()}
            for key, value in inputs.items()
        ]
        answer = httpx.post(
            f"http://{self.gateway.http}/v2/models/{name}/infer", json={"inputs": listed, **more}
        )
        assert answer.status_code == 200, answer.text
        return {output["name"]: output for output in answer.json()["outputs"]}

    def get(self, path: str) -> Any:
        """JSON of the data port."""
        return httpx.get(f"http://{self.gateway.http}{path}").json()


def value(name: str, shape: Any = None, element: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, element, shape)


def model(nodes: Any, inputs: Any, outputs: Any, opsets: Any = OPSETS, **more: Any) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "graph", inputs, outputs, **more)
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)
