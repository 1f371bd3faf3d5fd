"""The glossary keeps step with the words that chapters introduce."""

import re

import pytest
from conftest import CHAPTERS, NOTEBOOKS, ROOT, read_notebook

CONCEPTS = "concepts"
LINE = re.compile(
    r"^New words, in the \[glossary\]\((?:\.\./book/)?glossary\.md\) "
    r"in English and Chinese: (.+)\.$",
    re.MULTILINE,
)
FENCED = re.compile(r"^(`{3,}|:{3,}).*?^\1\s*$", re.M | re.S)
BOLD = re.compile(r"\*\*([^*\n]+)\*\*")
CHINESE = re.compile(r"[\u4e00-\u9fff]")
# Bold in a chapter marks a new word, or one of these: lines of a figure, of a table, of an order.
MARKED = {
    "ECE, equal width", "ECE, equal mass", "Dropping", "Probability", "Random", "given", "start",
    "Class weights", "Logit-adjusted", "Temperature", "Isotonic", "Platt on probabilities",
    "Copies", "copies", "Gaussian noise", "detector", "generator", "discriminator", "saturates",
    "All", "Repeats", "First-time", "hide", "all choices of one group", "for any $m$", "KL + ln Q",
    "Slope", "score", "Weighted", "Stratified", "leak", "synthetic", "ratio",
}  # fmt: skip


def glossary() -> dict[str, tuple[str, str]]:
    """English term to Chinese term and meaning."""
    text = (ROOT / "book" / "glossary.md").read_text(encoding="utf-8")
    body = text.split(":sorted:\n\n", 1)[1].rsplit("```", 1)[0]
    entries = [block.split("\n") for block in body.strip().split("\n\n")]
    return {entry[0]: (entry[1], "\n".join(entry[2:])) for entry in entries}


def text_of(name: str) -> str:
    """The Markdown of a chapter or of the page of concepts."""
    if name == CONCEPTS:
        return (ROOT / "book" / "concepts.md").read_text(encoding="utf-8")
    cells = read_notebook(NOTEBOOKS[CHAPTERS.index(name)])["cells"]
    return "\n\n".join(cell["source"] for cell in cells if cell["cell_type"] == "markdown")


def new_words(text: str) -> list[str]:
    """The terms of the line that says which words are new."""
    found = LINE.search(text)
    return found.group(1).split("; ") if found else []


def bold_words(text: str) -> list[str]:
    """Bold phrases of a chapter's experiments that are neither a sentence nor computed."""
    body = text.split("\n## The question\n", 1)[1].split("\n## What we learned\n", 1)[0]
    found = BOLD.findall(FENCED.sub("", body))
    return [word for word in found if len(word.split()) <= 4 and not word.endswith((".", ":"))]


@pytest.mark.parametrize("name", [CONCEPTS, *CHAPTERS])
def test_new_words_are_in_the_glossary(name):
    words = new_words(text_of(name))
    assert words, f"{name}: add the line of new words to the opening, as in chapter 6"
    assert set(words) <= set(glossary())


@pytest.mark.parametrize("term", glossary())
def test_each_term_is_introduced_once_and_stands_in_both_languages(term):
    chinese, meaning = glossary()[term]
    assert CHINESE.search(chinese), "the second line is the term in Chinese"
    assert re.match(r"    \S.+\.", meaning), "then the meaning, in sentences, indented by four"
    places = [name for name in [CONCEPTS, *CHAPTERS] if term in new_words(text_of(name))]
    assert len(places) == 1, f"new in {places or 'no chapter'}"


def test_terms_are_in_order():
    terms = [term.lower() for term in glossary()]
    assert terms == sorted(terms)


def known(word: str) -> bool:
    """Whether the glossary has a word or a short form, in whatever number and case."""
    listed = " ".join([*glossary(), *(meaning for _, meaning in glossary().values())]).lower()
    return word.lower().removesuffix("s") in listed


@pytest.mark.parametrize("name", CHAPTERS)
def test_what_a_chapter_sets_in_bold_is_explained(name):
    unknown = [w for w in bold_words(text_of(name)) if w not in MARKED and not known(w)]
    assert not unknown, "a bold word is a new one: explain it in the glossary, or use *italics*"


@pytest.mark.parametrize("name", CHAPTERS)
def test_short_forms_are_explained(name):
    found = re.findall(r"\(([A-Z]{2,5})\)", FENCED.sub("", text_of(name)))
    assert not [word for word in found if not known(f"Short: {word}") and not known(word)]


def test_the_rules_can_fail():
    text = (
        "New words, in the [glossary](../book/glossary.md) in English and Chinese: a; b, c.\n\n"
        "## The question\n\nA **zebra term**, **a sentence.**\n\n## What we learned\n\n**no**"
    )
    assert new_words(text) == ["a", "b, c"]
    assert bold_words(text) == ["zebra term"]
    assert not known("zebra term")
    assert known("Accidental hits")
