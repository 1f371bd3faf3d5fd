"""Every package is pinned, and the compiled list covers what was asked for."""

import re

import pytest
from conftest import ROOT

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def names(file):
    """Normalised package names of a requirements file, one for each line that names one."""
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    found = [NAME.match(line) for line in lines]
    return [re.sub(r"[._-]+", "-", match[0]).lower() for match in found if match]


def test_everything_asked_for_is_compiled():
    assert set(names("requirements.in")) <= set(names("requirements.txt"))


@pytest.mark.parametrize("file", ["requirements.txt", "requirements-data.txt"])
def test_every_package_is_pinned(file):
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    packages = [line for line in lines if NAME.match(line)]
    assert packages
    assert [line for line in packages if not re.match(r"[^ ]+==[^ ]+", line)] == []


@pytest.mark.parametrize("file", ["requirements.in", "requirements.txt", "requirements-data.txt"])
def test_no_file_names_an_index(file):
    text = (ROOT / file).read_text(encoding="utf-8")
    assert not re.search(r"^--|://", text, re.MULTILINE)
