"""The report on shadows: what is drawn, what is doubtful, what comes from clients; and watching it."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

from headgate.cli import main
from headgate.cli.client import Timing
from headgate.cli.exits import UnreachableError
from headgate.cli.session import CliEnvironment
from support.shadow_reports import REPORT, empty, never_ran, report
from unit.cli.fake_admin import FakeAdmin, FakeTransport, call, ok, problem

PATH = "GET /v1/endpoints/digits/shadows"


def shadows(*reports: dict[str, Any]) -> dict[str, Any]:
    return {
        "endpoint": "digits",
        "champion": "v7",
        "cpu": {"budget_cores": 0.5, "used_cores": 0.12, "waiting": False, "threads": 2, "stuck": 0},
        "memory": {"bytes": 18_342, "max_bytes": 256 << 20},
        "shadows": list(reports),
    }


def shown(*reports: dict[str, Any], arguments: tuple[str, ...] = ()) -> str:
    result = call(FakeAdmin({PATH: ok(shadows(*reports))}), "shadow", "digits", *arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_line_for_each_shadow_with_the_noise_floor_beside_the_disagreement() -> None:
    lines = shown(report(), {**empty(), "to": "v9"}).splitlines()
    [row] = [line for line in lines if line.startswith("v8 ") and "running  10%" in line]
    assert [cell.strip() for cell in row.split("  ") if cell][-3:] == [
        "3% (2.68% to 3.35%)",
        "0% (0% to 0.38%)",
        "3% (2.59% to 3.35%)",
    ]
    assert any(line.startswith("v9 ") and line.split()[-3:] == ["-", "-", "-"] for line in lines)


def test_what_is_behind_the_numbers() -> None:
    said = shown(report())
    for line in (
        "drawn 10138, 10100 compared, 15 dropped (12 late, 3 cpu_budget), 5 failed on the shadow (4 backend_failed, "
        "1 deadline_exceeded), 14 failed on the champion, 4 wait or run",
        "with what was dropped, the disagreement is between 2.99% and 3.15%",
        "noise floor: the champion differs from itself in 0 of 1010 pairs",
        "of 14 failures of the champion the shadow answered 13 and failed on 1",
        "NaN in the answers of 3 pairs (the champion's: 0, both: 0)",
        "probabilities (within 0.1%): 303 of 10100 pairs differ (3%), 303 of 10100 rows",
        "rows by champion -> shadow: 8 -> 3: 200, 1 -> NaN: 3",
        "runs: 10400, p50/p95 1.1/2.4 ms; not comparable: shadows run at low priority",
        "example 2026-11-30T01:02:03Z  request abc  row 0  differs in probabilities",
        "probabilities: champion [0.1, 0.9], shadow [0.2, 0.8]",
        "all shadows: 0.12 of 0.5 cores on 2 threads; copies take 18 KiB of 256 MiB",
    ):
        assert line in said
    assert [line.split() for line in said.splitlines() if "eu " in line or "(absent)" in line] == [
        ["eu", "5000", "290", "5.8%", "(5.18%", "to", "6.48%)"],
        ["(absent)", "60", "0", "0%", "(0%", "to", "6%)"],
    ]


def test_a_state_says_why() -> None:
    said = shown({**empty(), "state": "not_loaded", "reason": "v8 is blocked"})
    assert "v8  not_loaded: v8 is blocked  since" in said
    assert "runs: none yet" in said


def test_a_shadow_that_never_ran_has_no_counts() -> None:
    said = shown(report(), never_ran())
    assert "v9  off: it is switched off  nothing was counted" in said
    assert next(line.split() for line in said.splitlines() if line.startswith("v9  ")) == [
        "v9", "off", "10%", "of", "the", "champion's", "requests", *"------"
    ]  # fmt: skip


def test_a_copy_that_did_not_fit_is_told() -> None:
    assert "last copy that did not fit: X has 3 columns" in shown(report(last_mismatch="X has 3 columns"))


def test_an_undecided_disagreement_is_said_to_be_so() -> None:
    doubtful = {**REPORT["disagreement"], "drop_share": 0.22, "undecided": True, "bounds": [0.02, 0.24]}
    said = shown(report(disagreement=doubtful))
    assert "3% (2.68% to 3.35%) undecided" in said
    assert "undecided: 22% of the copies were dropped" in said


def test_a_noise_floor_that_is_not_there_has_a_reason() -> None:
    none = {**empty()["noise_floor"], "reason": "the champion was not in memory"}
    said = shown(report(noise_floor=none))
    assert "no noise floor yet: the champion was not in memory" in said


@pytest.mark.parametrize(
    ("compare", "words"),
    [
        ({"exact": True}, "y (exact)"),
        ({"within": {"absolute": 0.02}}, "y (within 0.02)"),
        ({"threshold": 0.5}, "y (threshold 0.5)"),
        ({"top": 3}, "y (top 3)"),
    ],
)
def test_comparisons_in_words(compare: dict[str, Any], words: str) -> None:
    output = {**REPORT["outputs"]["probabilities"], "compare": compare}
    assert words in shown(report(outputs={"y": output}))


def test_many_moves_and_values_are_cut_and_counted() -> None:
    direction = {
        **REPORT["outputs"]["label"]["direction"],
        "moves": [{"from": str(n), "to": "x", "rows": 2} for n in range(10)],
        "other_rows": 5,
        "mcnemar_p": 0.0176,
    }
    example = REPORT["examples"]["kept"][0]
    long = {"X": {"datatype": "FP32", "shape": [1, 64], "data": [0.5] * 64, "left_out": None}}
    hidden = {"X": {"datatype": "BYTES", "shape": [1], "data": None, "left_out": "redacted"}}
    kept = [{**example, "inputs": long}, {**example, "inputs": hidden}, example, example, example]
    said = shown(
        report(
            outputs={"label": {**REPORT["outputs"]["label"], "direction": direction}},
            examples={"keep": 5, "kept": kept},
        )
    )
    assert "7 -> x: 2, others: 9" in said
    assert "had probability 0.018" in said
    assert "X = [0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, and 56 more]" in said
    assert "X = (redacted)" in said
    assert "2 more examples: --examples shows them" in said
    everything = call(
        FakeAdmin({PATH: ok(shadows(report(examples={"keep": 5, "kept": kept})))}),
        "shadow",
        "digits",
        "--examples",
    ).stdout
    assert everything.count("example 2026") == 5


def test_what_clients_wrote_cannot_steer_the_terminal() -> None:
    part = REPORT["slices"][0]
    evil = {**part, "values": [{**part["values"][0], "value": "\x1b[31mred\nforged"}]}
    said = shown(report(slices=[evil]))
    assert r"\x1b[31mred\x0aforged" in said
    assert "\x1b[31m" not in said


def test_one_shadow_by_its_version() -> None:
    both = (report(), report(to="v9"))
    assert shown(*both, arguments=("v9", "-o", "name")) == "v9\n"
    assert shown(*both, arguments=("-o", "name")) == "v8\nv9\n"
    result = call(
        FakeAdmin({PATH: ok(shadows(*both)), "GET /v1/endpoints/digits": ok({"versions": {}})}),
        "shadow",
        "digits",
        "v5",
    )
    assert result.exit_code == 4
    assert "v5 is no shadow of digits; it has v8, v9" in result.stderr


def test_an_endpoint_without_shadows_says_how_to_get_one() -> None:
    assert "no shadows: write traffic.shadow in its document" in shown()


# === watching ===


class Gateway:
    """Answers in turn, then Ctrl-C comes; the pauses are noted and not waited for."""

    def __init__(self, *answers: dict[str, Any] | Exception) -> None:
        self.answers = list(answers)
        self.slept: list[float] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if not self.answers:
            raise KeyboardInterrupt
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        if "code" in answer:
            return httpx.Response(answer["status"], json=answer)
        return httpx.Response(200, json=answer)

    def watch(self, *arguments: str) -> Result:
        around = CliEnvironment(
            variables={"HEADGATE_TOKEN": "headgate_a_b", "HOME": "/nonexistent"},
            make_transport=lambda address: FakeTransport(self, str(address)),
            timing=Timing(sleep=self.slept.append),
        )
        return CliRunner().invoke(main, ["shadow", "digits", "--watch", *arguments], obj=around)


def test_watching_asks_again_after_a_pause_until_ctrl_c() -> None:
    gateway = Gateway(shadows(empty()), shadows(report()))
    result = gateway.watch("--every", "5", "--json")
    assert result.exit_code == 130
    assert [json.loads(line)["shadows"][0]["pairs"] for line in result.stdout.splitlines()] == [0, 10_100]
    assert gateway.slept == [5.0, 5.0]


def test_watching_goes_on_when_the_gateway_restarts() -> None:
    gone = UnreachableError("http://127.0.0.1:8003 did not answer")
    gateway = Gateway(shadows(empty()), gone, shadows(report()))
    result = gateway.watch()
    assert result.stdout.count("digits  champion v7") == 2
    assert "did not answer; again in 2 s" in result.stderr
    assert gateway.slept == [2.0, 2.0, 2.0]


def test_watching_needs_a_gateway_at_first() -> None:
    assert Gateway(UnreachableError("http://127.0.0.1:8003 did not answer")).watch().exit_code == 3


def test_an_endpoint_that_is_not_there() -> None:
    gone = problem(404, "model_not_found", "no endpoint is named 'digits'")
    result = call(FakeAdmin({PATH: gone, "GET /v1/endpoints": ok({"endpoints": []})}), "shadow", "digits")
    assert result.exit_code == 4


@pytest.mark.parametrize("code", ["model_not_ready", "draining", "overloaded", "storage_failed"])
def test_watching_goes_on_while_the_gateway_is_not_ready(code: str) -> None:
    refused = {"code": code, "status": 503, "detail": "digits is not served yet", "title": "x"}
    gateway = Gateway(shadows(empty()), refused, refused, shadows(report()))
    result = gateway.watch()
    assert result.stdout.count("digits  champion v7") == 2
    assert result.stderr.count("digits is not served yet; again in 2 s") == 2


def test_watching_ends_when_the_endpoint_is_gone() -> None:
    gone = {"code": "model_not_found", "status": 404, "detail": "no endpoint", "title": "x"}
    assert Gateway(shadows(empty()), gone, shadows(report())).watch().exit_code == 4
