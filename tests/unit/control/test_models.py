"""Documents with real model files: intake, pins, baselines, damage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, save

from headgate.errors import Conflict, ModelLoadFailed, PolicyInvalid
from unit.control_harness import gateway, run


def model(folder: Path, factor: float) -> Path:
    """``score = X * factor``."""
    folder.mkdir(parents=True, exist_ok=True)
    graph = helper.make_graph(
        [helper.make_node("Mul", ["X", "f"], ["score"])],
        "scale",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor("f", TensorProto.FLOAT, [1], [factor])],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), folder / "model.onnx")
    return folder


def text(extra: str = "", traffic: str = "{champion: v1}", versions: str = "v1") -> str:
    lines = "".join(f'  {name}: "file:models/{name}"\n' for name in versions.split())
    return (
        f"apiVersion: headgate/v1\nkind: Endpoint\nname: scale\nversions:\n{lines}traffic: {traffic}\n{extra}"
    )


def test_models_are_taken_in_and_survive_their_source(tmp_path: Path) -> None:
    async def body() -> None:
        first = model(tmp_path / "models" / "v1", 1.0)
        path = tmp_path / "scale.yaml"
        path.write_text(text())
        async with gateway(tmp_path) as gate:
            await gate.control.apply_file(path)
            artifact = Path(gate.native.served["scale"]["versions"][0]["artifact"])
            assert artifact.is_relative_to(gate.state / "artifacts")
            models = await gate.control.models()
            assert models["models"][0]["size"] == artifact.stat().st_size
        (first / "model.onnx").unlink()
        async with gateway(tmp_path) as gate:
            assert gate.native.served["scale"]["champion"] == "v1"

    run(body)


def test_a_version_with_other_bytes_is_refused(tmp_path: Path) -> None:
    async def body() -> None:
        model(tmp_path / "models" / "v1", 1.0)
        path = tmp_path / "scale.yaml"
        path.write_text(text())
        async with gateway(tmp_path) as gate:
            await gate.control.apply_file(path)
            model(tmp_path / "models" / "v1", 2.0)
            path.write_text(text("limits: {timeout: 1s}\n"))
            with pytest.raises(Conflict, match="versions.v1: .*a version never changes"):
                await gate.control.apply_file(path)
            assert gate.native.served["scale"]["revision"] == 1
            refusals = (await gate.control.models())["refusals"]
            assert [(one["version"], one["count"]) for one in refusals] == [("v1", 1)]

    run(body)


def test_a_constant_with_another_value_needs_a_new_name(tmp_path: Path) -> None:
    async def body() -> None:
        from unit.control_harness import document

        async with gateway(tmp_path) as gate:
            await gate.apply(document())
            with pytest.raises(PolicyInvalid, match="v1 of digits is sha256:.* for good"):
                await gate.apply(document().replace("score: 0.5", "score: 0.75"))

    run(body)


def test_a_file_that_is_no_model_changes_nothing(tmp_path: Path) -> None:
    async def body() -> None:
        model(tmp_path / "models" / "v1", 1.0)
        (tmp_path / "models" / "v2").mkdir()
        (tmp_path / "models" / "v2" / "model.onnx").write_bytes(b"not a model")
        path = tmp_path / "scale.yaml"
        path.write_text(text())
        async with gateway(tmp_path) as gate:
            await gate.control.apply_file(path)
            path.write_text(text(versions="v1 v2"))
            with pytest.raises(ModelLoadFailed, match="versions.v2: "):
                await gate.control.apply_file(path)
            assert len(await gate.control.revisions("scale")) == 1

    run(body)


def test_a_damaged_champion_breaks_its_endpoint_only(tmp_path: Path) -> None:
    async def body() -> None:
        model(tmp_path / "models" / "v1", 1.0)
        model(tmp_path / "models" / "v2", 2.0)
        path = tmp_path / "scale.yaml"
        path.write_text(text(traffic="{champion: v1, weights: {v2: 10%}}", versions="v1 v2"))
        async with gateway(tmp_path) as gate:
            await gate.control.apply_file(path)
            served = {v["name"]: Path(v["artifact"]) for v in gate.native.served["scale"]["versions"]}
        served["v2"].chmod(0o600)
        served["v2"].write_bytes(served["v2"].read_bytes()[:-1] + b"x")
        async with gateway(tmp_path) as gate:
            view = await gate.control.get("scale")
            assert view["versions"]["v2"]["state"] == "failed"
            assert "is damaged" in view["alarms"][0]
            assert gate.native.served["scale"]["champion"] == "v1"

    run(body)


def test_a_baseline_is_fitted_and_kept(tmp_path: Path) -> None:
    async def body() -> None:
        model(tmp_path / "models" / "v1", 1.0)
        np.savez(tmp_path / "reference.npz", X=np.ones((10, 3), dtype=np.float32))
        path = tmp_path / "scale.yaml"
        path.write_text(text('columns: {X: [a, b, c]}\ndrift: {baseline: "file:reference.npz"}\n'))
        async with gateway(tmp_path) as gate:
            results = await gate.control.apply_file(path)
            assert results[0]["status"] == "applied"
            kept = Path(gate.native.served["scale"]["baseline"])
            assert kept.parent == gate.state / "baselines"
            assert kept.read_bytes().startswith(b"{")
            assert (await gate.control.get("scale"))["baseline"] == f"sha256:{kept.stem}"

    run(body)


def test_a_document_that_is_put_finds_its_files_below_the_roots(tmp_path: Path) -> None:
    async def body() -> None:
        model(tmp_path / "models" / "v1", 1.0)
        async with gateway(tmp_path, roots=(tmp_path,)) as gate:
            source = tmp_path / "scale.yaml"
            parsed = await gate.control.parse("scale", text().encode(), source=source)
            await gate.control.apply(parsed)
            again = await gate.control.parse("scale", text("limits: {timeout: 1s}\n").encode())
            assert (await gate.control.apply(again))["revision"] == 2

    run(body)


def test_a_restart_knows_the_folder_of_a_documents_files(tmp_path: Path) -> None:
    async def body() -> None:
        model(tmp_path / "models" / "v1", 1.0)
        path = tmp_path / "scale.yaml"
        path.write_text(text())
        async with gateway(tmp_path) as gate:
            await gate.control.apply_file(path)
        model(tmp_path / "models" / "v2", 2.0)
        async with gateway(tmp_path) as gate:
            document = text(versions="v1 v2").encode()
            result = await gate.control.put("scale", document)
            assert (result["revision"], result["plan"]["load"]) == (2, ["v2"])

    run(body)
