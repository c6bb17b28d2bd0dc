"""Which process listens at an address: real sockets of real processes, this one among them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from headgate.errors import Conflict
from headgate.gateway import units
from headgate.gateway.addresses import meet, processes_at
from headgate.gateway.settings_table import SETTINGS
from headgate.gateway.sockets import bind
from headgate.gateway.units import Address
from support.gateway import ANY_PORT

CHILD = "import sys; print(flush=True); sys.stdin.readline()"


@contextmanager
def listening(host: str) -> Iterator[Address]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as sock:
        sock.bind((host, 0))
        sock.listen()
        yield Address(host, sock.getsockname()[1])


def test_the_tests_gateways_leave_every_port_to_the_system() -> None:
    assert ANY_PORT.keys() == {one.key for one in SETTINGS if one.parse is units.parse_address}
    assert {units.parse_address(address).port for address in ANY_PORT.values()} == {0}


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::"])
def test_a_taken_port_is_refused_with_the_process_that_has_it(host: str) -> None:
    with listening(host) as address, pytest.raises(Conflict) as refused:
        bind(address, "http")
    assert f"by process {os.getpid()} (" in refused.value.message
    assert "--http HOST:PORT" in refused.value.message


def test_a_process_is_seen_by_whatever_address_it_listens_at() -> None:
    with listening("0.0.0.0") as everywhere:
        found = processes_at(Address("127.0.0.1", everywhere.port))
        assert [one.pid for one in found] == [os.getpid()]
        assert [one.pid for one in processes_at(Address("localhost", everywhere.port))] == [os.getpid()]
        assert [one.pid for one in processes_at(Address("any.example", everywhere.port))] == [os.getpid()]
        assert processes_at(Address("::1", everywhere.port)) == []
    with listening("127.0.0.2") as other:
        assert processes_at(Address("127.0.0.1", other.port)) == []


def test_a_port_that_nobody_listens_at_has_no_process() -> None:
    with listening("127.0.0.1") as address:
        pass
    assert processes_at(address) == []


def test_all_who_share_a_socket_are_listed_and_their_words_are_harmless() -> None:
    with listening("127.0.0.1") as address, socket.socket() as mine:
        mine.bind(("127.0.0.1", 0))
        mine.listen()
        command = [sys.executable, "-c", CHILD, "\x1b[2J\n" + "x" * 200]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[mine.fileno()]
        ) as child:
            assert child.stdout is not None
            child.stdout.readline()
            found = processes_at(Address("127.0.0.1", mine.getsockname()[1]))
            child.communicate(b"\n")
        assert [one.pid for one in found] == sorted([os.getpid(), child.pid])
        assert [one.pid for one in processes_at(address)] == [os.getpid()]
    shown = next(one.command for one in found if one.pid == child.pid)
    assert shown.isprintable()
    assert len(shown) == 80


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("0.0.0.0", "127.0.0.1", True),
        ("::", "127.0.0.1", True),
        ("::1", "0.0.0.0", False),
        ("localhost", "::1", True),
        ("gateway.example", "0.0.0.0", True),
        ("gateway.example", "127.0.0.1", False),
    ],
)
def test_two_hosts_that_meet(one: str, two: str, same: bool) -> None:
    assert meet(one, two) is meet(two, one) is same
