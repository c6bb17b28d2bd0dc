"""The state folder is its owner's alone, whatever the umask; one that others can write holds a folder of ours."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headgate import private_files
from headgate.cli.target import GatewayOptions
from headgate.drift.fitting import keep_baseline
from headgate.errors import PermissionDenied
from headgate.gateway import state_folder
from headgate.gateway.settings import Layer, Settings, resolve, validate
from headgate.gateway.units import Cores
from headgate.private_files import state_place
from headgate.registry import ArtifactStore
from headgate.store import Applied, open_store
from headgate.store.applied_file import write_applied
from support.models import TESTS
from support.modes import modes

OTHERS = 54_321


@pytest.fixture(params=[0o000, 0o022, 0o777], ids=["umask-000", "umask-022", "umask-777"])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def settings(state: Path) -> Settings:
    given = validate([Layer(lambda setting: setting.name, {"state": (str(state),)})])
    return resolve(given, (), {}, lambda: Cores(2, None), lambda: 1 << 30)


def fill(state: Path) -> None:
    store = open_store(state)
    artifacts = ArtifactStore(state)
    artifacts.ingest(TESTS / "models" / "identity_fp32.onnx")
    keep_baseline(state, b"{}")
    write_applied(state, Applied())
    private_files.replace_file(state / "admin-token", b"secret")
    assert modes(state) == {}
    store.close()


def test_everything_in_it_is_its_owners_alone(tmp_path: Path, umask: int) -> None:
    state = tmp_path / "above" / "state"
    fill(state)
    assert modes(tmp_path / "above") == {}
    assert state_folder.backup(state, tmp_path / "backup.tar") == []
    assert stat.S_IMODE((tmp_path / "backup.tar").stat().st_mode) == 0o600
    state_folder.restore(tmp_path / "backup.tar", tmp_path / "to" / "restored")
    state_folder.restore(state / "applied.json", tmp_path / "to" / "begun-anew")
    assert modes(tmp_path / "to") == {}


def test_what_is_there_from_before_is_closed_to_others(tmp_path: Path) -> None:
    state = tmp_path / "state"
    fill(state)
    for path in (state, *state.rglob("*")):
        path.chmod(path.stat().st_mode | (0o055 if path.is_dir() else 0o044))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.touch(0o644)
    elsewhere.chmod(0o644)
    (state / "link").symlink_to(elsewhere)
    open_store(state).close()
    (state / "link").unlink()
    assert modes(state) == {}
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o644


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o1777, 0o2770])
def test_a_folder_that_others_can_write_holds_one_of_ours(tmp_path: Path, mode: int) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(mode)
    place = shared / "headgate"
    assert settings(shared).state == place
    fill(place)
    assert modes(place) == {}
    assert stat.S_IMODE(shared.stat().st_mode) == mode
    # Once more, and as the command line finds it.
    assert settings(shared).state == settings(place).state == place
    assert GatewayOptions(state=shared).state_folder({}) == place
    assert GatewayOptions().state_folder({"HEADGATE_STATE": str(shared)}) == place


def test_a_state_from_before_stays_where_it_is(tmp_path: Path) -> None:
    state = tmp_path / "state"
    fill(state)
    state.chmod(0o777)
    assert settings(state).state == state
    open_store(state).close()
    assert stat.S_IMODE(state.stat().st_mode) == 0o700


def test_the_usual_folder_and_one_that_is_not_there_yet_are_used_themselves(tmp_path: Path) -> None:
    assert settings(tmp_path / "new").state == tmp_path / "new"
    assert state_place(tmp_path) == tmp_path


@pytest.fixture
def give_away(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Has another user own a path. Only root can do that; for anybody else this process is another user's from then on."""

    def give(path: Path) -> None:
        if os.geteuid() == 0:
            os.lchown(path, OTHERS, OTHERS)
        else:
            monkeypatch.setattr(os, "geteuid", lambda: OTHERS)

    return give


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o777)
    return folder


def test_a_database_of_another_user_is_no_state_from_before(
    shared: Path, give_away: Callable[[Path], None]
) -> None:
    (shared / "headgate.db").touch()
    assert state_place(shared) == shared
    give_away(shared / "headgate.db")
    assert state_place(shared) == shared / "headgate"


def test_a_folder_of_another_user_is_refused(shared: Path, give_away: Callable[[Path], None]) -> None:
    place = state_place(shared)
    open_store(place).close()
    give_away(place)
    with pytest.raises(PermissionDenied, match=f"{place} belongs to user .*--state"):
        open_store(place)
    with pytest.raises(PermissionDenied, match="belongs to user"):
        private_files.check_owner(place)


def test_a_link_of_another_user_is_refused(
    tmp_path: Path, shared: Path, give_away: Callable[[Path], None]
) -> None:
    (tmp_path / "own").mkdir()
    state_place(shared).symlink_to(tmp_path / "own")
    give_away(shared / "headgate")
    with pytest.raises(PermissionDenied, match="belongs to user"):
        open_store(state_place(shared))


def test_a_link_of_our_own_leads_to_no_folder_of_another_user(
    tmp_path: Path, give_away: Callable[[Path], None]
) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    open_store(tmp_path / "link").close()
    assert modes(tmp_path / "target") == {}
    give_away(tmp_path / "target")
    with pytest.raises(PermissionDenied, match="belongs to user"):
        open_store(tmp_path / "link")


def test_a_volume_of_another_user_may_hold_a_folder_of_ours(tmp_path: Path) -> None:
    # A Kubernetes emptyDir is root's, so nothing is asked of who owns it.
    volume = tmp_path / "volume"
    volume.mkdir()
    volume.chmod(0o777)
    if os.geteuid() == 0:
        os.chown(volume, OTHERS, OTHERS)
    open_store(state_place(volume)).close()
    assert modes(volume / "headgate") == {}
