"""``headgate bench replay`` of captured requests against a generator in virtual time, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from headgate.bench.results import read_result
from headgate.cli import main
from headgate.cli.session import CliEnvironment
from support.captures import SECOND_US, row, write
from support.oip_server import DIGITS, OipServer, serving
from support.virtual_load import VirtualGenerator

PAIRS = {**DIGITS, "inputs": [{"name": "X", "datatype": "FP32", "shape": [-1, 2]}]}


@pytest.fixture
def server() -> Iterator[OipServer]:
    with serving(OipServer(models={"digits": PAIRS})) as found:
        yield found


@pytest.fixture
def generator() -> VirtualGenerator:
    return VirtualGenerator()


@pytest.fixture
def captures(tmp_path: Path) -> Path:
    folder = tmp_path / "state" / "captures" / "digits"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def replay(server: OipServer, generator: VirtualGenerator, tmp_path: Path, captures: Path) -> Any:
    """Runs ``headgate bench replay`` of the endpoint's captures."""
    variables = {"HEADGATE_STATE": str(tmp_path / "state"), "HOME": str(tmp_path)}
    environment = CliEnvironment(variables, make_generator=lambda: generator)

    def invoke(*words: str) -> Result:
        where = [] if "--url" in words else ["--url", server.url]
        return CliRunner().invoke(main, ["bench", "replay", *words, *where], obj=environment)

    return invoke


@pytest.mark.parametrize(("words", "speed"), [((), 1), (("--speed", "4"), 4), (("--speed", "0.5"), 0.5)])
def test_requests_are_due_at_their_times_by_the_speed(
    replay: Any,
    generator: VirtualGenerator,
    captures: Path,
    tmp_path: Path,
    words: tuple[str, ...],
    speed: float,
) -> None:
    write(captures / "1-v1.arrows", [[row(at * SECOND_US, float(at)) for at in (0, 1, 4, 10)]])

    done = replay("digits", *words, "--out", str(tmp_path / "out"))

    assert done.exit_code == 0, done.output
    (plan,) = generator.plans
    arrivals = plan["load"]["open"]["arrivals"]
    assert arrivals["due_ns"] == [round(at * 1e9 / speed) for at in (0, 1, 4, 10)]
    assert arrivals["requests"] == [0, 1, 2, 3]
    kept = read_result(tmp_path / "out")
    assert kept.windows[0].for_ns == round(10e9 / speed)
    assert kept.windows[0].answer.counts.due == 4


def test_what_was_sorted_or_left_out_is_said(replay: Any, captures: Path) -> None:
    rows = [row(0), row(60 * SECOND_US), row(30 * SECOND_US), row(61 * SECOND_US, code="internal")]
    write(captures / "1-v1.arrows", [rows])

    done = replay("digits")

    assert done.exit_code == 0, done.output
    assert "note: 1 captured requests stand behind later ones and were sorted by their time" in done.stdout
    assert "note: 1 captured requests had failed and are left out" in done.stdout


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("digits", "--speed", "0"), "load.speed"),
        (("digits", "--speed", "-2"), "load.speed"),
        (("digits", "--speed", "nan"), "load.speed"),
        (("digits", "--slo", "p99.9=15ms"), "p99.9: it needs 3 688, and this load gives 3"),
        (("digits", "--slo", "p100=15ms"), "p100"),
        (("digits", "--rows", "2"), "captured requests have their rows already"),
        (("digits", "--data", "synthetic"), "a replay needs captured requests"),
        (("digits", "--data", "capture:/nowhere"), "/nowhere cannot be read"),
        (("digits", "--url", "http://192.0.2.1:8000"), "--yes-load-remote"),
        (("--scenario", "MIX"), "a replay has one endpoint"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_what_cannot_be_replayed_is_refused_before_anything_is_sent(
    replay: Any, server: OipServer, captures: Path, tmp_path: Path, words: tuple[str, ...], part: str
) -> None:
    write(captures / "1-v1.arrows", [[row(at * SECOND_US) for at in range(3)]])
    (tmp_path / "mix.yaml").write_text(
        "apiVersion: headgate/v1\nkind: Scenario\nname: evening\nload: {arrivals: trace}\n"
        "mix: [{endpoint: digits, share: 50%, data: capture}, {endpoint: other, share: 50%, data: capture}]\n"
    )

    done = replay(*(str(tmp_path / "mix.yaml") if word == "MIX" else word for word in words))

    assert done.exit_code == 2, done.output
    assert part in done.stderr
    load = [body for body in server.bodies if body]
    # At most the one request that is tried before a load.
    assert len(load) <= 1


def test_a_capture_without_rows_is_refused(replay: Any, captures: Path) -> None:
    write(captures / "1-v1.arrows", [])

    done = replay("digits")

    assert done.exit_code == 2
    assert "nothing was captured: the document needs capture, and traffic" in done.stderr


def test_a_capture_of_another_signature_names_the_tensor(
    replay: Any, server: OipServer, captures: Path
) -> None:
    server.models["digits"] = DIGITS
    write(captures / "1-v1.arrows", [[row(0)]])

    done = replay("digits")

    assert done.exit_code == 2
    assert 'input "X"' in done.stderr
    assert "FP32 [-1, 4]" in done.stderr
    assert server.bodies == []
