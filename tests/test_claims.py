"""Claims: in band or stop; the ledger is whole whatever happens."""

import doctest
import json
import os
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbal_utils import claims
from recbal_utils.claims import ClaimError, Ledger, band, load
from recbal_utils.errors import RecbalError


@pytest.fixture
def ledger(tmp_path):
    return Ledger("02_metrics", folder=tmp_path)


def test_a_claim_in_its_band_is_returned_and_written(ledger):
    assert ledger.claim("auc-holds", 0.93, 0.9, 0.95, "seeds", statement="AUC holds.") == 0.93
    ledger.claim("rate-holds", np.float32(0.5), 0, 1, "a count")
    assert json.loads(ledger.path.read_text()) == [
        {
            "id": "auc-holds",
            "chapter": "02_metrics",
            "value": 0.93,
            "low": 0.9,
            "high": 0.95,
            "source": "seeds",
            "statement": "AUC holds.",
        },
        {
            "id": "rate-holds",
            "chapter": "02_metrics",
            "value": 0.5,
            "low": 0.0,
            "high": 1.0,
            "source": "a count",
            "statement": "",
        },
    ]


@pytest.mark.parametrize("value", [1, 2, 1.5])
def test_the_ends_belong_to_the_band(ledger, value):
    assert ledger.claim("ends", value, 1, 2, "algebra") == value


@pytest.mark.parametrize("value", [0.999, 2.001, -5])
def test_a_claim_outside_its_band_stops_the_run_and_is_not_recorded(ledger, value):
    ledger.claim("first", 1, 0, 2, "algebra")
    with pytest.raises(ClaimError, match=r"'off' of 02_metrics is .*\[1, 2\]"):
        ledger.claim("off", value, 1, 2, "algebra")
    assert [row["id"] for row in json.loads(ledger.path.read_text())] == ["first"]


@pytest.mark.parametrize(
    "id", ["Upper", "two words", "under_score", "-edge", "edge-", "a--b", "", None]
)
def test_malformed_ids_are_refused(ledger, id):
    with pytest.raises(RecbalError, match="malformed"):
        ledger.claim(id, 1, 0, 2, "algebra")


def test_an_id_is_used_once(ledger):
    ledger.claim("same", 1, 0, 2, "algebra")
    with pytest.raises(RecbalError, match="'same' is made twice in 02_metrics"):
        ledger.claim("same", 1, 0, 2, "algebra")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, "1", None, True, [1]])
@pytest.mark.parametrize("field", ["value", "low", "high"])
def test_numbers_are_finite(ledger, field, bad):
    numbers = {"value": 1, "low": 0, "high": 2, field: bad}
    with pytest.raises(RecbalError, match=f"finite number as {field}"):
        ledger.claim("number", **numbers, source="algebra")
    assert json.loads(ledger.path.read_text()) == []


def test_a_band_has_its_ends_in_order(ledger):
    with pytest.raises(RecbalError, match="swap"):
        ledger.claim("order", 1, 2, 0, "algebra")


@pytest.mark.parametrize("source", ["", "  ", None])
def test_a_claim_has_a_source(ledger, source):
    with pytest.raises(RecbalError, match="source"):
        ledger.claim("sourced", 1, 0, 2, source)


def test_a_statement_is_text(ledger):
    with pytest.raises(RecbalError, match="statement"):
        ledger.claim("stated", 1, 0, 2, "algebra", statement=3)


def test_opening_a_ledger_starts_afresh(ledger, tmp_path):
    ledger.claim("old", 1, 0, 2, "algebra")
    again = Ledger("02_metrics", folder=tmp_path)
    assert json.loads(again.path.read_text()) == []
    again.claim("old", 1, 0, 2, "algebra")


@pytest.mark.parametrize("chapter", ["", "../up", "a/b", "a.b", None])
def test_a_chapter_is_a_plain_name(tmp_path, chapter):
    with pytest.raises(RecbalError, match="no name for a ledger"):
        Ledger(chapter, folder=tmp_path)


def test_the_environment_names_the_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("RECBAL_CLAIMS_DIR", str(tmp_path / "kept"))
    assert Ledger("01_a").path == tmp_path / "kept" / "01_a.json"


def test_the_folder_is_found_above_the_notebook(tmp_path, monkeypatch):
    monkeypatch.delenv("RECBAL_CLAIMS_DIR", raising=False)
    (tmp_path / "_config.yml").touch()
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert Ledger("01_a").path == tmp_path / "_build" / "claims" / "01_a.json"


def test_without_a_book_the_folder_is_here(tmp_path, monkeypatch):
    monkeypatch.delenv("RECBAL_CLAIMS_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    assert Ledger("01_a").path == tmp_path / "_build" / "claims" / "01_a.json"


def test_a_failed_write_keeps_the_last_good_ledger(ledger, monkeypatch):
    ledger.claim("first", 1, 0, 2, "algebra")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(RecbalError, match="No space left"):
        ledger.claim("second", 1, 0, 2, "algebra")
    monkeypatch.undo()
    assert [row["id"] for row in json.loads(ledger.path.read_text())] == ["first"]
    assert [path.name for path in ledger.path.parent.iterdir()] == ["02_metrics.json"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RecbalError, match="RECBAL_CLAIMS_DIR"):
        Ledger("01_a", folder=tmp_path / "file" / "below")


def test_load_reads_every_ledger_in_order(tmp_path):
    for chapter in ("02_b", "01_a"):
        ledger = Ledger(chapter, folder=tmp_path)
        ledger.claim("zeta", 1, 0, 2, "algebra")
        ledger.claim("alpha", 1.5, 0, 2, "algebra", statement="β half")
    table = load(tmp_path)
    assert list(table.columns) == ["id", "chapter", "value", "low", "high", "source", "statement"]
    assert table["chapter"].tolist() == ["01_a", "01_a", "02_b", "02_b"]
    assert table["id"].tolist() == ["zeta", "alpha"] * 2
    assert table["statement"].iloc[1] == "β half"


def test_load_of_no_claims_is_an_empty_table(tmp_path):
    Ledger("01_a", folder=tmp_path)
    assert load(tmp_path).empty


def test_load_of_no_folder_says_what_to_run(tmp_path):
    with pytest.raises(RecbalError, match="make book"):
        load(tmp_path / "none")


@pytest.mark.parametrize(
    "text",
    [
        '[{"id": "a"',
        "",
        "{}",
        '{"a": 1}',
        "[1]",
        "3",
        '[{"id": "a"}]',
        '[{"id":"a","chapter":"b","value":3,"low":0,"high":1,"source":"s","statement":""}]',
        '[{"id":"a","chapter":"b","value":"3","low":0,"high":1,"source":"s","statement":""}]',
    ],
)
def test_a_damaged_ledger_is_named(tmp_path, text):
    (tmp_path / "03_torn.json").write_text(text)
    with pytest.raises(RecbalError, match=r"03_torn\.json is damaged"):
        load(tmp_path)


# --- bands ----------------------------------------------------------------------------------


def test_band_by_hand():
    # Mean 10, deviation (n - 1) of 1..19 in steps of 2 is 6.055: half-width 24.22, in steps of 1.
    assert band([1, 3, 5, 7, 9, 11, 13, 15, 17, 19]) == (-15, 35)
    # A tenth of the deviations: half-width 6.055, in steps of 0.1.
    assert band([1, 3, 5, 7, 9, 11, 13, 15, 17, 19], sds=1) == (3.9, 16.1)


@settings(max_examples=100, deadline=None)
@given(
    values=st.lists(st.floats(-1e3, 1e3), min_size=10, max_size=30).filter(
        lambda values: np.std(values) > 1e-6
    )
)
def test_band_reaches_four_deviations_and_hardly_more(values):
    low, high = band(values)
    centre, reach = statistics.fmean(values), 4 * statistics.stdev(values)
    assert low <= centre - reach + 1e-9
    assert high >= centre + reach - 1e-9
    assert high - low <= 2 * reach * 1.11


def test_band_excludes_the_value_under_no_effect():
    values = 0.02 + 0.001 * np.sin(np.arange(12))
    low, high = band(values, null=0)
    assert 0 < low < 0.02 < high
    with pytest.raises(RecbalError, match="no effect"):
        band(values, null=0.018)


def test_band_ends_where_no_value_can_be():
    shares = np.linspace(0.9, 1, 12)
    low, high = band(shares)
    assert high > 1
    assert band(shares, possible=(0, 1)) == (low, 1)
    assert band(1 - shares, possible=(0, 1))[0] == 0
    with pytest.raises(RecbalError, match="beyond what is said to be possible"):
        band(shares * 1.01, possible=(0, 1))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.1] * 9, "at least 10"),
        ([0.1] * 12, "do not vary"),
        ([0.1] * 11 + [np.nan], "11 of them finite"),
        (np.ones((10, 2)), r"shape \(10, 2\)"),
    ],
)
def test_band_needs_values_that_tell_one(values, message):
    with pytest.raises(RecbalError, match=message):
        band(values)


def test_examples_of_the_docstrings_run():
    result = doctest.testmod(claims)
    assert result.attempted > 0
    assert result.failed == 0


def test_a_claim_is_its_value_and_shows_itself_as_a_sentence(tmp_path):
    ledger = Ledger("01_test", folder=tmp_path)
    claimed = ledger.claim("ab", 2 / 3, 0.5, 1, "measured here", statement="Share of it.")
    assert claimed == 2 / 3
    assert claimed._repr_markdown_() == (
        "**Claim.** Share of it: **0.6667**, within its band of 0.5 to 1."
    )
    unnamed = ledger.claim("c-d", 1, 0, 2, "measured here")
    assert unnamed._repr_markdown_().startswith("**Claim.** c-d: **1**")
