"""Files that somebody named: whatever is no regular file is refused, and nothing waits for it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from headgate.regular_files import NotRegularError, check_regular, open_regular, read_regular


def test_a_regular_file_is_read_links_followed(tmp_path: Path) -> None:
    path, link = tmp_path / "file", tmp_path / "link"
    path.write_bytes(b"12345")
    link.symlink_to(path)
    for one in (path, link):
        assert read_regular(one, 5) == b"12345"
        check_regular(one)
    with pytest.raises(OSError, match="more than 4 bytes"):
        read_regular(path, 4)
    with pytest.raises(OSError, match="it is a link"):
        open_regular(link, os.O_NOFOLLOW)


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        before = len(list(Path("/proc/self/fd").iterdir()))
        for path, kind in (
            (tmp_path / "pipe", "a pipe"),
            (tmp_path / "link", "a pipe"),
            (tmp_path / "folder", "a folder"),
            (tmp_path / "socket", "a socket"),
            (Path("/dev/zero"), "a device"),
        ):
            for work in (open_regular, check_regular, lambda path: read_regular(path, 1)):
                with pytest.raises(NotRegularError, match=f"it is {kind}, and a regular file is expected"):
                    work(path)
        assert len(list(Path("/proc/self/fd").iterdir())) == before
    for missing in (tmp_path / "none", tmp_path / "folder" / "none"):
        with pytest.raises(FileNotFoundError):
            open_regular(missing)


def test_a_pipe_that_takes_the_place_of_a_file_does_not_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.touch()
    look = Path.stat

    def swapped(self: Path, **options: bool) -> os.stat_result:
        found = look(self, **options)
        if self == path:
            path.unlink()
            os.mkfifo(path)
        return found

    monkeypatch.setattr(Path, "stat", swapped)
    with pytest.raises(NotRegularError, match="it is a pipe"):
        open_regular(path)
