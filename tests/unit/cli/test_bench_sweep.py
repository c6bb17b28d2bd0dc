"""``headgate bench sweep`` against gateways in virtual time: what it tries, what it says, what it writes, and how it exits.

A setting decides what its gateway holds: M/M/1 with 1 000 runs a second, and twice as many with batches.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from headgate.bench import native_functions, spawn
from headgate.bench.document_settings import read_settings
from headgate.bench.report.svg import escape
from headgate.bench.results import read_result
from headgate.bench.run_settings import Choice
from headgate.bench.target import TargetUnreachable, parse_url
from headgate.cli import main
from headgate.cli.session import CliEnvironment
from support.oip_server import OipServer, serving
from support.virtual_load import VirtualGenerator, VirtualServer

DOCUMENT = """\
apiVersion: headgate/v1
kind: Endpoint
name: digits
versions: {"1": "file:models/digits/1"}  # the only one
traffic: {champion: "1"}
"""


@dataclass
class Gateways:
    """Those that were spawned: the document of each and its options."""

    generator: VirtualGenerator
    base: VirtualServer = field(default_factory=VirtualServer)
    refuses_batches: bool = False
    served: list[tuple[Choice, Path]] = field(default_factory=list)
    options: list[tuple[str, ...]] = field(default_factory=list)
    running: int = 0

    @contextmanager
    def spawned(
        self, document: Path, options: Sequence[str], cpus: tuple[int, ...] | None
    ) -> Iterator[spawn.Spawned]:
        """In the place of ``spawn.spawned``."""
        choice = read_settings(document, "digits", None).present
        self.served.append((choice, document))
        self.options.append(tuple(options))
        if self.refuses_batches and choice.max_batch > 1:
            raise TargetUnreachable("the gateway of --spawn did not get ready: the model takes one row")
        more = 2 if choice.max_batch > 1 else 1
        self.generator.server = replace(self.base, capacity=self.base.capacity * more)
        self.running += 1
        try:
            with serving(OipServer()) as server, tempfile.TemporaryDirectory() as state:
                address = parse_url(server.url)
                yield spawn.Spawned(address, address, Path(state), 0, cpus)
        finally:
            self.running -= 1


@pytest.fixture
def gateways(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Gateways:
    made = Gateways(VirtualGenerator())
    monkeypatch.setattr(spawn, "spawned", made.spawned)
    # Batches hold more, and the larger the more; nothing waits.
    monkeypatch.setattr(
        native_functions,
        "simulate_batches",
        lambda asked: dict.fromkeys(("p50_ns", "p99_ns"), asked["curve"]["base_ns"]),
    )
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    return made


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "digits.yaml"
    path.write_text(DOCUMENT)
    return path


@pytest.fixture
def sweep(gateways: Gateways, document: Path, tmp_path: Path) -> Any:
    """Runs ``headgate bench sweep`` on the document."""
    variables = {"HEADGATE_STATE": str(tmp_path / "state"), "HOME": str(tmp_path)}
    environment = CliEnvironment(variables, make_generator=lambda: gateways.generator)

    def invoke(*words: str, spawns: bool = True) -> Result:
        what = ["digits", "--spawn", str(document)] if spawns else ["digits"]
        done = CliRunner().invoke(main, ["bench", "sweep", *what, *words], obj=environment)
        # Whatever comes of it, no gateway and no file of it stays.
        assert gateways.running == 0
        assert list((tmp_path / "tmp").iterdir()) == []
        return done

    return invoke


ASKED = ("--slo", "p99=15ms", "--measured", "1", "--precision", "20%", "--budget", "15m")


def test_it_measures_the_best_and_the_present_one_and_prints_a_patch(
    sweep: Any, gateways: Gateways, document: Path, tmp_path: Path
) -> None:
    done = sweep(*ASKED, "--out", str(tmp_path / "out"))

    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].startswith("digits 1 holds more with placement pool, ")
    assert '-versions: {"1": "file:models/digits/1"}  # the only one' in lines
    assert "not written: --apply writes it, or `patch -p0`" in lines
    assert document.read_text() == DOCUMENT
    # A gateway for the calibrations, and one for each search, there and back.
    present, best = Choice(), gateways.served[2][0]
    assert [one for one, _ in gateways.served[1:5]] == [present, best, best, present]
    assert best.max_batch > 1
    calibrated = gateways.served[0][0]
    assert (calibrated.placement, calibrated.instances, calibrated.max_batch) == ("pool", 1, 1)
    assert all(options[-2:] == ("--root", str(tmp_path)) for options in gateways.options)

    kept = read_result(tmp_path / "out")
    assert kept.command == "sweep"
    assert kept.verdict == "pass"
    assert kept.target.spawned == str(document)
    assert kept.sweep is not None
    assert kept.sweep["chosen"] == best.written
    now, other = kept.sweep["measured"]
    assert now["present"]
    # M/M/1: the p99 of 15 ms is reached 307/s below the capacity.
    assert now["pass"] <= 693 * 1.05
    assert 693 * 0.95 <= now["fail"] <= other["pass"] <= 1693 * 1.05
    assert other["fail"] is None or other["fail"] >= 1693 * 0.95
    assert [one["verdict"] for one in other["rounds"]] == ["pass", "pass"]
    assert kept.capacity is not None
    assert kept.capacity.passed == other["pass"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Settings that were measured" in page
    assert "nothing written" in page
    assert escape(kept.sweep["patch"].splitlines()[-1]) in page


def test_all_requests_of_a_calibration_ask_for_phases_and_rounds_share_seeds(
    sweep: Any, gateways: Gateways
) -> None:
    sweep(*ASKED, "--seed", "7")

    plans = gateways.generator.plans
    calibrations = [plan for plan in plans if plan["load"].get("closed", {}).get("clients") == 1]
    assert [plan["requests"][0]["rows"] for plan in calibrations] == [1, 2, 4, 8, 16]
    assert {plan["timing_share"] for plan in calibrations} == {1.0}
    searches = [plan for plan in plans if "open" in plan["load"]]
    assert {plan["seed"] for plan in searches} == {7, 8}
    assert {plan["timing_share"] for plan in searches} == {0.02}
    assert {one["path"] for plan in plans for one in plan["requests"]} == {
        "/v2/models/digits/versions/1/infer"
    }


def test_apply_writes_the_document(sweep: Any, document: Path) -> None:
    done = sweep(*ASKED, "--rounds", "1", "--apply", "--json")

    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)["sweep"]
    assert found["applied"] is True
    assert read_settings(document, "digits", None).present.written == found["chosen"]
    assert "# the only one" in document.read_text()


def test_apply_changes_nothing_if_nothing_holds_more(sweep: Any, gateways: Gateways, document: Path) -> None:
    gateways.refuses_batches = True

    done = sweep(*ASKED, "--apply")

    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("The settings of digits 1 stay as they are: ")
    assert "is not served: the gateway of --spawn did not get ready: the model takes one row" in done.stdout
    assert "not served" in done.stdout
    assert document.read_text() == DOCUMENT


def test_a_document_that_was_edited_meanwhile_stays_and_the_patch_is_kept(
    sweep: Any, gateways: Gateways, document: Path
) -> None:
    gateways.generator.on_wait = lambda _: document.write_text(DOCUMENT + "# mine\n")

    done = sweep(*ASKED, "--rounds", "1", "--apply")

    assert done.exit_code == 3, done.output
    assert "was changed meanwhile" in done.stdout
    assert "+versions: " in done.stdout
    assert document.read_text() == DOCUMENT + "# mine\n"


@pytest.mark.parametrize("during", ["calibration", "search"])
def test_ctrl_c_keeps_what_was_measured(
    sweep: Any, gateways: Gateways, document: Path, tmp_path: Path, during: str
) -> None:
    loads = 2 if during == "calibration" else 8
    interrupted: list[int] = []

    def interrupt(elapsed_ns: int) -> None:
        if len(gateways.generator.plans) == loads and elapsed_ns > 10**8 and not interrupted:
            interrupted.append(elapsed_ns)
            os.kill(os.getpid(), signal.SIGINT)

    gateways.generator.on_wait = interrupt
    done = sweep(*ASKED, "--apply", "--out", str(tmp_path / "out"))

    assert done.exit_code == 130, done.output
    assert done.stdout.startswith("Interrupted: the settings of digits 1 stay as they are.")
    kept = read_result(tmp_path / "out")
    assert kept.verdict == "interrupted"
    assert len([one for one in kept.windows if one.clients == 1]) == (2 if during == "calibration" else 5)
    assert document.read_text() == DOCUMENT


def test_a_second_ctrl_c_ends_it_at_once_and_leaves_nothing(sweep: Any, gateways: Gateways) -> None:
    def interrupt(_: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    gateways.generator.on_wait = interrupt
    assert sweep(*ASKED).exit_code == 130


def test_no_rate_that_holds_the_objective_is_exit_code_1(sweep: Any, gateways: Gateways) -> None:
    gateways.base = VirtualServer(failing_share=0.5)
    done = sweep(*ASKED, "--rounds", "1", "--apply")

    assert done.exit_code == 1, done.output
    assert "The objective is missed: the settings of digits 1 stay as they are." in done.stdout


def test_a_client_that_is_the_limit_decides_nothing(sweep: Any, gateways: Gateways, document: Path) -> None:
    gateways.base = VirtualServer(client_limit=10.0)
    done = sweep(*ASKED, "--rounds", "1", "--apply")

    assert done.exit_code == 0, done.output
    assert "the client was the limit in 2 of 2 searches" in done.stdout
    assert document.read_text() == DOCUMENT


def test_made_up_rows_stand_for_requests_whose_rows_are_given(
    sweep: Any, gateways: Gateways, tmp_path: Path
) -> None:
    request = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [3, 4], "data": [0.5] * 12}]}
    (tmp_path / "warmup.json").write_text(json.dumps(request))
    done = sweep(*ASKED, "--rounds", "1", "--data", f"file:{tmp_path / 'warmup.json'}")

    assert done.exit_code == 0, done.output
    assert "note: run times are those of made-up values: " in done.stdout
    searches = [plan for plan in gateways.generator.plans if "open" in plan["load"]]
    assert {one["rows"] for plan in searches for one in plan["requests"]} == {3}


@pytest.mark.parametrize(
    ("words", "code", "part"),
    [
        ((), 2, "--slo p99=15ms"),
        (("--slo", "errors=1%"), 2, "an objective of the response time"),
        (
            ("--slo", "p99=15ms", "--budget", "20s"),
            2,
            "is too short for 5 calibrations and 9 searches: give it 57s",
        ),
        (("--slo", "p99=15ms", "--url", "http://127.0.0.1:1"), 2, "without --url"),
        (("--slo", "p99=15ms", "--as-traffic"), 2, "remove --as-traffic"),
        (("--slo", "p99=15ms", "--version", "7"), 2, "no version 7"),
        (("--slo", "p101=15ms"), 2, "p101"),
        (("--slo", "p99=15ms", "--highest", "-5/s"), 2, "search.highest"),
        (("--slo", "p99=15ms", "--highest", "0/s"), 2, "search.highest"),
        (("--slo", "p99=15ms", "--precision", "5"), 2, "needs a percent sign"),
        (("--slo", "p99=15ms", "--rounds", "0"), 2, "--rounds"),
        (("--slo", "p99=15ms", "--rows", "2=50%"), 2, "100%"),
    ],
)
def test_what_cannot_be_swept_is_refused_before_anything_is_served(
    sweep: Any, gateways: Gateways, words: tuple[str, ...], code: int, part: str
) -> None:
    done = sweep(*words)

    assert done.exit_code == code, done.output
    assert part in done.stderr
    assert gateways.served == []


def test_a_running_server_cannot_be_swept(sweep: Any) -> None:
    done = sweep(*ASKED, spawns=False)

    assert done.exit_code == 2
    assert "--spawn DOCUMENT" in done.stderr
    assert "cannot be changed from here" in done.stderr


def test_data_that_does_not_fit_ends_it_with_the_tensor(
    sweep: Any, gateways: Gateways, tmp_path: Path
) -> None:
    (tmp_path / "rows.jsonl").write_text("[1, 2]\n")
    done = sweep(*ASKED, "--data", f"file:{tmp_path / 'rows.jsonl'}")

    assert done.exit_code == 2, done.output
    assert 'a row of input "X" must be FP32 [4], got [2]' in done.stderr


def test_a_mix_of_several_endpoints_is_refused(sweep: Any, document: Path, tmp_path: Path) -> None:
    path = tmp_path / "mix.yaml"
    path.write_text(
        "apiVersion: headgate/v1\nkind: Scenario\nname: evening\nslo: {p99: 15ms}\n"
        "mix: [{endpoint: digits, share: 75%}, {endpoint: other, share: 25%}]\n"
    )
    done = sweep("--scenario", str(path), "--spawn", str(document), spawns=False)

    assert done.exit_code == 2, done.output
