"""Sweeps: candidates, calibration, simulation, measuring in rounds, the choice, and the patch of a document."""

import pytest

from headgate.bench import sweep
from headgate.bench.predictors import Curve
from headgate.bench.run_settings import Choice, candidates, choice_of, difference, patched
from headgate.bench.sweep import Bracket, Tried, Wanted
from headgate.documents.model import Run
from headgate.errors import InvalidArgument

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
traffic:
  champion: "1"
"""


def test_candidates_fit_the_cores_and_documents_take_them():
    found = list(candidates(4, True, {1: 300, 4: 90}))

    assert Choice("pool", 4, 1, 64, 150) in found
    assert Choice("inline", None, 4) in found
    assert all((one.instances or 1) * one.threads <= 4 for one in found)
    assert {one.max_batch for one in found} == {1, 2, 4, 8, 16, 32, 64}
    for one in found:
        assert choice_of(Run.model_validate(one.written)) == one


def test_without_rows_nothing_is_batched():
    assert {one.max_batch for one in candidates(2, False, {1: 300})} == {1}


def test_a_version_in_short_form_gets_its_settings_and_comments_stay():
    after = patched(DOCUMENT, "digits", "1", Choice("pool", 2, 1, 16, 150))

    assert "# what it serves" in after
    assert "max_delay: 150us" in after
    assert difference(DOCUMENT, after, "digits.yaml").startswith("--- digits.yaml\n+++ digits.yaml\n")
    assert difference(DOCUMENT, DOCUMENT, "digits.yaml") == ""


def test_other_settings_of_a_version_stay_but_buckets_that_no_longer_fit():
    same = patched(DOCUMENT, "digits", "2", Choice(threads=2, max_batch=8))
    other = patched(DOCUMENT, "digits", "2", Choice("pool", 1))

    assert "buckets: [4, 8]" in same
    assert "arena: true" in other
    assert "buckets" not in other
    assert "max_batch" not in other


@pytest.mark.parametrize(("endpoint", "version"), [("other", "1"), ("digits", "3")])
def test_what_the_document_does_not_have_is_refused(endpoint, version):
    with pytest.raises(InvalidArgument, match="no (endpoint other|version 3)|has no"):
        patched(DOCUMENT, endpoint, version, Choice())


def test_a_curve_is_fitted_with_nothing_below_zero():
    assert sweep.fit_curve([(1, 1.1), (2, 1.2), (4, 1.4)]) == Curve(pytest.approx(1.0), pytest.approx(0.1))
    assert sweep.fit_curve([(1, 2.0)]) == Curve(2.0, 0.0)
    assert sweep.fit_curve([(1, 1.0), (2, 2.2), (4, 4.6)]).base == 0
    assert sweep.fit_curve([(1, 1.0), (2, 0.9), (4, 0.8)]).row == 0


def test_the_highest_lower_bound_wins_and_on_overlap_the_simpler():
    present, batched, wide = Choice(), Choice("pool", 2, 1, 16), Choice("pool", 2, 1, 64, 100)

    def tried(choice, *brackets):
        return Tried(choice, [Bracket(*one) for one in brackets])

    now = tried(present, (500, 525), (490, 515))
    clear, _ = sweep.choose(
        [now, tried(batched, (900, 945), (880, 924)), tried(wide, (910, 955), (870, 915))], present
    )
    equal, reason = sweep.choose([now, tried(batched, (510, 536), (505, 530))], present)
    none, _ = sweep.choose([tried(present, (None, 10)), tried(batched, (None, 10))], present)

    assert clear == batched
    assert equal == present
    assert "the present setting holds 490/s" in reason
    assert none == present


class Bench:
    """A server whose runs take 1 ms and 0.1 ms a row, and that holds most with batches."""

    def __init__(self, told=True):
        self.told, self.finds, self.said = told, [], []

    def run_seconds(self, threads, rows):
        return (0.001 + 0.0001 * rows) if self.told else None

    def find(self, choice, number):
        self.finds.append((choice, number))
        held = 100.0 * choice.max_batch
        return Bracket(held, held * 1.05)

    def say(self, sentence):
        self.said.append(sentence)


def instant(question):
    """Keeps every objective until batches are full."""
    return dict.fromkeys(("p50_ns", "p90_ns", "p95_ns", "p99_ns"), question["curve"]["base_ns"])


def test_the_best_three_and_the_present_one_are_measured_in_turn_and_back():
    bench = Bench()

    found = sweep.sweep(Choice(), Wanted(0.99, 0.015, cores=2), bench, instant)

    order = [choice for choice, _ in bench.finds]
    assert order[:4] == order[4:][::-1]
    assert order[0] == Choice()
    assert [number for _, number in bench.finds] == [0] * 4 + [1] * 4
    assert found.chosen.max_batch == 64
    assert found.curves[1] == Curve(pytest.approx(0.001), pytest.approx(0.0001))
    assert found.as_json()["changed"] is True


def test_a_server_that_tells_no_run_times_cannot_be_swept():
    with pytest.raises(InvalidArgument, match="no run times"):
        sweep.sweep(Choice(), Wanted(0.99, 0.015), Bench(told=False), instant)
