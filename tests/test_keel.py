"""KEEL files are read as they stand, and damaged ones are refused in a sentence."""

import numpy as np
import pandas as pd
import pytest

from recbal_utils import keel
from recbal_utils.errors import RecbalError

HEADER = """@relation shop
@attribute Age integer [18, 99]
@attribute Colour {red, blue}
@attribute Class {positive, negative}
@inputs Age, Colour
@outputs Class
@data
"""


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "shop.dat"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_a_file_with_header(file):
    data = keel.read(file(HEADER + "18, red, positive\n<null>, blue, negative\n30, ?, negative\n"))
    assert data.name == "shop"
    assert data.nominal == ("Colour",)
    assert data.y.tolist() == [1, 0, 0]
    np.testing.assert_array_equal(data.X["Age"], [18, np.nan, 30])
    assert data.X["Colour"].iloc[:2].tolist() == ["red", "blue"]
    assert pd.isna(data.X["Colour"].iloc[2])


def test_a_file_without_header_tells_numbers_from_words(file):
    data = keel.read(file("1.5,red,positive\n-2e1,blue,negative\n"))
    assert data.nominal == ("x2",)
    assert data.X["x1"].tolist() == [1.5, -20.0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no data line"),
        ("1,positive\n1,2,negative\n", "line 2: 3 values, not 2"),
        ("1,positive\n2,maybe\n", "line 2: class 'maybe'"),
        ("1,positive\n2,positive\n", "one class only"),
        (HEADER + "18,red,positive\nold,blue,negative\n", "line 9, Age: 'old' is no number"),
        (HEADER + "18,red,positive\ninf,blue,negative\n", "no finite number"),
        (HEADER + "18,green,positive\n19,blue,negative\n", "'green' is not among the declared"),
        (HEADER.replace("integer [18, 99]", "date") + "1,red,positive\n", "not real, integer"),
    ],
)
def test_damaged_files_are_refused(file, text, said):
    with pytest.raises(RecbalError, match=said):
        keel.read(file(text))


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "shop.dat"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecbalError, match=r"shop\.dat cannot be read"):
        keel.read(path)


def test_an_unknown_set_is_refused():
    with pytest.raises(RecbalError, match="no KEEL set 'yeast99'"):
        keel.load("yeast99")


def test_twenty_installed_sets_are_wanted():
    sizes = keel.summary()
    wanted = sizes[(sizes.positives >= 50) & (sizes.ratio >= 5)]
    assert len(wanted) == 20
    assert wanted.loc["yeast3", ["rows", "features", "positives"]].tolist() == [1484, 8, 163]
    assert wanted.loc["yeast3", "source"] == wanted.loc["yeast-2_vs_4", "source"] == "yeast"
    assert wanted.loc["yeast3", "ratio"] == pytest.approx((1484 - 163) / 163)


def test_nominal_columns_are_found_and_numbers_are_finite():
    data = keel.load("car-good")
    assert len(data.nominal) == data.X.shape[1] == 6
    assert not pd.api.types.is_numeric_dtype(data.X.iloc[:, 0])
    assert np.isfinite(keel.load("yeast4").X.to_numpy()).all()
