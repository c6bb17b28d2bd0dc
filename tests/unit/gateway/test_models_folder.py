from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from headgate import background
from headgate.documents import Document
from headgate.errors import ModelNotReady, StorageFailed
from headgate.gateway.models_folder import ModelsFolder
from unit.control_harness import Gate, document, gateway, until
from unit.fake_native import FakeNative
from unit.gateway.process_harness import Said

MODELS = Path(__file__).resolve().parents[2] / "models"
FIRST, SECOND = MODELS / "identity_fp32.onnx", MODELS / "identity_fp64.onnx"


class Scene:
    """A tree, a gateway and what was said."""

    def __init__(self, tree: Path, gate: Gate) -> None:
        self.tree = tree
        self.gate = gate
        self.log = Said()
        self.said = self.log.texts
        self.folder = ModelsFolder(tree, gate.control)

    def place(self, endpoint: str, version: str, model: Path = FIRST) -> Path:
        target = self.tree / endpoint / version
        target.mkdir(parents=True, exist_ok=True)
        shutil.copy(model, target / "model.onnx")
        return target

    async def versions(self, endpoint: str = "digits") -> dict[str, str]:
        view = await self.gate.control.get(endpoint)
        return {name: version["role"] for name, version in view["versions"].items() if version["in_document"]}

    async def states(self) -> dict[str, str]:
        return {one["name"]: one["state"] for one in await self.gate.control.list()}

    def heard(self, part: str) -> bool:
        return any(part in text for text in self.said)

    async def refused(self) -> dict[str, str]:
        """Why, by the place below the folder."""
        listed = (await self.gate.control.models())["refusals"]
        return {str(Path(one["folder"]).relative_to(self.tree)): one["message"] for one in listed}


def play(folder: Path, work: Callable[[Scene], Awaitable[None]], native: FakeNative | None = None) -> None:
    async def body() -> None:
        (folder / "models").mkdir(exist_ok=True)
        async with gateway(folder, native) as gate:
            scene = Scene(folder / "models", gate)
            with scene.log:
                await work(scene)

    asyncio.run(body())


def test_at_first_sight_the_highest_number_is_champion(tmp_path: Path) -> None:
    async def work(scene: Scene) -> None:
        scene.place("digits", "9")
        scene.place("digits", "10", SECOND)
        scene.place("other", "1")
        await scene.folder.sync()
        assert await scene.versions() == {"9": "idle", "10": "champion"}
        assert await scene.versions("other") == {"1": "champion"}
        assert scene.heard("digits: 10 is champion, 9 without traffic")

    play(tmp_path, work)


def test_a_folder_that_appears_later_gets_no_traffic_and_the_command_is_said(tmp_path: Path) -> None:
    async def work(scene: Scene) -> None:
        scene.place("digits", "1")
        await scene.folder.sync()
        scene.place("digits", "2", SECOND)
        await scene.folder.sync()
        assert await scene.versions() == {"1": "champion", "2": "idle"}
        assert scene.gate.live() == ("1", [], "")
        assert scene.heard("headgate traffic digits 2=10%")
        revision = (await scene.gate.control.get("digits"))["revision"]
        await scene.folder.sync()
        assert (await scene.gate.control.get("digits"))["revision"] == revision

    play(tmp_path, work)


def test_unchanged_endpoints_are_looked_at_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Describing all of them for each of them would make the start of a thousand take minutes."""

    async def work(scene: Scene) -> None:
        for number in range(5):
            scene.place(f"model{number}", "1")
        await scene.folder.sync()
        asked: list[str | None] = []
        monkeypatch.setattr(scene.gate.native, "status", asked.append)
        applied = len(scene.gate.native.given)
        await ModelsFolder(scene.tree, scene.gate.control).sync()
        assert asked == []
        assert len(scene.gate.native.given) == applied

    play(tmp_path, work)


def test_live_traffic_stays_where_a_person_moved_it(tmp_path: Path) -> None:
    async def work(scene: Scene) -> None:
        scene.place("digits", "1")
        await scene.folder.sync()
        scene.place("digits", "2", SECOND)
        await scene.folder.sync()
        await scene.gate.control.patch_traffic("digits", weights={}, champion="2")
        await scene.gate.control.patch_traffic("digits", weights={"1": "30%"})
        before = scene.gate.live()
        scene.place("digits", "3")
        await scene.folder.sync()
        assert scene.gate.live() == before
        assert set(await scene.versions()) == {"1", "2", "3"}

    play(tmp_path, work)


def test_other_bytes_under_a_served_name_are_refused_and_change_nothing(tmp_path: Path) -> None:
    async def work(scene: Scene) -> None:
        scene.place("digits", "1")
        await scene.folder.sync()
        digest = (await scene.gate.control.get("digits"))["versions"]["1"]["digest"]
        scene.place("digits", "1", SECOND)
        scene.place("digits", "2", SECOND)
        await scene.folder.sync()
        view = await scene.gate.control.get("digits")
        assert view["versions"]["1"]["digest"] == digest
        assert view["traffic"]["champion"] == "1"
        waits, refusal = (await scene.gate.control.models())["refusals"]
        assert (refusal["endpoint"], refusal["version"], refusal["pinned"]) == ("digits", "1", digest)
        assert (waits["endpoint"], waits["version"], waits["pinned"]) == ("digits", None, None)
        assert scene.heard("refused: ")
        assert scene.heard("new folders wait")
        scene.place("digits", "1")
        await scene.folder.sync()
        assert set(await scene.versions()) == {"1", "2"}
        assert (await scene.gate.control.models())["refusals"] == []

    play(tmp_path, work)


def test_a_folder_that_disappears_unloads_nothing_that_is_live(tmp_path: Path) -> None:
    async def work(scene: Scene) -> None:
        gone = scene.place("digits", "1")
        await scene.folder.sync()
        shutil.rmtree(gone)
        await scene.folder.sync()
        assert scene.gate.live()[0] == "1"
        scene.place("digits", "2", SECOND)
        await scene.folder.sync()
        assert scene.gate.live()[0] == "1"
        assert scene.heard("1 is live and has no usable folder")

    play(tmp_path, work)


def test_an_idle_version_whose_folder_is_gone_leaves_with_the_next_change(tmp_path: Path) -> None:
    async def work(scene: Scene) -> None:
        old = scene.place("digits", "1")
        scene.place("digits", "2", SECOND)
        await scene.folder.sync()
        shutil.rmtree(old)
        scene.place("digits", "3")
        await scene.folder.sync()
        assert await scene.versions() == {"2": "champion", "3": "idle"}

    play(tmp_path, work)


def test_an_endpoint_that_a_person_described_is_left_alone(tmp_path: Path) -> None:
    async def work(scene: Scene) -> None:
        await scene.gate.apply(document())
        scene.place("digits", "1")
        await scene.folder.sync()
        await scene.folder.sync()
        assert set(await scene.versions()) == {"v1", "v2", "v3"}
        assert sum("is not used for it" in text for text in scene.said) == 1

    play(tmp_path, work)


def test_a_frozen_endpoint_takes_new_folders_once_it_is_unfrozen(tmp_path: Path) -> None:
    async def work(scene: Scene) -> None:
        scene.place("digits", "1")
        await scene.folder.sync()
        await scene.gate.control.freeze("digits")
        scene.place("digits", "2", SECOND)
        await scene.folder.sync()
        await scene.folder.sync()
        assert set(await scene.versions()) == {"1"}
        assert sum("is frozen" in text for text in scene.said) == 1
        await scene.gate.control.unfreeze("digits")
        await scene.folder.sync()
        assert set(await scene.versions()) == {"1", "2"}

    play(tmp_path, work)


def test_a_file_that_is_no_model_is_said_and_keeps_no_other_waiting(tmp_path: Path) -> None:
    async def work(scene: Scene) -> None:
        broken = scene.place("broken", "1")
        (broken / "model.onnx").write_bytes(b"this is no model")
        scene.place("digits", "1")
        (scene.tree / "digits" / "half-copied").mkdir()
        await scene.folder.sync()
        assert set(await scene.versions()) == {"1"}
        assert await scene.states() == {"broken": "failed", "digits": "ready"}
        assert scene.heard("broken")
        assert scene.heard("half-copied: holds no model.onnx")

    play(tmp_path, work)


def test_a_new_version_that_does_not_load_is_set_aside_and_the_others_follow(tmp_path: Path) -> None:
    async def work(scene: Scene) -> None:
        scene.place("digits", "1")
        await scene.folder.sync()
        scene.gate.native.failing["2"] = "unsupported operator"
        scene.place("digits", "2", SECOND)
        scene.place("digits", "3")
        await scene.folder.sync()
        await scene.folder.sync()
        assert set(await scene.versions()) == {"1", "3"}
        assert scene.heard("unsupported operator")

    play(tmp_path, work)


def test_a_restart_applies_nothing_again(tmp_path: Path) -> None:
    async def first(scene: Scene) -> None:
        scene.place("digits", "1")
        await scene.folder.sync()

    async def second(scene: Scene) -> None:
        await scene.folder.sync()
        assert (await scene.gate.control.get("digits"))["revision"] == 1
        assert scene.said == []

    play(tmp_path, first)
    play(tmp_path, second, FakeNative())


def test_a_tree_that_is_not_there_is_an_error_at_the_start(tmp_path: Path) -> None:
    async def work(scene: Scene) -> None:
        shutil.rmtree(scene.tree)
        with pytest.raises(StorageFailed, match="does not exist"):
            await scene.folder.sync()

    play(tmp_path, work)


def test_at_first_sight_a_version_that_does_not_load_keeps_no_other_unserved(tmp_path: Path) -> None:
    async def work(scene: Scene) -> None:
        scene.gate.native.failing["2"] = "unsupported operator"
        for version in ("1", "2", "3"):
            scene.place("digits", version, SECOND if version == "2" else FIRST)
        await scene.folder.sync()
        assert await scene.versions() == {"1": "idle", "3": "champion"}
        assert scene.heard("unsupported operator")

    play(tmp_path, work)


def test_at_first_sight_no_lower_version_takes_the_place_of_a_champion_that_does_not_load(
    tmp_path: Path,
) -> None:
    async def work(scene: Scene) -> None:
        scene.gate.native.failing["2"] = "unsupported operator"
        scene.place("digits", "1")
        scene.place("digits", "2", SECOND)
        await scene.folder.sync()
        assert await scene.states() == {"digits": "failed"}
        with pytest.raises(ModelNotReady, match="never served: .*unsupported operator"):
            await scene.gate.control.get("digits")
        assert "unsupported operator" in scene.gate.native.refused["digits"][""]
        assert scene.heard("were not applied: digits: unsupported operator")

    play(tmp_path, work)


def test_the_watch_outlives_a_pass_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(scene: Scene) -> None:
        passes: list[float | None] = []

        async def sync(now: float | None = None, *, patience_seconds: float | None = None) -> list[str]:
            passes.append(now)
            raise TypeError("a defect")

        monkeypatch.setattr(scene.folder, "sync", sync)
        monkeypatch.setattr(background, "_PAUSE_AFTER_DEFECT_SECONDS", 0.001)
        loops = background.Background(lambda: 7.0)
        loops.run("models_folder", scene.folder.turn)
        await until(lambda: len(passes) > 2)
        await loops.close()
        assert loops.status()["models_folder"].failures > 2
        assert sum("a defect" in text for text in scene.said) == 1

    play(tmp_path, work)


def test_an_endpoint_whose_load_hangs_keeps_no_other_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(scene: Scene) -> None:
        scene.place("bad", "1")
        scene.place("good", "1")
        apply, released = scene.gate.control.apply, asyncio.Event()

        async def hang(document: Document, **options: Any) -> Any:
            if document.endpoint.name == "bad":
                await released.wait()
            return await apply(document, **options)

        async def only_bad_is_left() -> None:
            async with asyncio.timeout(60):
                while await scene.folder.sync(patience_seconds=0.0) != ["bad"]:
                    pass

        monkeypatch.setattr(scene.gate.control, "apply", hang)
        await only_bad_is_left()
        assert await scene.versions("good") == {"1": "champion"}
        # The next pass neither begins it again nor waits for it.
        scene.place("later", "1")
        await only_bad_is_left()
        assert await scene.versions("later") == {"1": "champion"}
        released.set()
        assert await scene.folder.sync() == []
        assert await scene.versions("bad") == {"1": "champion"}

    play(tmp_path, work)


def test_what_is_no_number_is_loaded_without_traffic_and_a_line_says_so(tmp_path: Path) -> None:
    async def work(scene: Scene) -> None:
        for version in ("1.9.9", "v1.10.0", "1.10.1-rc1", "old", "Untitled"):
            scene.place("digits", version, SECOND if version == "old" else FIRST)
        (scene.tree / "digits" / "latest").symlink_to("v1.10.0")
        await scene.folder.sync()
        roles = await scene.versions()
        assert roles.pop("v1.10.0") == "champion"
        assert roles == dict.fromkeys(["1.9.9", "1.10.1-rc1", "old", "Untitled", "latest"], "idle")
        assert scene.gate.live() == ("v1.10.0", [], "")
        for said in (
            "latest is a link to v1.10.0: it is loaded and gets no traffic yet",
            "old is no number: it is loaded",
            "1.10.1-rc1 is not a number alone, but begins with one: it is loaded",
            "headgate traffic digits Untitled=10%",
        ):
            assert scene.heard(said)
        assert await scene.refused() == {}

    play(tmp_path, work)


def test_a_word_that_is_alone_is_champion_and_what_comes_later_gets_nothing(tmp_path: Path) -> None:
    async def work(scene: Scene) -> None:
        scene.place("digits", "production")
        await scene.folder.sync()
        assert await scene.versions() == {"production": "champion"}
        scene.place("digits", "7", SECOND)
        scene.place("digits", "backup")
        await scene.folder.sync()
        assert await scene.versions() == {"production": "champion", "7": "idle", "backup": "idle"}
        assert scene.heard("backup is no number: it is loaded")
        assert scene.heard("digits: 7 is loaded")

    play(tmp_path, work)


def test_several_words_are_not_served_until_something_says_which(tmp_path: Path) -> None:
    async def work(scene: Scene) -> None:
        scene.place("digits", "old")
        scene.place("digits", "new", SECOND)
        scene.place("two", "a")
        scene.place("two", "b", SECOND)
        scene.place("other", "1")
        await scene.folder.sync()
        assert await scene.states() == {"digits": "failed", "two": "failed", "other": "ready"}
        assert "none of new, old is a number" in (await scene.refused())["digits"]
        await scene.folder.sync()
        assert sum("none of new, old" in text for text in scene.said) == 1
        scene.place("digits", "1")
        shutil.rmtree(scene.tree / "two" / "b")
        await scene.folder.sync()
        assert (await scene.versions())["1"] == "champion"
        assert await scene.versions("two") == {"a": "champion"}
        assert await scene.refused() == {}

    play(tmp_path, work)


def test_what_did_not_load_is_listed_with_its_reason_until_it_is_mended(tmp_path: Path) -> None:
    async def work(scene: Scene) -> None:
        scene.gate.native.failing["2"] = "unsupported operator"
        scene.gate.native.failing["9"] = "unsupported operator"
        scene.place("good", "1")
        scene.place("good", "2", SECOND)
        scene.place("good", "3")
        scene.place("champion", "9")
        cut = scene.place("cut", "1") / "model.onnx"
        cut.write_bytes(FIRST.read_bytes()[:40])
        shutil.copy(FIRST, scene.place("loose", "x").with_name("model.onnx"))
        shutil.rmtree(scene.tree / "loose" / "x")
        shutil.copy(FIRST, scene.tree / "lost.onnx")
        (scene.tree / "empty" / "1").mkdir(parents=True)
        (scene.tree / "none").mkdir()
        (scene.tree / "bad name" / "1").mkdir(parents=True)
        (scene.tree / "away").symlink_to("/proc")
        await scene.folder.sync()
        refused = await scene.refused()
        reasons = {
            "good/2": "unsupported operator",
            "champion": "unsupported operator",
            "cut/1": "not an ONNX model, or not whole",
            "loose/model.onnx": "move it to loose/1/model.onnx",
            "lost.onnx": "move it to lost/1/model.onnx",
            "empty/1": "holds no model.onnx (yet)",
            "none": "holds no version",
            "bad name": "its name is not valid for endpoints",
            "away": "is a link that leaves",
        }
        assert refused.keys() == reasons.keys()
        for place, reason in reasons.items():
            assert reason in refused[place]
            assert sum(f"{place}: " in text for text in scene.said) == 1
        assert (await scene.versions("good"))["3"] == "champion"
        shutil.rmtree(scene.tree)
        for version in ("1", "2", "3"):
            scene.place("good", version, SECOND if version == "2" else FIRST)
        scene.gate.native.failing.clear()
        await scene.folder.sync()
        assert await scene.refused() == {}
        assert set(await scene.versions("good")) == {"1", "2", "3"}

    play(tmp_path, work)


def test_a_folder_that_is_empty_or_gone_is_listed_as_such(tmp_path: Path) -> None:
    async def work(scene: Scene) -> None:
        await scene.folder.sync()
        assert "is empty" in (await scene.refused())["."]
        scene.tree.rmdir()
        with pytest.raises(StorageFailed):
            await scene.folder.sync()
        assert "does not exist" in (await scene.refused())["."]
        scene.place("digits", "1")
        await scene.folder.sync()
        assert await scene.refused() == {}

    play(tmp_path, work)
