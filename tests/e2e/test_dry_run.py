"""A dry run of a real gateway refuses what an apply refuses, with the same code, and names the same version."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from support import models
from support.gateway import AdminClient, GatewayProcess
from support.tools import need_native

MODELS = models.TESTS / "models"
HEAD = "apiVersion: headgate/v1\nkind: Endpoint\nname: {name}\n"
ONE = 'versions: {v1: "file:scale"}\ntraffic: {champion: v1}\n'
TWO = 'versions: {v1: "file:scale", v2: %s}\ntraffic: {champion: v1}\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the documents below refer to."""
    found = tmp_path_factory.mktemp("documents")
    for name in ("scale", "pipe", "truncated", "warmup", "data", "cut"):
        (found / name).mkdir()
        (found / name / "model.onnx").write_bytes(models.scale(2.0).SerializeToString())
    for name in ("unknown_operator", "identity_fp64"):
        shutil.copy(MODELS / f"{name}.onnx", found)
    for name in ("empty", "none"):
        (found / name).mkdir()
    for pipe in ("pipe/model.onnx", "warmup/warmup.json", "pipe.npz", "pipe.csv", "pipe.onnx"):
        (found / pipe).unlink(missing_ok=True)
        os.mkfifo(found / pipe)
    whole = found / "truncated" / "model.onnx"
    whole.write_bytes(whole.read_bytes()[:40])
    for name in ("data", "cut"):
        outside(found / name)
    (found / "data" / "weights").mkdir()
    (found / "cut" / "weights").write_bytes(bytes(2))
    (found / "folder.npz").mkdir()
    np.save(found / "good.npy", np.ones((20, 4), np.float32))
    np.save(found / "narrow.npy", np.ones((20, 3), np.float32))
    liar = (found / "good.npy").read_bytes().replace(b"(20, 4)", b"(90, 4)")
    (found / "liar.npy").write_bytes(liar)
    return found


def outside(folder: Path) -> None:
    """A model whose weights lie in a file beside it."""
    model = models.scale(2.0)
    model.graph.node[0].input[1] = "weights"
    tensor = onnx.TensorProto(name="weights", data_type=onnx.TensorProto.FLOAT, dims=[4])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights")
    tensor.external_data.add(key="length", value="16")
    del model.graph.initializer[:]
    model.graph.initializer.append(tensor)
    (folder / "model.onnx").write_bytes(model.SerializeToString())


@pytest.fixture(scope="module")
def admin(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AdminClient]:
    need_native()
    state = tmp_path_factory.mktemp("gateway") / "state"
    arguments = ["--models", str(folder / "none"), "--root", str(folder)]
    with GatewayProcess(state, arguments) as gateway, gateway.admin() as client:
        yield client


def put(admin: AdminClient, name: str, text: str, *, dry: bool) -> httpx.Response:
    document = HEAD.format(name=name) + text
    headers = {"content-type": "application/yaml", "if-none-match": "*"}
    query = {"dry_run": "true"} if dry else {}
    return admin.http.put(f"/v1/endpoints/{name}", content=document, headers=headers, params=query)


REFUSED = {
    "constants-alone": "versions: {v1: {constant: {Y: [1, 2, 3, 4]}}}\ntraffic: {champion: v1}\n",
    "constant-of-nothing": TWO % "{constant: {Z: [1]}}",
    "constant-of-another-length": TWO % "{constant: {Y: [1, 2, 3]}}",
    "unknown-operator": TWO % '"file:unknown_operator.onnx"',
    "missing-model": TWO % '"file:nowhere"',
    "empty-folder": TWO % '"file:empty"',
    "truncated": TWO % '"file:truncated"',
    "pipe": TWO % '"file:pipe"',
    "pipe-itself": TWO % '"file:pipe.onnx"',
    "pipe-as-warmup": TWO % '"file:warmup"',
    "folder-as-data": TWO % '"file:data"',
    "data-cut-off": TWO % '"file:cut"',
    "other-signature": TWO % '"file:identity_fp64.onnx"',
    "device-that-is-not-there": TWO % '{model: "file:scale", run: {device: "cuda:63"}}',
    "labels-of-nothing": ONE + "labels: {Z: [a, b, c, d]}\n",
    "labels-too-few": ONE + "labels: {Y: [a, b]}\n",
    "columns-of-nothing": ONE + "columns: {Z: [a]}\n",
    "columns-too-few": ONE + "columns: {X: [a, b]}\n",
    "fallback-that-does-not-fit": (
        'versions: {v1: "file:scale", v2: {model: "file:identity_fp64.onnx", compatible: false}}\n'
        "traffic: {champion: v1, fallback: {to: [v2]}}\n"
    ),
    "missing-baseline": ONE + 'drift: {baseline: "file:nowhere.npy"}\n',
    "baseline-too-narrow": ONE + 'drift: {baseline: "file:narrow.npy"}\n',
    "baseline-that-lies": ONE + 'drift: {baseline: "file:liar.npy"}\n',
    "pipe-as-baseline": ONE + 'drift: {baseline: "file:pipe.npz"}\n',
    "pipe-as-table": ONE + 'drift: {baseline: "file:pipe.csv"}\n',
    "folder-as-baseline": ONE + 'drift: {baseline: "file:folder.npz"}\n',
    "baseline-of-a-constant": (
        'versions: {v1: {constant: {Y: [1, 2, 3, 4]}}, v2: "file:scale"}\n'
        'traffic: {champion: v1}\ndrift: {baseline: "file:good.npy"}\n'
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_dry_run_refuses_what_an_apply_refuses(case: str, admin: AdminClient) -> None:
    dry, wet = (put(admin, case, REFUSED[case], dry=dry) for dry in (True, False))
    assert told(dry) == told(wet)
    assert wet.status_code == 422, wet.text
    assert admin.get("/v1/endpoints")["endpoints"] == []


def told(answer: httpx.Response) -> tuple[int, Any, Any]:
    """What both have to say; the number of the revision is of those that were made alone."""
    body = answer.json()
    body.get("facts", {}).pop("revision", None)
    return answer.status_code, body.get("code"), body.get("facts", {}).get("version") or None


def test_what_does_not_fit_a_live_champion_says_that_it_was_kept(admin: AdminClient) -> None:
    both = '"file:scale", v2: {model: "file:identity_fp64.onnx", compatible: false}'
    end = "}\ntraffic: {champion: v1}\n"
    put(admin, "kept", f"versions: {{v1: {both}{end}", dry=False)
    moved = admin.http.patch("/v1/endpoints/kept/traffic", json={"champion": "v2"}, headers={"if-match": "*"})
    assert moved.status_code == 200, moved.text
    for query in ("?dry_run=true", ""):
        answer = admin.http.put(
            f"/v1/endpoints/kept{query}",
            content=HEAD.format(name="kept") + f'versions: {{v1: {both}, v3: "file:scale"{end}',
            headers={"content-type": "application/yaml", "if-match": "*"},
        )
        assert (answer.status_code, answer.json()["code"]) == (422, "policy_invalid")
        told = answer.json()["detail"]
        assert "live champion is v2, your document says v1: kept (--take-traffic to move)" in told
    admin.http.delete("/v1/endpoints/kept?force=true", headers={"if-match": "*"})


def test_a_dry_run_takes_what_an_apply_takes(admin: AdminClient, folder: Path) -> None:
    text = (
        'versions: {v1: "file:scale", v2: {constant: {Y: [1, 2, 3, 4]}}}\ntraffic: {champion: v1}\n'
        'columns: {X: [a, b, c, d]}\ndrift: {baseline: "file:good.npy"}\n'
    )
    dry = put(admin, "good", text, dry=True)
    assert (dry.status_code, dry.json()["load"]) == (200, ["v1", "v2"]), dry.text
    assert dry.json()["notes"] == []
    wet = put(admin, "good", text, dry=False)
    assert wet.status_code == 201, wet.text
    assert wet.json()["plan"] == dry.json()
    headers = {"content-type": "application/yaml", "if-match": '"7"'}
    stale = admin.http.put(
        "/v1/endpoints/good?dry_run=true", content=HEAD.format(name="good") + text, headers=headers
    )
    assert (stale.status_code, stale.json()["code"]) == (412, "revision_conflict")
    admin.http.delete("/v1/endpoints/good?force=true", headers={"if-match": "*"})


def test_a_model_for_which_there_is_no_room_is_named_and_not_opened(folder: Path, tmp_path: Path) -> None:
    need_native()
    wide = models.scale(2.0, ("rows", 500_000))
    wide.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ones(500_000, np.float32), "factor"))
    (folder / "wide.onnx").write_bytes(wide.SerializeToString())
    arguments = ["--models", str(folder / "none"), "--root", str(folder), "--memory-budget", "1MiB"]
    with GatewayProcess(tmp_path / "state", arguments) as gateway, gateway.admin() as client:
        text = 'versions: {v1: "file:wide.onnx"}\ntraffic: {champion: v1}\n'
        [note] = put(client, "wide", text, dry=True).json()["notes"]
        assert note.startswith("v1 was not opened")
        assert put(client, "wide", text, dry=False).status_code == 422
