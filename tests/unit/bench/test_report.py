"""Reports: one page that loads nothing and escapes everything, tables, the log, files, and parts that add up to the whole."""

import csv
import io
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from headgate.bench import hdr
from headgate.bench.report import csv_files, hlog, reading, write_all
from headgate.bench.report.merge import merge, merged_answer
from headgate.bench.report.page import page
from headgate.bench.results import Histograms, ServedModel, TargetFacts, Window, read_result
from headgate.errors import InvalidArgument, StorageFailed
from support import bench_results

EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def easy():
    return bench_results.easy()


RESULTS = {
    "a capacity": bench_results.easy,
    "quantiles without a value": bench_results.overloaded_run,
    "a client that was the limit": bench_results.client_limited,
    "no capacity": bench_results.no_capacity,
    "nothing": bench_results.result,
}


class Page(HTMLParser):
    """The elements of a page, with a fault for each that is not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.faults, self.elements, self.ids = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(tag)


@pytest.mark.parametrize("made", RESULTS.values(), ids=RESULTS)
def test_a_page_is_well_formed_and_loads_nothing(made):
    text = page(made())
    read = Page(text)

    ElementTree.fromstring(text.removeprefix("<!DOCTYPE html>\n"))
    assert read.open == read.faults == []
    assert len(read.ids) == len(set(read.ids))
    assert not {tag for tag, _ in read.elements} & {"script", "link", "img", "iframe", "object", "embed", "a"}
    assert not [
        attrs for _, attrs in read.elements if attrs.keys() & {"src", "href", "srcset", "onload", "onclick"}
    ]
    assert not re.search(r"url\(|@import|https?://(?!127\.0\.0\.1)", text)


@pytest.mark.parametrize("made", RESULTS.values(), ids=RESULTS)
def test_every_chart_has_words_for_those_who_do_not_see_it(made):
    text = page(made())

    for chart in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        found = ElementTree.fromstring(chart)
        assert found.get("role") == "img"
        assert found.find("title").text
        assert found.find("desc").text
        assert (
            found.get("aria-labelledby") == f"{found.find('title').get('id')} {found.find('desc').get('id')}"
        )


def test_charts_stay_within_their_frames(easy):
    for chart in re.findall(r"<svg.*?</svg>", page(easy), re.DOTALL):
        root = ElementTree.fromstring(chart)
        _, _, width, height = map(float, root.get("viewBox").split())
        for text in root.iter("text"):
            assert 0 <= float(text.get("x")) <= width
            assert 0 <= float(text.get("y")) <= height


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("a capacity", "digits holds 1300/s with p99 within 15 ms; 1450/s is too much."),
        ("a client that was the limit", "The client was the limit, not the server"),
        (
            "no capacity",
            "digits does not hold the objective (p99 within 15 ms): it would, if at all, below 1450/s.",
        ),
        (
            "quantiles without a value",
            "is at least 5 s, since so many requests got no good answer: p99 within 15 ms is missed.",
        ),
        ("nothing", "digits was not measured."),
    ],
)
def test_the_answer_is_a_sentence(name, answer):
    assert answer in reading.answer_sentence(RESULTS[name]())


def test_every_name_and_message_is_escaped():
    target = TargetFacts(
        url=EVIL, server=EVIL, models=(ServedModel(endpoint=EVIL, version=EVIL, digest=EVIL),)
    )
    evil = bench_results.overloaded_run().model_copy(
        update={"name": EVIL, "target": target, "reasons": (EVIL,), "scenario": {EVIL: EVIL}, "command": EVIL}
    )

    text = page(evil)

    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "<b>queue full" not in text
    ElementTree.fromstring(text.removeprefix("<!DOCTYPE html>\n"))


def test_a_control_character_makes_no_page_unreadable(easy):
    text = page(easy.model_copy(update={"name": "a\x00b\x1b[31m"}))

    ElementTree.fromstring(text.removeprefix("<!DOCTYPE html>\n"))
    assert "a?b?[31m" in text


def test_the_phase_that_takes_most_is_named(easy):
    assert "run takes" in reading.blame(easy)
    assert "queue takes" in reading.blame(bench_results.overloaded_run())
    assert reading.blame(bench_results.result()) is None


def test_tables_have_every_load_and_every_second(easy):
    loads = list(csv.DictReader(io.StringIO(csv_files.probes(easy))))
    seconds = list(csv.DictReader(io.StringIO(csv_files.windows(easy))))

    assert [float(row["rate"]) for row in loads] == [load.rate for load in reading.loads(easy)]
    assert int(loads[0]["p99_ns"]) == easy.probes[0].answer.response.quantile(0.99).value_ns
    assert len(seconds) == sum(len(one.answer.slices) for one in easy.probes)


def test_what_is_not_known_is_empty_in_tables():
    row = next(csv.DictReader(io.StringIO(csv_files.probes(bench_results.overloaded_run()))))

    assert row["p99_high_ns"] == ""
    assert row["p99_censored"] == "1"
    assert row["verdict"] == "fail"


def test_a_name_is_no_formula():
    run = bench_results.overloaded_run()
    named = run.model_copy(update={"windows": (run.windows[0].model_copy(update={"name": "=cmd()"}),)})

    assert csv_files.probes(named).splitlines()[1].startswith("'=cmd()")


def test_a_log_has_each_histogram_with_its_tag_and_maximum():
    run = bench_results.overloaded_run()
    lines = hlog.log(run).splitlines()

    assert lines[1] == "#[Histogram log format version 1.3]"
    assert lines[2].startswith("#[StartTime: 1772395200.000 (seconds since epoch)")
    tags = [line.split(",")[0] for line in lines[4:]]
    assert tags == ["Tag=response", "Tag=service", "Tag=lateness"]
    _, start, length, highest, encoded = lines[4].split(",")
    assert (start, length) == ("0.000", "20.000")
    assert hdr.decode(encoded).total == hdr.decode(run.windows[0].answer.hdr_v2.response).total
    assert float(highest) * 1e6 >= run.windows[0].answer.response.max_ns * 0.999


def test_all_files_are_written_and_the_result_is_read_back(easy, tmp_path):
    found = write_all(easy, tmp_path / "out")

    names = ["result.json", "scenario.yaml", "report.html", "windows.csv", "probes.csv", "latency.hlog"]
    assert [path.name for path in found] == names
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(names)
    assert read_result(tmp_path / "out") == easy


def test_a_file_that_cannot_be_written_is_named_and_what_was_there_stays(easy, tmp_path):
    (tmp_path / "report.html").mkdir()

    with pytest.raises(StorageFailed, match="report.html could not be written"):
        write_all(easy, tmp_path)

    assert read_result(tmp_path) == easy
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def _part(window, seed=42):
    return bench_results.result(command="run", windows=(window,), verdict="measured", seed=seed)


def test_parts_add_up_to_the_whole():
    parts = [bench_results.answer(300, seed=seed) for seed in (1, 2, 3)]

    whole = merged_answer(parts)

    together = hdr.Histogram()
    for part in parts:
        together = together.merged(hdr.decode(part.hdr_v2.response))
    assert hdr.decode(whole.hdr_v2.response) == together
    assert whole.counts.due == sum(part.counts.due for part in parts)
    assert whole.response.quantile(0.99).value_ns == together.quantile(0.99)
    assert whole.response.quantile(0.99).low_ns is None
    assert sum(one.due for one in whole.slices) == whole.counts.due
    assert whole.offered_per_second == pytest.approx(sum(part.offered_per_second for part in parts))


def test_the_quantile_of_the_whole_is_not_the_mean_of_the_parts():
    fast, slow = bench_results.answer(200, seed=1), bench_results.answer(1550, seed=2)

    whole = merged_answer([fast, slow]).response.quantile(0.99).value_ns
    mean = (fast.response.quantile(0.99).value_ns + slow.response.quantile(0.99).value_ns) / 2

    assert whole > 1.2 * mean


def test_requests_without_a_good_answer_stay_slower_than_any_in_the_whole():
    bad = bench_results.answer(1900, most_waiting=20)

    whole = merged_answer([bad, bad]).response.quantile(0.99)

    assert whole.censored
    assert whole.value_ns == bad.response.quantile(0.99).value_ns


def test_a_merged_result_is_reported_and_claims_no_verdict():
    window = Window(name="run", rate=300, for_ns=20 * 10**9, answer=bench_results.answer(300))

    found = merge([_part(window), _part(window)])

    assert found.verdict == "measured"
    assert "2 load hosts" in found.reasons[0]
    ElementTree.fromstring(page(found).removeprefix("<!DOCTYPE html>\n"))


def test_parts_of_other_loads_are_not_merged(easy):
    window = Window(name="run", rate=300, for_ns=20 * 10**9, answer=bench_results.answer(300))
    bare = window.model_copy(update={"answer": window.answer.model_copy(update={"hdr_v2": Histograms()})})

    for parts, what in [
        ([_part(window)], "at least two"),
        ([_part(window), _part(window, seed=7)], "another seed"),
        ([easy, easy], "a search decides"),
        ([_part(window), _part(window).model_copy(update={"windows": ()})], "0 windows"),
        ([_part(window), _part(bare)], "result 2 has no histogram of its response"),
    ]:
        with pytest.raises(InvalidArgument, match=what):
            merge(parts)
