"""Makes a state folder under /srv/example, or serves one that an earlier build made, and says what is in it.

    unshare -rm python tests/states/folder.py make NAME     # writes NAME.tar.xz and NAME.json beside this file
    unshare -rm python tests/states/folder.py read NAME     # prints what a gateway of this tree finds in NAME.tar.xz

Rows of a state folder hold absolute paths. So both run in a mount namespace of their own, in which /srv is empty memory.
A folder that was made stays as it is: it stands for the states that people have.
"""

from __future__ import annotations

import io
import json
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from support.archives import extract  # noqa: E402 - found by the line above
from support.gateway import AdminClient, GatewayProcess, checked  # noqa: E402
from support.models import TESTS, place, scale  # noqa: E402

ROOT = Path("/srv/example")
STATE = ROOT / "state"
KEYS = [f"user-{number}" for number in range(40)]
ENDPOINTS = ("frozen", "model", "returned", "shares", "undone")
REMOVED = "removed"

CONSTANTS = """\
apiVersion: headgate/v1
kind: Endpoint
name: {name}
versions:
  v1: "file:models/scale/1"
  v2: {{constant: {{Y: 1.5}}}}
  v3: {{constant: {{Y: [2.5, 3.5, 4.5, 5.5]}}}}
traffic: {traffic}
"""

MODEL = """\
apiVersion: headgate/v1
kind: Endpoint
name: model
owner: {team: examples, tier: 2}
columns: {X: [a, b, c, d]}
labels: {Y: [none, one, two, three]}
versions:
  v1: {model: "file:models/scale/1", run: {max_batch: 8, max_delay: 2ms, buckets: [4, 8]}}
  v2: {model: "file:models/scale/2", run: {placement: pool, instances: 1}}
  v3: {model: "file:models/wide/1", compatible: false}
  v4: {constant: {Y: [1, 2, 3, 4]}}
traffic:
  champion: v1
  weights: {v2: 2.5%}
  sticky: header.x-user
  keep_warm: true
  fallback: {to: [v2], after: 500ms}
drift: {baseline: "file:baseline.npz"}
limits:
  timeout: 2s
  rate: {by: header.x-caller, per_second: 50}
  breaker: {consecutive: 7, success_rate: 75%, window: 20s}
  priority: {by: header.x-class, classes: [first, second]}
answers: {non_finite: string}
"""


def main() -> None:
    """Mounts the memory and runs one of the two commands."""
    command, name = sys.argv[1:]
    subprocess.run(["mount", "-t", "tmpfs", "none", "/srv"], check=True)
    ROOT.mkdir()
    if command == "make":
        make()
        with tarfile.open(HERE / f"{name}.tar.xz", "w:xz") as archive:
            archive.add(ROOT, ROOT.name)
        (HERE / f"{name}.json").write_text(json.dumps(serve_and_read(), indent=1, sort_keys=True) + "\n")
    else:
        archive = io.BytesIO((HERE / f"{name}.tar.xz").read_bytes())
        with tarfile.open(fileobj=archive) as tar:
            extract(tar, ROOT.parent)
        keep_the_key()
        json.dump(serve_and_read(), sys.stdout)


def keep_the_key() -> None:
    """A key is kept for a day, and the folder is read for years."""
    with closing(sqlite3.connect(STATE / "headgate.db")) as database, database:
        database.execute("UPDATE idempotency SET expires = '9999-12-31T00:00:00Z'")


def make() -> None:
    """A state with every kind of revision and status, as a kill leaves it."""
    files()
    arguments = [str(ROOT / "shares.yaml"), "--root", str(ROOT)]
    with GatewayProcess(STATE, arguments) as gateway, gateway.admin() as admin:
        fill(admin)
    gateway.log.unlink()
    stop_between_the_steps()


def files() -> None:
    """Documents, models and a reference sample."""
    place(scale(2.0), ROOT / "models", "scale", "1")
    place(scale(3.0), ROOT / "models", "scale", "2")
    place(TESTS / "models" / "two_inputs.onnx", ROOT / "models", "wide", "1")
    place(TESTS / "models" / "unknown_operator.onnx", ROOT / "models", "unknown", "1")
    rows = np.random.default_rng(7).normal(size=(200, 4)).astype(np.float32)
    np.savez_compressed(ROOT / "baseline.npz", X=rows)
    (ROOT / "model.yaml").write_text(MODEL)
    traffic = "{champion: v1, sticky: header.x-user, weights: {v2: 5%}}"
    (ROOT / "shares.yaml").write_text(CONSTANTS.format(name="shares", traffic=traffic))


def put(admin: AdminClient, name: str, text: str, **params: str) -> httpx.Response:
    """Sends a document."""
    known = {line["name"]: line["revision"] for line in admin.get("/v1/endpoints")["endpoints"]}
    match = {"If-Match": f'"{known[name]}"'} if name in known else {"If-None-Match": "*"}
    headers = {"Content-Type": "application/yaml", **match}
    return admin.http.put(f"/v1/endpoints/{name}", content=text, params=params, headers=headers)


def constants(admin: AdminClient, name: str, traffic: str) -> None:
    """Applies a document of constants."""
    checked(put(admin, name, CONSTANTS.format(name=name, traffic=traffic)))


def fill(admin: AdminClient) -> None:
    """Endpoints, tokens, an answer that a key stands for."""
    admin.set_weights("shares", {"v2": "20%", "v3": "5%"})
    admin.set_weights("shares", {"v2": "12.34%"})

    checked(put(admin, "model", MODEL, source=str(ROOT / "model.yaml"), reason="first"))
    admin.set_weights("model", {"v2": "10%"})
    does_not_load = MODEL.replace("file:models/wide/1", "file:models/unknown/1").replace("v3:", "v5:")
    assert put(admin, "model", does_not_load, reason="v5").status_code == 422

    constants(admin, "frozen", "{champion: v1, weights: {v2: 1%}}")
    admin.act("frozen", "block", version="v2")
    admin.act("frozen", "freeze")

    constants(admin, "returned", "{champion: v1, sticky: header.x-user}")
    admin.set_weights("returned", {"v2": "50%"})
    admin.act("returned", "rollback")
    admin.act("returned", "unblock", version="v2")
    admin.act("returned", "restore", revision=2)
    admin.act("returned", "abort")

    constants(admin, "undone", "{champion: v1, sticky: header.x-user}")
    admin.set_weights("undone", {"v2": "30%"})
    admin.act("undone", "rollback")

    constants(admin, REMOVED, "{champion: v1, weights: {v3: 50%}}")
    admin.act(REMOVED, "block", version="v3")
    checked(admin.http.delete(f"/v1/endpoints/{REMOVED}?force=true", headers={"If-Match": '"2"'}))

    checked(admin.http.post("/v1/tokens", json={"name": "ann", "role": "operator", "reason": "test"}))
    old = checked(admin.http.post("/v1/tokens", json={"name": "bob", "role": "viewer", "reason": "test"}))
    checked(admin.http.delete(f"/v1/tokens/{old['id']}"))
    repeated(admin)


def stop_between_the_steps() -> None:
    """Puts the rollback of ``undone`` back to where a kill before its last commit leaves it."""
    with sqlite3.connect(STATE / "headgate.db") as database:
        database.execute("UPDATE revisions SET status = 'proposed' WHERE endpoint = 'undone' AND n = 3")
        database.execute("UPDATE endpoints SET applied = 2 WHERE name = 'undone'")
        database.execute("DELETE FROM blocks WHERE endpoint = 'undone'")
    database.close()


def serve_and_read() -> dict[str, Any]:
    """Serves the folder as it is and reads all that it says."""
    with GatewayProcess(STATE, ["--root", str(ROOT)]) as gateway, gateway.admin() as admin:
        endpoints = {name: endpoint(admin, name) for name in ENDPOINTS}
        names = [line["name"] for line in admin.get("/v1/endpoints")["endpoints"]]
        return {
            "names": names,
            "endpoints": endpoints,
            "removed": history(admin, REMOVED),
            "pins": [
                {name: pin[name] for name in ("endpoint", "version", "digest", "pinned")}
                for pin in admin.get("/v1/models")["models"]
            ],
            "tokens": [
                {name: value for name, value in token.items() if name != "last_used"}
                for token in admin.get("/v1/tokens")["tokens"]
            ],
            "audit": admin.get("/v1/audit?limit=500")["entries"],
            "repeated": repeated(admin),
            "answers": {name: answers(gateway, name) for name in ("model", "shares")},
        }


def endpoint(admin: AdminClient, name: str) -> dict[str, Any]:
    """What does not depend on the process that serves it."""
    found = admin.get(f"/v1/endpoints/{name}")
    found["traffic"].pop("share")
    for version in found["versions"].values():
        for measured in set(version) - {"digest", "kind", "role", "state", "in_document"}:
            del version[measured]
    found["revisions"] = history(admin, name)
    return dict(found)


def history(admin: AdminClient, name: str) -> list[dict[str, Any]]:
    """Every revision in full, newest first."""
    lines = admin.get(f"/v1/endpoints/{name}/revisions?limit=100")["revisions"]
    return [admin.get(f"/v1/endpoints/{name}/revisions/{line['revision']}") for line in lines]


def repeated(admin: AdminClient) -> Any:
    """The call that came with a key; once more after the first time."""
    headers = {"If-Match": '"3"', "Idempotency-Key": "once"}
    body = {"weights": {"v3": "6%"}, "reason": "once"}
    return checked(admin.http.patch("/v1/endpoints/shares/traffic", json=body, headers=headers))


def answers(gateway: GatewayProcess, name: str) -> dict[str, str]:
    """The version that answers each sticky key."""
    send: Callable[[str], httpx.Response] = lambda key: httpx.post(  # noqa: E731
        f"http://{gateway.http}/v2/models/{name}/infer",
        json={"inputs": [{"name": "X", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]},
        headers={"x-user": key, "x-caller": key},
    )
    return {key: checked(send(key))["model_version"] for key in KEYS}


if __name__ == "__main__":
    main()
