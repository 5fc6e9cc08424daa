"""The report: its numbers, that the page stands alone, and several targets from end to end."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

pytest.importorskip("jsonargparse")

import ragged
from ragged.cli import main as cli
from ragged.cli.main import main
from ragged.report.explanations import attention_of, coarsen, mean_selection
from ragged.runs import config as configuration
from ragged.runs import folder as runs

DRIVER, FIRST, SECOND = "<script>alert(1)</script>", "a & $b$", '"><img src=x onerror=f()>'
UNTRUSTED = f"""
import numpy as np
from ragged.data import Series, Roles, Source

class Untrusted(Source):
    '''Two targets, a known column that is no rate, and names that a page must not trust.'''
    roles = Roles(known=({DRIVER!r}, "other"), past=(), target=({FIRST!r}, {SECOND!r}))
    driver = {DRIVER!r}
    time_label = "<i>time</i>"
    units = {{{DRIVER!r}: "<b>"}}
    def events(self):
        generator = np.random.default_rng(0)
        return [self.event(n, generator) for n in range(12)]
    def read(self, path):
        events = self.events()[:1]
        for name in self.roles.target:
            events[0].columns[name][5:] = np.nan
        return events
    def event(self, number, generator):
        x, y = generator.normal(size=(2, 20 + number % 3)).cumsum(axis=1)
        known = {{{DRIVER!r}: x, "other": y}}
        targets = {{{FIRST!r}: x + y, {SECOND!r}: x - 2 * y + 1}}
        return Series(f"<u>{{number}}", np.arange(len(x)) * 1.0, known | targets)
"""


@pytest.fixture(scope="module")
def untrusted(tmp_path_factory, need, pictures):
    """The run of a model with attention, selection and quantiles of two untrusted targets."""
    need("torch")
    folder = tmp_path_factory.mktemp("untrusted")
    (folder / "untrusted_source.py").write_text(UNTRUSTED)
    sys.path.insert(0, str(folder))
    options = {
        "config": "magnet", "runs": folder, "data.source": "untrusted_source.Untrusted",
        "data.batch_size": 4, "model.class_path": "XTFT", "model.init_args.hidden_size": 4,
        "model.init_args.num_heads": 2, "model.init_args.output_size": 6,
        "trainer.quantiles": "[0.1,0.5,0.9]", "trainer.max_epochs": 2, "trainer.device": "cpu",
    }  # fmt: skip
    allow = "--allow-import=untrusted_source"
    with pictures():
        assert main(["train", allow, *(f"--{key}={value}" for key, value in options.items())]) == 0
    (run,) = (folder / "magnet").iterdir()
    assert (run / "forecast.png").exists()
    yield run
    sys.path.remove(str(folder))
    sys.modules.pop("untrusted_source", None)


def report_of(run: Path, *options: str) -> Path:
    assert main(["report", str(run), "--allow-import=untrusted_source", *options]) == 0
    return run / "report.html"


@pytest.fixture(scope="module")
def page(untrusted):
    return report_of(untrusted)


class Reader(HTMLParser):
    """Collect what a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data):
        self.text += data

    def tables(self) -> dict[str, dict[str, list[str]]]:
        """The CSV of each plot, by its file's name and by column."""
        found = {}
        for tag, given in self.tags:
            if tag == "a" and "download" in given:
                head, content = unquote(given["href"]).split(",", 1)
                assert head == "data:text/csv;charset=utf-8"
                heads, *rows = csv.reader(io.StringIO(content))
                columns = (list(column) for column in zip(*rows, strict=True))
                found[given["download"]] = dict(zip(heads, columns, strict=True))
        return found


def opened(run: Path):
    configuration.restrict_imports(["untrusted_source"])
    return runs.open_run(run, cli.train_parser())


def numbers(values) -> np.ndarray:
    return np.array([float(value) for value in values])


# The page


def test_names_from_outside_are_text_and_nothing_else(page):
    reader = Reader(page.read_text())
    assert not {"script", "img", "i", "u", "iframe", "link", "object"} & {t for t, _ in reader.tags}
    assert not [name for _, given in reader.tags for name in given if name.startswith("on")]
    for name in (DRIVER, FIRST, SECOND, "<i>time</i>", "<u>"):
        assert name in reader.text
    assert f"{DRIVER} [<b>]" in reader.text
    assert "quantile, the mean over valid steps" in reader.text
    assert "a &amp; $b$" in re.findall(r"<text[^>]*>([^<]*)</text>", page.read_text())


def test_the_page_asks_for_nothing(page):
    text = page.read_text()
    for tag, given in Reader(text).tags:
        for name in ("src", "href", "xlink:href", "srcset", "action", "data", "poster"):
            assert given.get(name, "#").startswith(("#", "data:")), (tag, name, given[name][:80])
    assert not re.findall(r"url\((?!#)", text)
    assert "@import" not in text
    assert "http" not in re.sub(r"<pre>.*?</pre>", "", text, flags=re.DOTALL)


def test_every_mark_is_unique_and_every_pointer_finds_one(page):
    text = page.read_text()
    tags = Reader(text).tags
    marks = [given["id"] for _, given in tags if "id" in given]
    assert len(set(marks)) == len(marks)
    pointers = {g["href"][1:] for _, g in tags if g.get("href", "").startswith("#")}
    pointers |= set(re.findall(r"url\(#([^)]+)\)", text))
    pointers |= {m for _, g in tags for m in g.get("aria-labelledby", "").split()}
    assert pointers <= set(marks)


def test_plots_can_be_read_by_who_cannot_see_them_and_follow_the_theme(page):
    text = page.read_text()
    plots = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(plots) == len(Reader(text).tables()) > 10
    for drawn in plots:
        assert 'role="img"' in drawn
        assert re.search(r"<title [^>]*>[^<]+</title><desc [^>]*>[^<]+</desc>", drawn)
        assert "var(--muted)" in drawn
        assert not re.findall(r"(?:fill|stroke): #", drawn)
    assert "prefers-color-scheme: dark" in text


def test_the_same_run_gives_the_same_bytes_and_matplotlib_stays_as_it_was(page, untrusted):
    import matplotlib

    settings, before = dict(matplotlib.rcParams), page.read_bytes()
    assert report_of(untrusted).read_bytes() == before
    assert dict(matplotlib.rcParams) == settings


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium on the PATH")
def test_a_browser_opens_it_without_a_request_or_a_complaint(page, tmp_path):
    shown, said, asked = browse(page, tmp_path / "page")
    assert "<h1>XTFT</h1>" in shown
    assert "CONSOLE" not in said
    assert not asked
    control = tmp_path / "control.html"
    control.write_text("<img src='http://a.invalid/b.png'><script>console.error(1)</script>")
    _, said, asked = browse(control, tmp_path / "control")
    assert "CONSOLE" in said
    assert asked == {"http://a.invalid/b.png"}


def browse(page: Path, folder: Path) -> tuple[str, str, set[str]]:
    """Open a page in Chromium: its content, what is said of it, what it asks the network for."""
    log = folder.with_suffix(".json")
    command = [
        "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
        "--enable-logging=stderr", f"--log-net-log={log}", f"--user-data-dir={folder}",
        "--host-resolver-rules=MAP * ~NOTFOUND", "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    lines = log.read_text().splitlines()
    events = [json.loads(line.rstrip(",")) for line in lines if '"initiator"' in line]
    # What the browser itself asks for, updates and the like, has no page as its origin.
    asked = {e["params"]["url"] for e in events if e["params"]["initiator"] != "not an origin"}
    return done.stdout, done.stderr, {url for url in asked if not url.startswith("data:")}


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_a_model_that_explains_nothing_is_reported_too(name, tiny_run, tmp_path):
    run = shutil.copytree(tiny_run(name), tmp_path / "run")
    lines = (run / "metrics.jsonl").read_text().splitlines()
    slow = [{**json.loads(line), "seconds": 100.0 + place} for place, line in enumerate(lines)]
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in slow))
    reader = Reader(report_of(run).read_text())
    assert "This model has no attention and selects no variables." in reader.text
    assert not [file for file in reader.tables() if file.startswith(("attention", "variable"))]
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for key, values in reader.tables()["losses.csv"].items():
        np.testing.assert_allclose(numbers(values), [r[key] for r in records], rtol=1e-5)
    assert "3 epochs in 303 s" in reader.text
    versions = json.loads((run / "versions.json").read_text())
    assert versions["Python"] in reader.text
    assert versions[name] in reader.text


def test_a_run_without_test_events_is_reported_too(train_tiny, need, tmp_path, capsys, pictures):
    need("torch")
    with pictures():
        run = train_tiny(tmp_path, "torch", data__test=0, trainer__max_epochs=1)
    assert [path.name for path in run.glob("*.png")] == ["loss.png"]
    assert "no test events to score" in capsys.readouterr().out
    assert json.loads((run / "scores.json").read_text()) == {"targets": {}}
    reader = Reader(report_of(run).read_text())
    assert reader.text.count("There is no test row with a known truth.") == 3
    assert list(reader.tables()["lengths-context.csv"])[2:] == ["training", "validation"]


# Its numbers


def test_the_forecasts_are_those_that_are_scored(page, untrusted):
    files = Reader(page.read_text()).tables()
    scores = json.loads((untrusted / "scores.json").read_text())
    for place, target in enumerate((FIRST, SECOND), 1):
        columns = files[f"error-by-step-{place}.csv"]
        counts, rmse = numbers(columns["truths"]), numbers(columns["RMSE of XTFT"])
        whole = np.sqrt((counts * rmse**2).sum() / counts.sum())
        assert whole == pytest.approx(scores["targets"][target]["XTFT"]["rmse"], rel=1e-4)
        columns = files[f"error-by-length-{place}.csv"]
        counts, rmse = numbers(columns["truths"]), numbers(columns["RMSE of persistence"])
        whole = np.sqrt((counts * rmse**2).sum() / counts.sum())
        assert whole == pytest.approx(scores["targets"][target]["persistence"]["rmse"], rel=1e-4)
        example = files[f"forecast-{place}-best.csv"]
        assert len(set(map(len, example.values()))) == 1
        ahead = [i for i, value in enumerate(example["forecast"]) if value]
        assert ahead == list(range(ahead[0], len(example["time"])))
        error = numbers(example["forecast"][ahead[0] :]) - numbers(example["truth"][ahead[0] :])
        shown = f"(RMSE {np.sqrt((error**2).mean()):.3f})"
        assert shown in page.read_text()


def cells(text: str, *heads: str) -> list[list[str]]:
    """The rows of the table of a page whose first columns have these headings."""
    start = "".join(f'<th scope="col">{head}</th>' for head in heads)
    (found,) = re.findall(f"<thead><tr>{start}.*?</table>", text, re.DOTALL)
    rows = found.partition("<tbody>")[2].split("</tr>")[:-1]
    return [re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", row) for row in rows]


def test_the_filler_of_the_page_is_that_of_an_epoch(page, untrusted):
    """Each batch's, and that of all together, from the arrays themselves."""
    with opened(untrusted) as run:
        data, seed = run.data, run.config.seed
        made = list(ragged.data.batches(data.train_epoch(seed, 0), 4, shuffle_seed=seed))
        lengths = np.array([(len(row.past), len(row.future)) for row in data.train_epoch(seed, 0)])
    order = np.random.default_rng(seed).permutation(len(lengths))
    drawn = [lengths[order[start : start + 4]] for start in range(0, len(order), 4)]
    real, computed = {}, {}
    real["in random order, padded to the longest"] = [each.sum() for each in drawn]
    computed["in random order, padded to the longest"] = [
        sum(len(each) * int(side.max()) for side in each.T) for each in drawn
    ]
    buckets = "in buckets of similar length"
    real[buckets] = [b.encoder_lengths.host.sum() + b.decoder_lengths.host.sum() for b in made]
    computed[buckets] = [b.past[..., 0].size + b.future[..., 0].size for b in made]
    text, files = page.read_text(), Reader(page.read_text()).tables()
    shown = {name: rest for name, *rest in cells(text, "batches", "steps computed")}
    said = Reader(text).text
    for name, steps in computed.items():
        filler = 1 - lengths.sum() / sum(steps)
        expected = [str(sum(steps)), str(lengths.sum()), f"{100 * filler:.1f} %"]
        assert [each.replace(",", "") for each in shown[name]] == expected
        assert f"{name}: {100 * filler:.0f}\u00a0% filler" in said
        each = sorted(1 - np.array(real[name]) / steps, reverse=True)
        np.testing.assert_allclose(numbers(files["padding.csv"][name]), each, rtol=1e-4, atol=1e-9)


def test_the_lengths_of_the_page_are_those_of_the_rows(page, untrusted):
    with opened(untrusted) as run:
        data = run.data
    shown = {name: rest for name, *rest in cells(page.read_text(), "rows", "how many")}
    histograms = Reader(page.read_text()).tables()
    for name in ("training", "validation", "test"):
        rows = list(getattr(data, "train" if name == "training" else name))
        steps = [len(row.past) + len(row.future) for row in rows]
        expected = [len(rows), sum(steps), min(steps), int(np.median(steps)), max(steps)]
        assert [int(each.replace(",", "")) for each in shown[name]] == expected
        for side, lengths in (
            ("context", [len(row.past) for row in rows]),
            ("horizon", [len(row.future) for row in rows]),
        ):
            histogram = histograms[f"lengths-{side}.csv"]
            for low, high, count in zip(*(histogram[k] for k in ("from", "to", name)), strict=True):
                inside = sum(int(low) <= length <= int(high) for length in lengths)
                assert inside == int(count), (name, side, low)


def test_explanations_are_cut_at_true_lengths(untrusted):
    """Against rows asked for one by one, where nothing is padded."""
    with opened(untrusted) as run:
        rows, module = list(run.data.train.rows), run.module
        assert len({len(row.past) + len(row.future) for row in rows}) > 1
        attention = attention_of(module, rows, 4, "float32")
        selection = mean_selection(module, rows, run.data.source.roles, 4, "float32")
        weights = {"context": [], "horizon": []}
        for row, found in zip(rows, attention, strict=True):
            dataset = ragged.data.RaggedDataset([row], "right")
            (batch,) = ragged.data.batches(dataset, 1, shapes=10**6)
            assert batch.encoder_lengths.is_full
            assert batch.decoder_lengths.is_full
            alone = module.interpret(batch)
            mean = alone["attention"][0].mean(axis=0)
            np.testing.assert_allclose(found.weights, mean, rtol=1e-4, atol=1e-6)
            assert found.context == len(row.past)
            np.testing.assert_allclose(found.weights.sum(axis=1), 1, rtol=1e-5)
            weights["context"].append(alone["past_selection"][0])
            weights["horizon"].append(alone["future_selection"][0])
    assert list(selection["context"]) == [DRIVER, "other", FIRST, SECOND]
    for side, each in weights.items():
        found = list(selection[side].values())
        np.testing.assert_allclose(found, np.concatenate(each).mean(axis=0), rtol=1e-4)


def test_a_coarse_picture_keeps_the_weight_of_each_step(untrusted):
    with opened(untrusted) as run:
        (found,) = attention_of(run.module, [run.data.test[0]], 1, "float32")
    weights, factor = coarsen(found, 5)
    assert max(weights.shape) <= 5
    assert factor == -(-max(found.weights.shape) // 5)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(
        weights[0, 0], found.weights[:factor, :factor].sum(axis=1).mean(), rtol=1e-5
    )


def test_every_target_is_scored_printed_and_predicted(untrusted, tmp_path, capsys):
    scores = json.loads((untrusted / "scores.json").read_text())
    assert list(scores["targets"]) == [FIRST, SECOND]
    assert set(scores["pinball"]) == set(scores["coverage"]) == {FIRST, SECOND}
    line = "all known columns, last observed"
    # Both targets are linear in the two known columns, the second with an offset.
    assert all(scores["targets"][name][line]["r2"] > 0.999 for name in (FIRST, SECOND))
    assert scores["targets"][FIRST]["XTFT"] != scores["targets"][SECOND]["XTFT"]
    capsys.readouterr()
    assert main(["evaluate", str(untrusted), "--allow-import=untrusted_source"]) == 0
    said = capsys.readouterr().out
    assert [said.count(f"test events, {name}") for name in (FIRST, SECOND)] == [1, 1]
    output = tmp_path / "out.csv"
    options = ["--input", "any.csv", "--output", str(output), "--allow-import=untrusted_source"]
    assert main(["predict", str(untrusted), *options]) == 0
    head, *rows = csv.reader(io.StringIO(output.read_text()))
    assert head[:2] == ["event", "<i>time</i>"]
    assert head[2:] == [
        f"{name}_{kind}" for name in (FIRST, SECOND) for kind in ("q0.1", "q0.5", "q0.9")
    ]
    assert len(rows) == 15
    values = np.array([numbers(row[2:]) for row in rows])
    assert np.isfinite(values).all()
    assert not np.allclose(values[:, 0], values[:, 3])


def test_a_report_names_what_is_missing_before_it_computes(
    tiny_run, refused, tmp_path, monkeypatch
):
    monkeypatch.setattr("ragged.report.report_data.evaluate_model", None)
    for file in ("metrics.jsonl", "versions.json"):
        broken = shutil.copytree(tiny_run("torch"), tmp_path / file)
        (broken / file).unlink()
        assert file in refused("report", broken)
        assert not (broken / "report.html").exists()
