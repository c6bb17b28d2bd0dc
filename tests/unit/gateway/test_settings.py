from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from headgate.cli.serve import read_settings, setting_options
from headgate.errors import InvalidArgument
from headgate.gateway.settings import Settings
from headgate.gateway.settings_table import BY_NAME
from headgate.gateway.units import Address, Cores, cores, default_state, memory, parse_address

HOME = {"HOME": "/home/somebody"}


def read(given: Mapping[str, Any] | None = None, variables: Mapping[str, str] | None = None) -> Settings:
    return read_settings(given or {}, (), {**HOME, **(variables or {})})


def config(folder: Path, text: str) -> Path:
    path = folder / "headgate.yaml"
    path.write_text(text)
    return path


def test_without_anything_the_defaults_hold() -> None:
    settings = read()
    assert settings.http == Address("127.0.0.1", 8000)
    assert settings.observe == Address("127.0.0.1", 8002)
    assert settings.admin == Address("127.0.0.1", 8003)
    assert settings.state == Path("/home/somebody/.local/state/headgate")
    assert (settings.max_body_bytes, settings.sketch_memory_bytes, settings.sketches) == (
        64 << 20,
        256 << 20,
        True,
    )
    assert (settings.drain_delay_ms, settings.drain_grace_ms) == (0, 30_000)
    assert settings.io_threads == settings.pool_threads == cores().usable


def test_the_command_line_goes_before_the_environment_and_that_before_the_file(tmp_path: Path) -> None:
    path = config(tmp_path, "max-body: 1MiB\nio-threads: 1\ndrain-delay: 1s\n")
    variables = {"HEADGATE_MAX_BODY": "2MiB", "HEADGATE_IO_THREADS": "2", "HEADGATE_CONFIG": str(path)}
    settings = read({"max_body": "3MiB"}, variables)
    assert (settings.max_body_bytes, settings.io_threads, settings.drain_delay_ms) == (3 << 20, 2, 1000)


def test_a_variable_names_several_hosts_with_commas_and_an_empty_one_is_not_set() -> None:
    settings = read(variables={"HEADGATE_ADMIN_HOST": "a.example, b.example", "HEADGATE_HTTP": ""})
    assert settings.admin_hosts == ("a.example", "b.example")
    assert settings.http.port == 8000


def test_an_option_given_several_times_replaces_the_variable(tmp_path: Path) -> None:
    path = config(tmp_path, "admin-host: [c.example, d.example]\n")
    assert read({"config": path}).admin_hosts == ("c.example", "d.example")
    assert read({"config": path, "admin_host": ("e.example",)}).admin_hosts == ("e.example",)


def test_paths_of_the_file_are_below_its_folder_and_switches_may_be_yaml(tmp_path: Path) -> None:
    settings = read({"config": config(tmp_path, "state: st\nmodels: /srv/models\nsketches: off\n")})
    assert settings.state == tmp_path / "st"
    assert settings.models == Path("/srv/models")
    assert settings.sketches is False
    assert read({"config": config(tmp_path, "sketches: false\n")}).sketches is False


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("max_body: 1MiB\n", "max-body"),
        ("colour: red\n", "the settings are"),
        ("http: 1:2\nhttp: 3:4\n", "not YAML"),
        ("- http\n", "setting: value"),
        ("http: [a, b]\n", "one value"),
        ("io-threads: true\n", "io-threads"),
        ("state: {a: b}\n", "state"),
        ("io-threads: 1.5\n", "io-threads"),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_what_would_be_right(
    tmp_path: Path, text: str, says: str
) -> None:
    with pytest.raises(InvalidArgument, match="headgate.yaml") as caught:
        read({"config": config(tmp_path, text)})
    assert says in caught.value.message


def test_a_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="cannot be read"):
        read({"config": tmp_path / "none.yaml"})


def test_an_empty_file_says_nothing(tmp_path: Path) -> None:
    assert read({"config": config(tmp_path, "# nothing\n")}).http.port == 8000


def test_every_bad_value_is_listed_with_the_place_it_was_written_at(tmp_path: Path) -> None:
    path = config(tmp_path, "sketches: maybe\n")
    with pytest.raises(InvalidArgument) as caught:
        read({"http": "8000", "config": path}, {"HEADGATE_MAX_BODY": "64"})
    faults = caught.value.detail["faults"]
    assert [fault.split(": ")[0] for fault in faults] == ["--http", "HEADGATE_MAX_BODY", str(path)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("io-threads", "0"),
        ("io-threads", "two"),
        ("drain-delay", "5"),
        ("admin-host", "http://x"),
        ("state", ""),
    ],
)
def test_a_value_of_the_wrong_form_is_refused(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        BY_NAME[name].parse(value)


@pytest.mark.parametrize(
    ("text", "host", "port", "back"),
    [
        ("127.0.0.1:0", "127.0.0.1", 0, "127.0.0.1:0"),
        (":8000", "127.0.0.1", 8000, "127.0.0.1:8000"),
        ("[::1]:8000", "::1", 8000, "[::1]:8000"),
        ("http://127.0.0.1:8003/", "127.0.0.1", 8003, "127.0.0.1:8003"),
        ("gate.example:1", "gate.example", 1, "gate.example:1"),
    ],
)
def test_addresses(text: str, host: str, port: int, back: str) -> None:
    address = parse_address(text)
    assert (address.host, address.port, str(address)) == (host, port, back)


@pytest.mark.parametrize(
    "text", ["", "8000", "host", "host:", "host:x", "host:65536", "::1:80", "host:-1", "host:²"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"HOST:PORT|brackets"):
        parse_address(text)


def test_the_state_folder_follows_xdg() -> None:
    assert default_state({"XDG_STATE_HOME": "/x", "HOME": "/h"}) == Path("/x/headgate")
    assert default_state({"HOME": "/h"}) == Path("/h/.local/state/headgate")


def test_the_quota_is_the_smallest_from_the_own_group_up(tmp_path: Path) -> None:
    own = tmp_path / "membership"
    own.write_text("0::/a/b\n")
    root = tmp_path / "cgroup"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "cpu.max").write_text("150000 100000\n")
    (root / "a" / "b" / "cpu.max").write_text("max 100000\n")
    assert cores(root, own).quota == 1.5


def test_the_old_hierarchy_and_no_hierarchy_are_read(tmp_path: Path) -> None:
    assert cores(tmp_path, tmp_path / "none").quota is None
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert cores(tmp_path, tmp_path / "none").quota is None
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("200000\n")
    assert cores(tmp_path, tmp_path / "none").quota == 2.0


@pytest.mark.parametrize(
    ("given", "usable"), [(Cores(8, None), 8), (Cores(8, 2.9), 2), (Cores(2, 4.0), 2), (Cores(4, 0.5), 1)]
)
def test_a_quota_may_be_a_part_of_a_core(given: Cores, usable: int) -> None:
    assert given.available == min(given.affinity, given.quota or given.affinity)
    assert max(1, int(given.available)) == usable


@pytest.mark.parametrize(
    ("given", "usable"), [(Cores(8, None), 8), (Cores(8, 2.9), 2), (Cores(2, 4.0), 2), (Cores(4, 0.5), 1)]
)
def test_threads_are_made_for_whole_cores(given: Cores, usable: int) -> None:
    assert given.usable == usable


def test_a_flag_is_given_bare_and_elsewhere_with_on_or_off(tmp_path: Path) -> None:
    assert read({}).allow_repository_control is False
    assert read({}, {"HEADGATE_ALLOW_REPOSITORY_CONTROL": "on"}).allow_repository_control is True
    assert read({"config": config(tmp_path, "triton-metrics: true\n")}).triton_metrics is True
    seen: list[Settings] = []

    @click.command()
    @setting_options
    def command(**given: Any) -> None:
        seen.append(read_settings(given, [], {}))

    given = ["--allow-repository-control", "--access-log", "log.jsonl", "--access-log-share", "0.5%"]
    assert CliRunner().invoke(command, given).exit_code == 0
    assert seen[0].allow_repository_control is True
    assert (seen[0].access_log, seen[0].access_log_share) == (Path("log.jsonl").absolute(), 0.005)


def test_the_command_line_turns_off_what_the_environment_turns_on() -> None:
    seen: list[Settings] = []

    @click.command()
    @setting_options
    def command(**given: Any) -> None:
        seen.append(read_settings(given, [], {"HEADGATE_TRITON_METRICS": "on"}))

    for given in [], ["--no-triton-metrics"]:
        assert CliRunner().invoke(command, given).exit_code == 0
    assert [settings.triton_metrics for settings in seen] == [True, False]


@pytest.mark.parametrize(
    ("given", "together"),
    [
        ({"http": "127.0.0.1:9000", "grpc": "127.0.0.1:9000"}, "--http 127.0.0.1:9000 and --grpc"),
        ({"http": "0.0.0.0:8003"}, "--http 0.0.0.0:8003 and --admin"),
        ({"observe": "127.0.0.1:8003"}, "--observe 127.0.0.1:8003 and --admin"),
        ({"observe": "localhost:8003"}, "--observe localhost:8003 and --admin"),
        ({"http": "LOCALHOST:9000", "grpc": "[::1]:9000"}, "--http LOCALHOST:9000 and --grpc"),
        ({"http": "[::]:8003"}, "and --admin"),
        ({"http": "[0:0:0:0:0:0:0:0]:8003"}, "and --admin"),
        ({"http": "[::1]:9000", "grpc": "[0:0::1]:9000"}, "and --grpc"),
        ({"http": "gateway:9000", "grpc": "Gateway:9000"}, "and --grpc"),
        ({"http": "gateway:9000", "grpc": "0.0.0.0:9000"}, "and --grpc"),
    ],
)
def test_no_two_ports_are_at_one_place(given: dict[str, str], together: str) -> None:
    with pytest.raises(InvalidArgument, match=together):
        read(given)


def test_any_number_of_ports_may_be_chosen_by_the_system() -> None:
    assert read({"http": "127.0.0.1:0", "grpc": "127.0.0.1:0"}).grpc.port == 0


@pytest.mark.parametrize("host", ["127.0.0.2", "[::1]", "gateway"])
def test_one_port_at_two_places_is_two(host: str) -> None:
    assert read({"http": f"{host}:8003"}).http.port == 8003
    assert read({"http": "0.0.0.0:9000", "grpc": "[::1]:9000"}).grpc.port == 9000


@pytest.mark.parametrize("text", ["1", "1.5", "101%", "-1%", "nan%", "%", "1% of them"])
def test_a_share_has_a_percent_sign_and_lies_within_the_whole(text: str) -> None:
    with pytest.raises(InvalidArgument, match="is not a share"):
        read({"access_log_share": text})


def test_memory_is_the_least_of_the_machine_and_the_groups_of_either_version(tmp_path: Path) -> None:
    machine, own, root = tmp_path / "meminfo", tmp_path / "groups", tmp_path / "cgroup"
    machine.write_text("MemTotal:       16384 kB\nMemFree:        1 kB\n")
    assert memory(root, tmp_path / "none", machine) == 16 << 20
    own.write_text("3:cpu,memory:/v1/pod\n0::/slice/unit\n")
    for folder, name, text in (
        ("slice/unit", "memory.max", "max"),
        ("slice", "memory.max", str(8 << 20)),
        ("memory/v1/pod", "memory.limit_in_bytes", str(4 << 20)),
        ("memory", "memory.limit_in_bytes", str((1 << 63) - 4096)),
        ("", "memory.max", str(2 << 20)),
    ):
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / name).write_text(text + "\n")
    assert memory(root, own, machine) == 2 << 20
    (root / "memory.max").unlink()
    assert memory(root, own, machine) == 4 << 20
    (root / "memory/v1/pod/memory.limit_in_bytes").unlink()
    assert memory(root, own, machine) == 8 << 20
    # In a container that sees only its own part, the path may lead nowhere, and the root is its own.
    (root / "slice/memory.max").unlink()
    (root / "memory.max").write_text(str(1 << 20))
    own.write_text("0::/../../elsewhere\n")
    assert memory(root, own, machine) == 1 << 20


def test_memory_for_requests_follows_from_the_machine_and_has_room_for_the_largest_body() -> None:
    assert read().request_memory_bytes == max(memory() // 4, -(-2 * (64 << 20) * 8 // 7))
    given = read({"request_memory": "1GiB", "max_body": "64MiB"})
    assert given.request_memory_bytes == 1 << 30
    with pytest.raises(InvalidArgument, match="--request-memory"):
        read({"request_memory": "100MiB", "max_body": "64MiB"})
