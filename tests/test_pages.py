"""The prose pages in their sources: marks that must name something real."""

import re

import pytest
import tables
from conftest import NOTEBOOKS, ROOT, read_notebook

PAGES = sorted((ROOT / "book").glob("*.md"))
CLAIM = re.compile(r"""\.claim\(\s*["']([a-z0-9-]+)["']""")


def claimed_ids() -> set[str]:
    """Ids of all claims that the notebooks' code makes."""
    code = [
        cell["source"]
        for path in NOTEBOOKS
        for cell in read_notebook(path)["cells"]
        if cell["cell_type"] == "code"
    ]
    return set(CLAIM.findall("\n".join(code)))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_pages_say_only_claims_that_are_made(page):
    said = {match["id"] for match in tables.CLAIMED.finditer(page.read_text(encoding="utf-8"))}
    assert said <= claimed_ids()
    assert "{claimed}" not in tables.CLAIMED.sub("", page.read_text(encoding="utf-8"))
