"""Cached tables: built once, sealed, rebuilt when damaged, never half-written."""

import pandas as pd
import pytest

from recbal_utils.cache import cache_folder, cached_parquet
from recbal_utils.errors import RecbalError

FRAME = pd.DataFrame({"x": range(1000)})


@pytest.fixture
def built(tmp_path, monkeypatch):
    """A function that asks for the table, and the list of its builds."""
    monkeypatch.setenv("RECBAL_CACHE", str(tmp_path / "cache"))
    builds = []

    def build(path):
        builds.append(path)
        FRAME.to_parquet(path)

    return (lambda **by: cached_parquet("table", {"seed": 0, **by}, build)), builds


def test_built_once_and_found_again(built):
    get, builds = built
    assert get() == get()
    assert len(builds) == 1
    assert pd.read_parquet(get()).equals(FRAME)


def test_whatever_decides_the_content_names_another_file(built):
    get, builds = built
    assert get(seed=0) != get(seed=1)
    assert len(builds) == 2


@pytest.mark.parametrize("damage", [lambda b: b[:-100], lambda b: b[:500] + b"?" + b[501:]])
def test_a_damaged_file_is_noticed_and_built_again(built, damage, capsys):
    get, builds = built
    path = get()
    path.write_bytes(damage(path.read_bytes()))
    assert pd.read_parquet(get()).equals(FRAME)
    assert len(builds) == 2
    assert "damaged" in capsys.readouterr().out


@pytest.mark.parametrize("seal", [None, "", "{}", "[]"])
def test_a_table_without_a_good_seal_is_built_again(built, seal):
    get, builds = built
    path = get().with_suffix(".json")
    path.unlink() if seal is None else path.write_text(seal)
    assert pd.read_parquet(get()).equals(FRAME)
    assert len(builds) == 2


def test_an_interrupted_build_leaves_nothing(built):
    get, _ = built

    def stop(path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_parquet("table", {"seed": 0}, stop)
    assert list(cache_folder().iterdir()) == []
    assert pd.read_parquet(get()).equals(FRAME)


def test_a_failed_rebuild_keeps_the_last_good_table(built):
    get, _ = built
    path = get()
    good = path.read_bytes()
    path.with_suffix(".json").unlink()

    def fail(path):
        raise OSError(28, "No space left on device")

    with pytest.raises(RecbalError, match=r"No space left on device.*make room"):
        cached_parquet("table", {"seed": 0}, fail)
    assert path.read_bytes() == good


def test_a_folder_that_cannot_be_made_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RECBAL_CACHE", str(tmp_path / "file"))
    with pytest.raises(RecbalError, match=r"cannot make the cache folder .*file"):
        cache_folder()
