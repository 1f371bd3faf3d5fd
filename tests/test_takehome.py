"""The report on a log of one's own: logs of many shapes, bad files, hostile names."""

import gzip
import io
import os
import re
import signal
import subprocess
import sys
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score

from recbal_utils import _columns, _leaks, _sniff, _split, _trial, calibrate, logfile, takehome
from recbal_utils.__main__ import main
from recbal_utils.errors import RecbalError

FAST = ("--quiet", "--seeds", "1", "--replicates", "20", "--trees", "8")
QUICK = takehome.Settings(seeds=(0,), n_replicates=20, trees=8)


# --- made logs -----------------------------------------------------------------------------------


def clicks(n=800, rate=0.2, *, signal=1.5, seed=0):
    """Visitors see items: numbers, categories, flags, text, dates, gaps; the label is 0/1."""
    rng = np.random.default_rng(seed)
    item, user = rng.integers(0, 30, n), rng.integers(0, n // 8, n)
    price = rng.lognormal(2, 1, n)
    device = rng.choice(["mobile", "desktop", "tablet"], n)
    z = rng.normal(size=n)
    score = signal * (z + 0.7 * (device == "desktop") + rng.normal(size=30)[item])
    threshold = np.quantile(score + rng.logistic(size=n), 1 - rate)
    words = np.array(["red", "blue", "warm", "cheap", "shoe", "hat", "bag"])
    frame = pd.DataFrame(
        {
            "when": pd.Timestamp("2024-03-01") + pd.to_timedelta(np.arange(n) // 2, unit="h"),
            "user_id": user,
            "item_id": item,
            "price": price.round(2),
            "z": z,
            "device": device,
            "member": rng.choice(["yes", "no"], n),
            "title": [" ".join(rng.choice(words, 5)) for _ in range(n)],
            "clicked": (score + rng.logistic(size=n) > threshold).astype(int),
        }
    )
    frame.loc[rng.random(n) < 0.2, "price"] = np.nan
    return frame


def plain(n=600, rate=0.3, *, signal=2.0, seed=0):
    """Two numbers and a label: the smallest log with something to learn."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2))
    y = rng.random(n) < expit(signal * x[:, 0] + np.log(rate / (1 - rate)))
    return pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "clicked": y.astype(int)})


class Whole(HTMLParser):
    """Raises unless every tag that opens is closed; keeps text, tags and attributes."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.addresses, self.words = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        assert not [name for name, _ in attrs if name.startswith("on")]
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words))


class Runner:
    """Runs the command in a folder of its own and keeps what it left behind."""

    def __init__(self, folder, capsys):
        self.folder, self.capsys = folder, capsys
        self.output = folder / "out" / "report.html"
        self.output.parent.mkdir()

    def __call__(self, log, *options, label="clicked"):
        self.capsys.readouterr()
        path = self.save(log) if isinstance(log, pd.DataFrame) else log
        arguments = ["report", str(path), "--label", label, "--output", str(self.output)]
        self.code = main([*arguments, *FAST, *options])
        self.said = self.capsys.readouterr().err
        if self.code:
            assert self.said.count("\n") == 1
            assert "Traceback" not in self.said
            assert list(self.output.parent.iterdir()) == []
            return self.said
        assert self.said == ""
        assert [path.name for path in self.output.parent.iterdir()] == ["report.html"]
        return Whole(self.output.read_text(encoding="utf-8")).text

    def save(self, frame, name="log.csv", **options):
        path = self.folder / name
        if name.endswith("parquet"):
            frame.to_parquet(path)
        else:
            frame.to_csv(path, index=False, **options)
        return path


@pytest.fixture
def run(tmp_path, capsys):
    return Runner(tmp_path, capsys)


def opened(tmp_path, frame, label="clicked", **options):
    path = tmp_path / "log.csv"
    frame.to_csv(path, index=False)
    return logfile.open_log(path, label, **options)


# --- logs of many shapes -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["log.csv", "log.parquet"])
def test_every_kind_of_column_in_both_formats(run, name):
    path = run.save(clicks(), name)
    text = run(path, "--time", "when", "--user", "user_id", "--item", "item_id")
    assert "the last 30 % of the rows by when" in text
    for row in ("price number", "device category", "member boolean", "title text", "when date"):
        assert row in text
    assert "missing values price" in text
    for heading in ("In short", "cold start", "Is balancing worth it", "Recommended settings"):
        assert heading in text
    assert re.search("[Nn]ot worth balancing|Worth it here|No gain from balancing", text)


@pytest.mark.parametrize(
    ("words", "positive"),
    [
        ({0: "False", 1: "True"}, "true"),
        ({0: "no", 1: "yes"}, "yes"),
        ({0: "0.0", 1: "1.0"}, "1"),
        ({0: "none", 1: "bought"}, "bought"),
        ({0: "left", 1: "stayed"}, "stayed"),
        ({0: "-1", 1: "1"}, "1"),
        ({0: "Nicht gekauft", 1: "Gekauft, später"}, "Gekauft, später"),
    ],
)
def test_two_words_of_a_label(tmp_path, words, positive):
    frame = plain()
    log = opened(tmp_path, frame.assign(clicked=frame["clicked"].map(words)))
    assert log.positive == positive
    np.testing.assert_array_equal(log.y, frame["clicked"])


def test_of_two_unknown_words_the_rarer_is_positive_and_said_so(run):
    frame = plain()
    frame["clicked"] = frame["clicked"].map({0: "stayed", 1: "left"})
    assert "the rarer one, 'left', counts as positive" in run(frame)
    text = run(frame, "--positive", "stayed")
    assert "('clicked' is 'stayed')" in text
    assert "counts as positive" not in text


def test_more_than_two_classes(run):
    frame = plain(900)
    frame["clicked"] = np.where(frame["clicked"] == 1, "buy", frame["b"].gt(0).map(str))
    said = run(frame)
    assert run.code == 1
    assert "3 classes" in said
    assert "--positive" in said
    text = run(frame, "--positive", "buy")
    assert "'buy' against all others" in text


def test_no_signal_is_said(run):
    assert "No signal: without balancing neither model" in run(plain(600, signal=0.0))


def test_a_copy_of_the_label_and_a_telling_column_are_named_and_set_aside(run, tmp_path):
    frame = plain(700)
    frame["refund"] = frame["clicked"].map({0: "n", 1: "j"})
    rng = np.random.default_rng(1)
    frame["paid"] = frame["clicked"] * 5 + rng.random(700)
    frame["bought_at"] = np.where(frame["clicked"] == 1, "2024-01-01", None)
    text = run(frame)
    assert "Suspected leak: 'refund', 'paid', 'bought_at'" in text
    assert "refund a copy of the label 1.0000" in text
    assert "bought_at it is filled in for one class only" in text
    study = takehome.Study(opened(tmp_path, frame), settings=QUICK)
    assert list(study.encoder._part("a", "number").__dict__) == []  # fresh: fitted by data alone
    assert study.data.X_train.shape[1] == 2  # a and b


def test_a_log_whose_only_column_leaks_still_gets_its_report(run):
    frame = plain()
    text = run(frame.assign(copy=frame["clicked"])[["copy", "clicked"]])
    assert "Nothing is left to learn from" in text
    assert "'copy'" in text


def test_copies_stay_on_one_side_of_the_split(tmp_path, run):
    frame = plain(300)
    again = pd.concat([frame, frame, frame.iloc[:50]], ignore_index=True)
    text = run(again)
    assert "350 kept, but all copies of a row on one side" in text
    log = opened(tmp_path, again)
    test = _split.split(log).test
    assert set(pd.Series(test).groupby(again["a"]).mean()) == {0, 1}
    assert 0.2 < test.mean() < 0.4


def test_rows_that_agree_by_chance_are_no_copies(tmp_path, run):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.integers(0, 10, (600, 2)), columns=["a", "b"])
    frame["clicked"] = rng.random(600) < 0.1 + 0.05 * frame["a"]
    assert "so they are no copies" in run(frame)
    log = opened(tmp_path, frame)
    assert len(np.unique(log.copies)) == 600
    few = opened(tmp_path, frame.assign(a=frame["a"] // 5, b=0))
    assert len(np.unique(few.copies)) == 600


def test_groups_stay_on_one_side_and_users_are_new_then(tmp_path, run):
    frame = clicks()
    log = opened(tmp_path, frame, user="user_id")
    test = _split.split(log).test
    assert set(pd.Series(test).groupby(frame["user_id"]).mean()) == {0, 1}
    text = run(frame, "--user", "user_id")
    assert "keeps rows of one value together; not in the models" in text
    assert re.search(r"user_id 30 100 % 100 %|user_id \d+ 100 % 100 %", text)


@pytest.mark.parametrize("seed", range(4))
def test_few_positives_are_shared_between_the_sides(tmp_path, seed):
    frame = plain(500).assign(clicked=(np.arange(500) % 50 == 0).astype(int))
    log = opened(tmp_path, frame)
    test = _split.split(log, seed=seed).test
    assert (int(log.y[test].sum()), int(test.sum())) == (3, 150)


@pytest.mark.parametrize(("positives", "tested"), [(39, 12), (40, 20), (51, 20), (90, 27)])
def test_where_both_sides_can_have_enough_positives_they_do(tmp_path, positives, tested):
    frame = plain(2_000).assign(clicked=(np.arange(2_000) < positives).astype(int))
    log = opened(tmp_path, frame)
    test = _split.split(log).test
    assert log.y[test].sum() == tested
    assert log.y[test].mean() == pytest.approx(log.y.mean(), rel=0.05)  # the natural rate


def test_time_splits_between_moments_and_tests_the_later_ones(tmp_path):
    frame = clicks().sample(frac=1, random_state=1)
    log = opened(tmp_path, frame, time="when")
    test = _split.split(log).test
    when = frame["when"].to_numpy()
    assert when[~test].max() < when[test].min()


@pytest.mark.parametrize("form", ["%d.%m.%Y", "%m/%d/%Y", "%Y-%m-%dT%H:%M:%S", "%Y%m%d"])
def test_time_in_many_spellings_keeps_its_order(tmp_path, form):
    frame = plain(300)
    days = pd.date_range("2023-11-20", periods=300)
    frame["day"] = days.strftime(form)
    log = opened(tmp_path, frame, time="day")
    assert log.role("time").is_monotonic_increasing
    assert log.role("time").notna().all()


def test_equal_classes_need_no_balancing(run):
    frame = plain(800, signal=1.0)
    kept = frame.groupby("clicked").head(int(frame["clicked"].sum()))
    assert "there is nothing to balance" in run(kept)


@pytest.mark.parametrize(("n", "positives"), [(20_002, 2), (100, 12)])
def test_too_few_positives_is_an_answer(run, n, positives):
    frame = plain(n)
    frame["clicked"] = (np.arange(n) < positives).astype(int)
    frame = frame.sample(frac=1, random_state=0)
    text = run(frame)
    assert "Too few positives to tell" in text
    assert f"{positives} of them positive" in text
    assert "the simplest, until there are more rows" in text


def test_rare_positives_with_enough_of_them_are_compared(run):
    frame = plain(20_000, rate=0.005, signal=1.5)
    text = run(frame, "--trees", "5")
    assert "10 negatives per positive" in text
    assert "Too few" not in text


def test_where_negatives_are_the_rarer_class_they_are_counted(run):
    frame = plain(400)
    frame["clicked"] = (np.arange(400) >= 15).astype(int)
    assert "Too few negatives to tell" in run(frame.sample(frac=1, random_state=0))


def test_a_large_file_is_sampled_whole_groups_together_and_said_so(run, tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.concat([plain(5_000, seed=seed) for seed in range(6)], ignore_index=True)
    frame["visitor"] = rng.integers(0, 3_000, len(frame))
    path = run.save(frame, "large.parquet")
    text = run(path, "--user", "visitor", "--max-rows", "4000")
    assert "30,000 rows" in text
    assert "The file is larger than what is analysed" in text
    assert "rows of the final training" not in text  # few negatives for each positive
    log = logfile.open_log(path, "clicked", user="visitor", max_rows=4_000)
    assert log.sampled
    assert 3_000 < len(log.y) < 5_000
    assert log.y.mean() == pytest.approx(frame["clicked"].mean(), abs=0.03)
    sizes = frame.groupby(frame["visitor"].astype(str)).size()
    kept = log.frame.groupby("visitor").size()
    pd.testing.assert_series_equal(kept, sizes[kept.index], check_names=False)
    again = logfile.open_log(path, "clicked", user="visitor", max_rows=4_000)
    pd.testing.assert_frame_equal(again.frame, log.frame)


def test_semicolons_and_decimal_commas(tmp_path):
    frame = plain()
    path = tmp_path / "log.csv"
    frame.to_csv(path, index=False, sep=";", decimal=",")
    log = logfile.open_log(path, "clicked")
    np.testing.assert_allclose(log.frame["a"], frame["a"])


def test_few_odd_values_are_told_and_the_column_stays_a_number(run):
    frame = plain()
    frame["a"] = frame["a"].astype(object)
    frame.loc[[3, 7], "a"] = "error"
    assert "values of another kind a 2 taken as missing, as the others are numbers" in run(frame)


def test_codes_that_are_mostly_digits_stay_categories(tmp_path):
    frame = plain(400)
    frame["place"] = np.where(np.arange(400) % 30 == 7, "A", (np.arange(400) % 9).astype(str))
    log = opened(tmp_path, frame)
    assert log.columns["place"].kind == "category"
    assert log.columns["place"].missing == 0


def test_what_many_columns_have_in_common_is_said_once(run):
    frame = plain(200).assign(**{f"same{i}": 1 for i in range(7)}, gap=None)
    text = run(frame)
    row = "column of one value same0, same1, same2, same3, same4, … (7 columns) left out"
    assert row in text
    assert "column without a value gap 200 left out" in text


def test_missing_labels_are_left_out_and_counted(run):
    frame = plain()
    frame["clicked"] = frame["clicked"].astype(object)
    frame.loc[:9, "clicked"] = None
    text = run(frame)
    assert "missing labels clicked 10" in text
    assert "590 rows" in text


def test_whole_numbers_of_64_bits_that_name_visitors_keep_their_digits(tmp_path):
    frame = plain(200).assign(visitor=2**62 + np.arange(200) % 7)
    path = tmp_path / "log.parquet"
    frame.to_parquet(path)
    log = logfile.open_log(path, "clicked", user="visitor")
    assert log.columns["visitor"].n_values == 7
    assert set(log.frame["visitor"]) == {str(2**62 + i) for i in range(7)}


def test_a_label_of_any_type_in_parquet(tmp_path):
    frame = plain(200)
    path, y = tmp_path / "log.parquet", frame["clicked"]
    days = {0: pd.Timestamp("2024-01-01"), 1: pd.Timestamp("2024-02-01")}
    for values in (y.astype(bool), y.astype("float32"), y.astype("category"), y.map(days)):
        frame.assign(clicked=values).to_parquet(path)
        np.testing.assert_array_equal(logfile.open_log(path, "clicked").y, y)
    frame.assign(clicked=y.astype("boolean").mask(y.index < 9)).to_parquet(path)
    np.testing.assert_array_equal(logfile.open_log(path, "clicked").y, y[9:])


def test_huge_numbers_and_old_dates_become_finite(tmp_path):
    rng = np.random.default_rng(0)
    frame = plain(300).assign(huge=rng.choice([1e308, -1e308], 300), limit=np.inf)
    frame["old"] = rng.choice(["0001-01-01", "9999-12-31", "2024-02-29"], 300)
    rows = takehome.Study(opened(tmp_path, frame), settings=QUICK).data
    assert np.isfinite(rows.X_train.to_numpy()).all()
    assert np.isfinite(rows.X_test.to_numpy()).all()


# --- bad input -----------------------------------------------------------------------------------


def _csv(frame, **options):
    return frame.to_csv(index=False, **options).encode()


def _parquet(frame):
    out = io.BytesIO()
    frame.to_parquet(out)
    return out.getvalue()


def _zipped(data):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("log.csv", data)
    return out.getvalue()


GOOD = _csv(plain(60))
BAD = {
    "empty": (b"", "is empty"),
    "white space": (b" \n\n", "is empty"),
    "names only": (b"a,clicked\n", "no row"),
    "one class": (b"a,clicked\n1,0\n2,0\n", "one class only: all 2 rows hold '0'"),
    "label without a value": (b"a,clicked\n1,\n2,NA\n", "holds no value"),
    "label missing": (b"a,cliked\n1,0\n2,1\n", "did you mean 'cliked'"),
    "columns of one value": (b"a,clicked\n1,0\n1,1\n", "No column beside the label"),
    "label alone": (b"clicked\n0\n1\n", "not a table of several columns"),
    "latin-1": ("a,clicked\né,1\nb,0\n".encode("latin-1"), "not in UTF-8"),
    "utf-16": ("a,clicked\n1,0\n2,1\n".encode("utf-16"), "UTF-16"),
    "binary": (b"a,clicked\n\0\0\0,1\n", "binary data"),
    "cut in a line": (GOOD[:-30], "cut short"),
    "cut in quotes": (b'a,clicked\n1,0\n2,1\n3,"ab', "cut short"),
    "cut in a letter": ("a,clicked\nb,0\nc,1\né".encode()[:-1], "cut short"),
    "zip": (_zipped(b"0" * 10_000_000), "zip archive"),
    "gzip bomb": (gzip.compress(b"0" * 10_000_000), "gzip-compressed"),
    "json": (b'[{"a": 1, "clicked": 0}]', "JSON"),
    "web page": (b"<!doctype html><html></html>", "web page"),
    "picture": (b"\x89PNG\r\n\x1a\n", "an image"),
    "letter": (b"Dear all,\nthis is prose.\nWith, here, and there, commas.\n", "no column"),
    "ragged": (b"a,b,clicked\n" + b"1,2\n1,2,3,4\n" * 30 + b"1,2,0\n1,2,1\n", "not one table"),
    "parquet cut short": (_parquet(plain(60))[:-9], "cut short"),
    "parquet without a row": (_parquet(plain(60)[:0]), "empty table"),
    "parquet damaged": (b"PAR1" + bytes(200) + b"PAR1", "damaged"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_end_in_one_line_without_a_report(run, tmp_path, name):
    data, reason = BAD[name]
    path = tmp_path / "log.csv"
    path.write_bytes(data)
    assert reason in run(path)
    assert run.code == 1


def test_what_is_no_file_ends_in_one_line(run, tmp_path):
    assert "folder" in run(tmp_path)
    assert "no such file" in run(tmp_path / "nothing.csv")
    assert "not a regular file" in run("/dev/null")
    assert "not a path" in run("a\0b")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    assert "not a regular file" in run(fifo)


def test_damaged_pages_of_a_parquet_file_end_in_one_line(run, tmp_path):
    data = bytearray(_parquet(plain(5_000)))
    data[4:9_000] = b"\xff" * 8_996  # the headers of pages, and what they describe
    path = tmp_path / "log.parquet"
    path.write_bytes(data)
    assert "damaged or cut short" in run(path)


def test_a_parquet_bomb_is_not_unpacked(run, tmp_path, monkeypatch):
    table = pa.table({"a": ["x" * 100_000] * 40, "clicked": [0, 1] * 20})
    path = tmp_path / "log.parquet"
    pq.write_table(table, path, compression="zstd", use_dictionary=False)
    monkeypatch.setattr(_sniff, "EXPANSION_FROM", 1 << 20)
    assert "would unpack to" in run(path)
    monkeypatch.setattr(_sniff, "MAX_PARQUET_ROWS", 39)
    assert "claims 40 rows" in run(path)


def test_roles_that_do_not_fit_end_in_one_line(run):
    frame = clicks(200)
    path = run.save(frame.assign(one=1))
    assert "no column 'usr_id' for the user: did you mean 'user_id'" in run(
        path, "--user", "usr_id"
    )
    assert "given as the label and as the time" in run(path, "--time", "clicked")
    assert "reads neither as dates nor as numbers" in run(path, "--time", "device")
    assert "has 1 value" in run(path, "--time", "one")
    assert "both --cost-fp and --cost-fn" in run(path, "--cost-fp", "1")
    assert "never holds 'often'" in run(path, "--positive", "often")
    path = run.save(frame.assign(stay=pd.to_timedelta(1, unit="s"), z=[[1]] * 200), "log.parquet")
    assert "'stay' for the time holds lists" in run(path, "--time", "stay")
    assert "'z' for the label holds lists" in run(path, label="z")


def test_wrong_options_exit_with_two(capsys):
    for options in (["report"], ["report", "x.csv"], [], ["report", "x", "--label", "y", "--no"]):
        with pytest.raises(SystemExit) as stopped:
            main(options)
        assert stopped.value.code == 2
    with pytest.raises(SystemExit) as stopped:
        main(["report", "x", "--label", "y", "--cost-fp", "-1", "--cost-fn", "1"])
    assert stopped.value.code == 2
    assert "not a positive, finite cost" in capsys.readouterr().err


def test_help_shows_an_example_and_the_exit_codes(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["report", "--help"])
    assert stopped.value.code == 0
    assert "exit codes" in capsys.readouterr().out


def test_the_log_is_never_overwritten(tmp_path, capsys):
    path = tmp_path / "log.csv"
    path.write_bytes(GOOD)
    os.mkfifo(tmp_path / "fifo")
    outputs = {
        path: "is the log itself",
        tmp_path: "is a folder",
        tmp_path / "nowhere" / "report.html": "nowhere, does not exist",
        tmp_path / "fifo": "no file that can be replaced",
        tmp_path / "a\0b": "no path that can be written to",
    }
    for output, reason in outputs.items():
        assert main(["report", str(path), "--label", "clicked", "--output", str(output)]) == 1
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert reason in said
    assert path.read_bytes() == GOOD
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fifo", "log.csv"]
    assert (tmp_path / "fifo").is_fifo()


@pytest.mark.parametrize(
    ("fault", "code"), [(KeyboardInterrupt, 130), (TypeError, 3), (MemoryError, 1)]
)
def test_whatever_happens_an_older_report_stays_whole(tmp_path, capsys, monkeypatch, fault, code):
    path, output = tmp_path / "log.csv", tmp_path / "report.html"
    path.write_bytes(GOOD)
    output.write_text("older")

    def fail(*_):
        raise fault("no\nway")

    monkeypatch.setattr(takehome, "page", fail)
    arguments = ["report", str(path), "--label", "clicked", "--output", str(output), *FAST]
    assert main(arguments) == code
    assert capsys.readouterr().err.count("\n") == 1
    assert output.read_text() == "older"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log.csv", "report.html"]


def test_a_full_disk_leaves_the_older_report(tmp_path):
    resource = pytest.importorskip("resource")
    study = takehome.Study(opened(tmp_path, plain(100)), settings=QUICK)
    output = tmp_path / "report.html"
    output.write_text("older")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3_000, limits[1]))
    try:
        with pytest.raises(RecbalError, match="cannot be written"):
            study.write(output)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert output.read_text() == "older"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log.csv", "report.html"]


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=300))
def test_any_bytes_give_one_line_or_a_log(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("bytes") / "log.csv"
    path.write_bytes(data)
    with pytest.raises(RecbalError) as error:
        logfile.open_log(path, "clicked")
    assert "\n" not in str(error.value)


# --- hostile names and values --------------------------------------------------------------------

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "$\\frac{1}{0}$",
    "'); DROP TABLE log; --",
    "line\nbreak",
    "\u202egnp.exe",
    "{{ 7 * 7 }}",
    "__import__('os').system('id')",
]


def test_hostile_names_and_values_are_shown_letter_by_letter(run):
    frame = plain(400)
    rng = np.random.default_rng(0)
    for name in HOSTILE:
        frame[name] = rng.choice([name, name + "2", "c"], 400)
    label = "<b>clicked</b> & $x$"
    frame = frame.rename(columns={"clicked": label})
    frame[label] = frame[label].map({0: "</p><script>a()</script>", 1: "<i>yes"})
    path = run.save(frame, "<svg onload=alert(1)>.csv")
    text = run(path, "--user", HOSTILE[4], "--item", HOSTILE[1], label=label)
    page = Whole(run.output.read_text())
    assert "script" not in page.tags
    assert not {"b", "i", "svg"} & set(page.tags)
    assert all(
        address.startswith(("#s", "data:image/svg+xml;base64,")) for address in page.addresses
    )
    for name in HOSTILE[:4]:
        assert name in text
    assert "49" not in text.split("What is in the file")[1].split("Imbalance")[0]
    assert "\u202e" not in text


def test_the_page_loads_nothing_and_forbids_it(run):
    run(plain())
    html = run.output.read_text()
    assert "default-src 'none'" in html
    assert not re.search(r"(src|href)=.?(https?:)?//", html)


def test_no_id_and_no_text_of_a_row_gets_into_the_report(run):
    frame = clicks(400)
    frame["user_id"] = [f"person{n % 40:04d}" for n in range(400)]
    frame["item_id"] = [f"thing{n % 25:04d}" for n in range(400)]
    frame["session"] = [f"visit{n:05d}" for n in range(400)]
    frame["title"] = [f"secret{n} is a long sentence here" for n in range(400)]
    for options in (["--time", "when"], []):
        text = run(frame, "--user", "user_id", "--item", "item_id", *options)
        assert not re.search(r"person\d|thing\d|visit\d|secret", text)
        assert "session id 0 % 400 left out" in text


# --- tables nobody has thought of ----------------------------------------------------------------

CELLS = {
    "number": st.floats(allow_nan=True, allow_infinity=True),
    "whole": st.integers(-(2**70), 2**70),
    "text": st.text(max_size=12),
    "few": st.sampled_from(["a", "b", "c", None, ""]),
    "flag": st.sampled_from([True, False, None]),
    "date": st.datetimes().map(str),
    "mixed": st.one_of(st.integers(0, 9), st.text(max_size=3), st.none()),
}


@st.composite
def tables(draw):
    """Few or some rows of columns of any kind and any name, with a label of two values."""
    n = draw(st.sampled_from([25, 240, 320]))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    names = draw(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=4, unique=True))
    frame = pd.DataFrame(index=range(n))
    for name in names:
        pool = draw(st.lists(CELLS[draw(st.sampled_from(sorted(CELLS)))], min_size=1, max_size=20))
        frame[name] = pd.Series([pool[i] for i in rng.integers(0, len(pool), n)], dtype=object)
    frame["clicked"] = rng.random(n) < draw(st.sampled_from([0.05, 0.3, 0.5]))
    return frame


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(frame=tables(), timed=st.booleans())
def test_any_table_gives_a_whole_report_or_one_line(tmp_path_factory, frame, timed):
    folder = tmp_path_factory.mktemp("table")
    output = folder / "report.html"
    path = folder / "log.csv"
    frame.to_csv(path, index=False, errors="replace")
    options = [f"--time={next(iter(frame))}"] if timed else []
    code = main(
        ["report", str(path), "--label", "clicked", "--output", str(output), *FAST, *options]
    )
    assert code in (0, 1)
    if code == 0:
        Whole(output.read_text(encoding="utf-8"))
    else:
        assert not output.exists()


@settings(max_examples=60, deadline=None)
@given(
    values=st.lists(st.one_of(*CELLS.values()), min_size=1, max_size=60),
    name=st.sampled_from(["x", "user_id"]),
)
def test_any_column_becomes_floats_dates_or_text(values, name):
    column, found = _columns.clean(pd.Series(values, dtype=object).map(str), name)
    assert len(found) == len(values)
    assert found.dtype.kind in "fMO" or found.dtype == "str"
    if found.dtype.kind == "f":
        assert not np.isinf(found).any()
    assert column.missing == pytest.approx(found.isna().mean())


# --- the parts -----------------------------------------------------------------------------------


def test_a_strong_column_is_not_yet_a_leak(tmp_path):
    rng = np.random.default_rng(0)
    y = (np.arange(4_000) % 4 == 0).astype(int)
    frame = pd.DataFrame({"strong": y * 2.9 + rng.normal(size=4_000)})
    frame["leak"] = y * 4.5 + rng.normal(size=4_000)
    frame["range"] = np.where(y == 1, rng.uniform(-1, 1, 4_000), rng.choice([-9.0, 9.0], 4_000))
    frame["range"] += rng.normal(0, 0.1, 4_000)
    frame["session"] = [f"s{i}" for i in range(4_000)]
    log = opened(tmp_path, frame.assign(clicked=y))
    assert 0.97 < roc_auc_score(y, frame["strong"]) < 0.99 < roc_auc_score(y, frame["leak"])
    found = {s.name: s for s in _leaks.suspects(log.frame, log.y, log.columns)}
    assert set(found) == {"leak", "range"}
    assert found["leak"].auc == pytest.approx(roc_auc_score(y, frame["leak"]), abs=0.003)


def test_with_a_handful_of_positives_no_leak_is_claimed():
    frame = pd.DataFrame({"a": np.r_[np.zeros(96), np.ones(4)]})
    column, values = _columns.clean(frame["a"], "a")
    y = np.r_[np.zeros(96), np.ones(4)].astype(int)
    assert _leaks.suspects(pd.DataFrame({"a": values}), y, {"a": column}) == []


def test_the_matrix_is_finite_and_test_labels_do_not_matter(tmp_path):
    log = opened(tmp_path, clicks(), time="when", user="user_id", item="item_id")
    rows = takehome.Study(log, settings=QUICK).data
    assert np.isfinite(rows.X_train.to_numpy()).all()
    assert np.isfinite(rows.X_test.to_numpy()).all()
    frame = clicks()
    frame.loc[700:, "clicked"] = 1 - frame.loc[700:, "clicked"]
    turned = takehome.Study(
        opened(tmp_path, frame, time="when", user="user_id", item="item_id"), settings=QUICK
    ).data
    pd.testing.assert_frame_equal(turned.X_train, rows.X_train)
    pd.testing.assert_frame_equal(turned.X_test, rows.X_test)


def test_a_column_whose_later_values_are_new_is_left_out(tmp_path, run):
    frame = clicks()
    n = len(frame)
    frame["visit"] = np.arange(n) // 4  # a running number, four rows each
    frame["session"] = "s" + frame["visit"].astype(str)
    frame["shipped"] = frame["when"].dt.date
    path = run.save(frame)
    text = run(path, "--time", "when")
    for name in ("visit", "session", "shipped"):
        assert re.search(rf"{name} \w+ 0 % \d+ left out: its values in the test rows are new", text)
    assert "leave out 'visit', 'session', 'shipped'" in text
    study = takehome.Study(logfile.open_log(path, "clicked"), settings=QUICK)
    assert study.fleeting == []  # rows at random: both sides hold the same values


@pytest.mark.parametrize("weight", [None, "balanced"])
def test_the_linear_model_is_trained_to_its_end_where_positives_are_rare(weight):
    rng = np.random.default_rng(0)
    X = rng.normal([0, 0, -3, -3], [1, 1, 0.3, 0.3], size=(60_000, 4))  # rates are log-odds
    y = (rng.random(60_000) < expit(X[:, 0] + 4 * X[:, 2] + 5)).astype(int)
    ours = takehome.model("logistic regression", class_weight=weight).fit(X, y)
    best = LogisticRegression(tol=1e-12, max_iter=5_000, class_weight=weight).fit(X, y)
    np.testing.assert_allclose(ours.coef_, best.coef_, atol=0.005)
    early = LogisticRegression(class_weight=weight).fit(X, y)
    if weight is None:  # else the model with weights would seem better than it is
        assert np.abs(early.coef_ - best.coef_).max() > 0.05


def test_the_test_rows_choose_no_model(tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(1_200, 3)), columns=["a", "b", "c"])
    both = 6 * (frame["a"] * frame["b"] > 0) + frame["c"]  # lines see c alone
    frame["clicked"] = (both + rng.logistic(size=1_200) > 5).astype(int)
    frame["day"] = pd.date_range("2024-01-01", periods=1_200).astype(str)
    study = takehome.Study(opened(tmp_path, frame, time="day"), settings=QUICK)
    assert study.trial.chosen == "boosted trees"
    late = study.split.test
    frame.loc[late, "clicked"] = (frame.loc[late, "c"] > 0.5).astype(int)
    turned = takehome.Study(opened(tmp_path, frame, time="day"), settings=QUICK)
    np.testing.assert_array_equal(turned.split.test, late)
    assert turned.trial.chosen == "boosted trees"
    found = turned.trial.summary()["value"].xs("average_precision", level="metric")
    assert found[f"logistic regression: {_trial.PLAIN}"] > found[turned.trial.best_plain()]
    assert turned.verdict.method.startswith("boosted trees")


def test_positives_too_few_to_choose_a_model_take_the_simpler_one(tmp_path):
    frame = plain(400).assign(clicked=(np.arange(400) % 16 == 0).astype(int))
    study = takehome.Study(opened(tmp_path, frame), settings=QUICK)
    assert study.data.choosing.any()
    assert study.trial.chosen == "logistic regression"


def test_concentration_that_chance_gives_is_said_to_be_that(tmp_path, run):
    rng = np.random.default_rng(0)
    frame = plain(3_000, rate=0.02)
    frame["item"] = rng.integers(0, 500, 3_000)
    assert "hardly more than chance" in run(frame, "--item", "item")
    frame["item"] = np.where(frame["clicked"] == 1, frame["item"] % 20, frame["item"])
    assert "judge head and tail apart" in run(frame, "--item", "item")


def test_many_categories_of_noise_do_not_learn_their_own_rows(tmp_path):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"shop": rng.integers(0, 400, 2_000), "clicked": rng.random(2_000) < 0.3})
    frame["shop"] = "s" + frame["shop"].astype(str)
    rows = takehome.Study(opened(tmp_path, frame), settings=QUICK).data
    assert abs(roc_auc_score(rows.y_train, rows.X_train["x0"]) - 0.5) < 0.06


def test_unseen_categories_and_gaps_at_test_time_are_taken(tmp_path):
    frame = clicks(400)
    log = opened(tmp_path, frame, time="when")
    log.frame.loc[300:, "device"] = "fridge"
    log.frame.loc[300:, "z"] = np.nan
    rows = takehome.Study(log, settings=QUICK).data
    assert np.isfinite(rows.X_test.to_numpy()).all()


def test_results_are_those_of_scikit_learn(tmp_path):
    study = takehome.Study(opened(tmp_path, plain()), settings=QUICK)
    method = f"boosted trees: {_trial.PLAIN}"
    p, y = study.trial.first(method), study.data.y_test
    found = study.trial.summary().loc[method]["value"]
    assert found["roc_auc"] == pytest.approx(roc_auc_score(y, p))
    assert found["average_precision"] == pytest.approx(average_precision_score(y, p))
    direct = takehome.model("boosted trees", trees=8)
    direct.fit(study.data.X_train, study.data.y_train)
    np.testing.assert_allclose(direct.predict_proba(study.data.X_test)[:, 1], p, atol=1e-7)


def test_balancing_inflates_and_the_correction_brings_it_back(tmp_path):
    study = takehome.Study(opened(tmp_path, plain(4_000, rate=0.05)), settings=QUICK)
    found = study.trial.summary()["value"].xs("ratio", level="metric")
    for way in (_trial.WEIGHTS, _trial.OVER, _trial.UNDER):
        method = f"logistic regression: {way}"
        assert found[method] > 2
        assert found[f"{method}, corrected"] == pytest.approx(1, abs=0.35)


def _gains(ap, auc=(0.0, -0.01, 0.01), entropy=(0.0, -0.01, 0.01)):
    """Gains of one way, p-values far below or above .05 by whether the interval excludes 0."""
    rows = {
        (name, _trial.OVER, metric): (*band, 0.001 if band[1] > 0 or band[2] < 0 else 0.6)
        for name in _trial.MODELS
        for metric, band in {
            "roc_auc": auc,
            "average_precision": ap,
            "normalised_entropy": entropy,
        }.items()
    }
    index = pd.MultiIndex.from_tuples(rows, names=["model", "way", "metric"])
    return pd.DataFrame(rows.values(), index=index, columns=["value", "low", "high", "p"])


class _Told:
    """What `verdict` asks of a trial: the ways, the best model, and metrics without balancing."""

    ways = (_trial.PLAIN, _trial.OVER)

    def __init__(self, auc=(0.8, 0.7, 0.9)):
        self.auc = auc

    def best_plain(self):
        return f"boosted trees: {_trial.PLAIN}"

    def summary(self):
        rows = {
            (f"{name}: {_trial.PLAIN}", metric): values
            for name in _trial.MODELS
            for metric, values in {
                "roc_auc": self.auc,
                "average_precision": (0.2, 0.1, 0.3),
            }.items()
        }
        index = pd.MultiIndex.from_tuples(rows, names=["method", "metric"])
        return pd.DataFrame(rows.values(), index=index, columns=["value", "low", "high"])


@pytest.mark.parametrize(
    ("found", "answer"),
    [
        (_gains(ap=(0.05, 0.02, 0.08)), "yes"),
        (_gains(ap=(0.05, -0.02, 0.12)), "unclear"),  # within chance, and wide
        (_gains(ap=(0.005, -0.01, 0.019)), "no"),  # within chance, and narrow
        (_gains(ap=(0.05, -0.02, 0.12), auc=(0, -0.003, 0.003)), "no"),
        (_gains(ap=(0.001, 0.0005, 0.0015)), "no"),  # certain, and tiny
        (_gains(ap=(0.05, 0.02, 0.08), auc=(-0.02, -0.03, -0.01)), "no"),  # harm elsewhere
        (_gains(ap=(0.05, 0.02, 0.08), entropy=(0.05, 0.02, 0.08)), "no"),
        (_gains(ap=(-0.05, -0.08, -0.02)), "no"),
    ],
)
def test_verdict_wants_a_gain_beyond_chance_that_is_not_tiny_and_harms_nothing(found, answer):
    told = _trial.verdict(_Told(), found)
    assert told.answer == answer
    way = _trial.OVER if answer == "yes" else _trial.PLAIN
    assert told.method == f"boosted trees: {way}"


def test_verdict_without_signal_comes_first():
    told = _trial.verdict(_Told(auc=(0.52, 0.48, 0.56)), _gains(ap=(0.05, 0.02, 0.08)))
    assert told.answer == "no signal"


def test_a_sample_of_a_rare_log_is_told_to_keep_every_positive(tmp_path):
    frame = pd.concat([plain(6_000, rate=0.02, signal=1.0, seed=seed) for seed in range(3)])
    study = takehome.Study(opened(tmp_path, frame, max_rows=6_000), settings=QUICK)
    told = dict(study._recommended())["rows of the final training"]
    assert f"every positive of the file ({frame['clicked'].sum():,}; the sample has" in told
    assert "add ln(share of negatives kept)" in told
    beta, p = 0.1, np.array([0.02, 0.3])
    kept = p / (p + beta * (1 - p))  # what a model says that has seen that share of negatives
    np.testing.assert_allclose(calibrate.shift_log_odds(kept, np.log(beta)), p)


def test_probabilities_worse_than_the_rate_are_said_to_be(tmp_path):
    study = takehome.Study(opened(tmp_path, plain(2_000)), settings=QUICK)
    assert "worse than the rate alone" not in str(study.calibration())
    found = study.trial.summary()
    found.loc[(study.trial.best_plain(), "normalised_entropy"), ["low", "value"]] = 1.2, 1.4
    name = study.trial.chosen
    assert "worse than the rate alone" in str(study._worse_than_the_rate(name, found)[0])


def test_costs_by_hand():
    y = np.array([0, 0, 1, 1])
    rules = [_trial.Decision("three", np.array([1, 1, 1, 0], bool))]
    found = _trial.costs_of(rules, y, np.arange(4), (1, 20), n_replicates=50).loc["three"]
    assert found["value"] == 1_000 * (2 * 1 + 20) / 4
    assert found["share_acted"] == 0.75
    assert found["low"] <= found["value"] <= found["high"]


def test_threshold_is_that_of_the_costs(run):
    text = run(plain(), "--cost-fp", "1", "--cost-fn", "19")
    assert "acting pays from a probability of 0.05 on" in text
    assert "as given" in text
    assert "assumed" in run(plain())


@pytest.mark.parametrize("name", ["new_rows.csv", "new_rows.parquet"])
def test_new_rows_are_scored_as_the_rows_of_the_log_were(tmp_path, monkeypatch, name):
    frame = clicks(600)
    study = takehome.Study(
        opened(tmp_path, frame, time="when", user="user_id", item="item_id"), settings=QUICK
    )
    later = frame[study.split.test]
    monkeypatch.chdir(tmp_path)
    if name.endswith("csv"):
        later.drop(columns="clicked").to_csv(name, index=False)
    else:
        later.assign(more=1).to_parquet(name)
    names = {}
    code = study.code().replace("new_rows.csv", name)
    exec(re.sub("^# (new|p_new) =", r"\1 =", code, flags=re.MULTILINE), names)
    np.testing.assert_allclose(names["p_new"], names["p"], atol=1e-6)


def test_new_rows_that_read_otherwise_keep_the_types_of_the_log(tmp_path):
    frame = clicks(300)
    log = opened(tmp_path, frame, time="when", item="item_id")
    odd = pd.DataFrame({name: ["7", "?"] for name in frame.columns})
    odd.to_csv(tmp_path / "odd.csv", index=False)
    rows = logfile.open_rows(tmp_path / "odd.csv", like=log)
    for name in log.frame:
        assert rows[name].dtype.kind == log.frame[name].dtype.kind or rows[name].dtype == "str"
    study = takehome.Study(log, settings=QUICK)
    assert len(study.data.X_train)
    assert np.isfinite(study.encoder.transform(rows).to_numpy()).all()
    odd.drop(columns="price").to_csv(tmp_path / "odd.csv", index=False)
    with pytest.raises(RecbalError, match="no column 'price' for the model"):
        logfile.open_rows(tmp_path / "odd.csv", like=log)


@pytest.mark.parametrize("way", [_trial.PLAIN, _trial.UNDER, _trial.WEIGHTS])
def test_code_of_the_report_runs_and_gives_the_same(tmp_path, monkeypatch, way):
    frame = plain().rename(columns={"a": 'it\'s "a"'})
    log = opened(tmp_path, frame, positive="1")
    study = takehome.Study(log, costs=(1, 4), settings=takehome.Settings((0,), 20))
    method = f"boosted trees: {way}"
    study.verdict = _trial.Verdict("yes", "as if", method)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(study.code(), names)
    np.testing.assert_allclose(names["p"], study.trial.corrected(method), atol=1e-6)
    np.testing.assert_array_equal(names["act"], names["p"] >= 0.2)


def test_sections_show_themselves_one_by_one(tmp_path):
    study = takehome.Study(opened(tmp_path, plain()), settings=QUICK)
    for section in study.sections():
        Whole(section._repr_html_())
        assert section.title in str(section)


@pytest.mark.parametrize("way", [_trial.OVER, _trial.UNDER, _trial.THINNED])
def test_samplers_make_the_classes_they_promise(way):
    X, y = np.arange(2_000.0)[:, None], (np.arange(2_000) < 50).astype(int)
    _, kept = _trial.sampler(way).fit_resample(X, y)
    expected = 10 if way == _trial.THINNED else 1
    assert (kept == 0).sum() / (kept == 1).sum() == expected


def test_defaults_once_as_a_reader_would(tmp_path):
    path = tmp_path / "clicks.csv"
    clicks(600).to_csv(path, index=False)
    command = [sys.executable, "-m", "recbal_utils", "report", "clicks.csv", "--label", "clicked"]
    root = str(Path(__file__).resolve().parent.parent)
    done = subprocess.run(
        [*command, "--time", "when", "--item", "item_id"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": root},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "report: report.html"
    Whole((tmp_path / "report.html").read_text(encoding="utf-8"))
