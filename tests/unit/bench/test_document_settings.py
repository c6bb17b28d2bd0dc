"""A document with other ``run:`` settings: nothing else changes, in the text and in what it says; and how it is written."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.bench import document_settings
from headgate.bench.document_settings import difference, patched, read_settings
from headgate.bench.run_settings import Choice, choice_of
from headgate.errors import Conflict, HeadgateError, InvalidArgument, StorageFailed

DOCUMENT = """\
# what it serves
apiVersion: headgate/v1
kind: Endpoint
name: digits
versions:
  "1": "file:models/digits/1"   # the champion
  "2":
    model: file:models/digits/2
    run: {threads: 2, max_batch: 8, buckets: [4, 8], arena: true}
  prior: {constant: {label: 0}}
traffic:
  champion: "1"
  rules:
    - {when: {header.x-tester: "1"}, to: "2"}
limits: {timeout: 2s}
"""

BATCHED = Choice("pool", 2, 1, 16, 150)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "digits.yaml"
    made.write_text(DOCUMENT)
    return made


# === the text ===


def test_only_the_lines_of_the_version_change() -> None:
    after = patched(DOCUMENT, "digits", "1", BATCHED)

    changed = [line for line in difference(DOCUMENT, after, "digits.yaml").splitlines() if line[:1] in "+-"]
    assert changed == [
        "--- digits.yaml",
        "+++ digits.yaml",
        '-  "1": "file:models/digits/1"   # the champion',
        '+  "1": {model: "file:models/digits/1", run: {placement: pool, instances: 2, max_batch: 16, max_delay: 150us}} # the champion',
    ]
    assert difference(DOCUMENT, DOCUMENT, "digits.yaml") == ""


def test_other_settings_of_a_version_stay_but_buckets_that_no_longer_fit() -> None:
    same = patched(DOCUMENT, "digits", "2", Choice(threads=2, max_batch=8))
    other = patched(DOCUMENT, "digits", "2", Choice("pool", 1))

    assert "buckets: [4, 8]" in same
    assert "arena: true" in other
    assert "buckets" not in other
    assert "max_batch" not in other


@pytest.mark.parametrize(("endpoint", "version"), [("other", "1"), ("digits", "3")])
def test_what_the_document_does_not_have_is_refused(endpoint: str, version: str) -> None:
    with pytest.raises(InvalidArgument, match="no (endpoint other|version 3)"):
        patched(DOCUMENT, endpoint, version, Choice())


def test_json_stays_json() -> None:
    document = '{\n  "kind": "Endpoint",\n  "name": "digits",\n  "versions": {\n    "1": "file:a"\n  }\n}\n'

    after = patched(document, "digits", "1", BATCHED)

    assert json.loads(after)["versions"]["1"] == {"model": "file:a", "run": BATCHED.written}
    assert after.startswith('{\n  "kind": "Endpoint",\n')


def test_line_ends_and_the_byte_order_mark_stay() -> None:
    after = patched("\ufeff" + DOCUMENT.replace("\n", "\r\n"), "digits", "1", BATCHED)

    assert after.removeprefix("\ufeff").replace("\r\n", "\n") == patched(DOCUMENT, "digits", "1", BATCHED)
    assert after.startswith("\ufeff")
    assert "\n" not in after.replace("\r\n", "")


@pytest.mark.parametrize("version", ["1", "2"])
def test_settings_that_two_versions_share_are_written_for_one_of_them(tmp_path: Path, version: str) -> None:
    path = tmp_path / "shared.yaml"
    path.write_text(
        "apiVersion: headgate/v1\nkind: Endpoint\nname: digits\nversions:\n"
        '  "1": {model: "file:a", run: &both {threads: 2, arena: true}}\n'
        '  "2": {model: "file:b", run: *both}\n'
        'traffic: {champion: "1"}\n'
    )
    found = read_settings(path, "digits", version)
    path.write_text(found.with_choice(BATCHED))

    other = "2" if version == "1" else "1"
    assert read_settings(path, "digits", version).present == BATCHED
    assert read_settings(path, "digits", other).present == Choice(threads=2)


def test_only_the_endpoint_that_is_named_changes_in_a_file_of_several(path: Path) -> None:
    second = DOCUMENT.replace("name: digits", "name: other").replace("# what it serves\n", "")
    path.write_text(f"{DOCUMENT}---\n{second}")

    path.write_text(read_settings(path, "other", None).with_choice(BATCHED))

    assert read_settings(path, "digits", None).present == Choice()
    assert read_settings(path, "other", None).present == BATCHED
    assert path.read_text().startswith(DOCUMENT)


choices = st.builds(
    Choice,
    placement=st.sampled_from(["auto", "inline", "pool"]),
    instances=st.none() | st.integers(1, 8),
    threads=st.integers(0, 8),
    max_batch=st.sampled_from([1, 2, 8, 64]),
    max_delay_us=st.integers(0, 900),
)


@given(choice=choices, back=choices, version=st.sampled_from(["1", "2"]))
def test_settings_are_read_back_and_nothing_else_changes(
    tmp_path_factory: pytest.TempPathFactory, choice: Choice, back: Choice, version: str
) -> None:
    path = tmp_path_factory.mktemp("documents") / "digits.yaml"
    path.write_text(DOCUMENT)
    before = read_settings(path, "digits", version)
    try:
        after = before.with_choice(choice)
    except InvalidArgument:
        return  # a combination that documents do not take
    path.write_text(after)
    again = read_settings(path, "digits", version)
    assert again.present == choice
    lines = {
        line
        for line in DOCUMENT.splitlines()
        if "file:models/digits" not in line and "run:" not in line and '"2":' not in line
    }
    assert lines <= set(after.splitlines())
    try:
        path.write_text(again.with_choice(back))
    except InvalidArgument:
        return
    assert read_settings(path, "digits", version).present == back


# === which document ===


@pytest.mark.parametrize(
    ("endpoint", "version", "part"),
    [
        ("digit", None, 'did you mean "digits"?'),
        ("digits", "12", "no version 12"),
        ("digits", "prior", "is a constant answer"),
    ],
)
def test_a_version_that_has_no_settings_is_refused(
    path: Path, endpoint: str, version: str | None, part: str
) -> None:
    with pytest.raises(InvalidArgument) as raised:
        read_settings(path, endpoint, version)
    assert part in raised.value.message
    assert str(path) in raised.value.message


def test_a_device_is_refused(path: Path) -> None:
    path.write_text(DOCUMENT.replace("arena: true", "device: cuda:0"))
    with pytest.raises(InvalidArgument, match="runs on cuda:0"):
        read_settings(path, "digits", "2")


@pytest.mark.parametrize(
    ("content", "part"),
    [(b"\xff", "not UTF-8"), (b"a: [", ""), (DOCUMENT.replace("run:", "rum:").encode(), "rum")],
)
def test_a_document_with_faults_is_refused(path: Path, content: bytes, part: str) -> None:
    path.write_bytes(content)
    with pytest.raises(HeadgateError) as raised:
        read_settings(path, "digits", None)
    assert part in raised.value.message


def test_a_document_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="cannot be read"):
        read_settings(tmp_path / "no.yaml", "digits", None)


def test_a_text_that_would_say_something_else_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = read_settings(path, "digits", None)
    monkeypatch.setattr(
        document_settings,
        "patched",
        lambda text, *_: patched(text, "digits", "1", BATCHED).replace("timeout: 2s", "timeout: 3s"),
    )
    with pytest.raises(InvalidArgument, match="only the settings of version 1 change"):
        found.with_choice(BATCHED)


# === writing ===


def test_it_is_written_in_one_step_and_keeps_its_mode(path: Path) -> None:
    path.chmod(0o640)
    found = read_settings(path, "digits", None)

    found.write(BATCHED)

    assert path.read_text() == found.with_choice(BATCHED)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    assert read_settings(path, "digits", None).present == BATCHED


def test_a_link_stays_one(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.yaml"
    link.symlink_to(path)

    read_settings(link, "digits", None).write(BATCHED)

    assert link.is_symlink()
    assert read_settings(path, "digits", None).present == BATCHED


def test_a_document_that_was_edited_meanwhile_stays(path: Path) -> None:
    found = read_settings(path, "digits", None)
    path.write_text(DOCUMENT + "# mine\n")

    with pytest.raises(Conflict, match="was changed meanwhile"):
        found.write(BATCHED)
    assert path.read_text() == DOCUMENT + "# mine\n"


def test_a_full_disk_leaves_it_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = read_settings(path, "digits", None)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFailed, match="No space left"):
        found.write(BATCHED)
    assert path.read_text() == DOCUMENT
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_what_is_printed_is_a_patch(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    found = read_settings(Path(path.name), "digits", None)
    after = found.with_choice(BATCHED)

    subprocess.run(
        ["git", "apply", "-p0"], input=found.patch(BATCHED), text=True, check=True, capture_output=True
    )

    assert path.read_text() == after
    assert choice_of(read_settings(path, "digits", None).endpoint.versions["1"].run) == BATCHED
