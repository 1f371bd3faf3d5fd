"""The built pages in a real browser, with the network cut."""

import shutil

import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import must
from playwright.sync_api import sync_playwright
from quiz import QUIZZES
from slides import sources
from test_book import TOC

pytestmark = [pytest.mark.browser, pytest.mark.book]

PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 900}
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
MATHS_IS_DONE = "() => window.MathJax?.startup?.promise?.then(() => true) ?? true"
# Parts of the text that stick out of the screen, not counting what scrolls in its own box.
STICKING_OUT = """() => [...document.querySelectorAll('article *')].filter(element => {
    if (element.getBoundingClientRect().right <= window.innerWidth + 1) return false;
    for (let box = element; box && box.tagName !== 'ARTICLE'; box = box.parentElement)
        if (getComputedStyle(box).overflowX !== 'visible') return false;
    return true;
}).map(element => element.outerHTML.slice(0, 120))"""


@pytest.fixture(scope="session")
def browser():
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    must(chromium, "Chromium is not installed (Debian: apt install chromium)")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture
def visit(browser, html):
    """Open a page offline; faults are collected in `page.faults`."""
    contexts = []

    def go(name, viewport=DESK, scheme="light", query=""):
        context = browser.new_context(viewport=viewport, color_scheme=scheme, offline=True)
        contexts.append(context)
        context.route("http*://**", lambda route: route.abort())
        page = context.new_page()
        page.faults = faults = []
        page.on("requestfailed", lambda request: faults.append(f"not loaded: {request.url}"))
        page.on("pageerror", lambda error: faults.append(f"script: {error}"))
        page.on("console", lambda m: m.type == "error" and faults.append(f"console: {m.text}"))
        page.goto(f"{(html / f'{name}.html').as_uri()}{query}")
        page.evaluate(MATHS_IS_DONE)
        return page

    yield go
    for context in contexts:
        context.close()


@pytest.mark.parametrize("name", [*TOC, "search", "genindex"])
def test_page_loads_without_a_fault(name, visit):
    page = visit(name)
    assert page.locator("h1").count() >= 1
    assert not page.faults


@pytest.mark.parametrize("name", TOC)
def test_mathematics_is_drawn(name, visit):
    page = visit(name)
    written = page.locator("article .math").count()
    drawn = page.locator("article mjx-container svg").count()
    assert drawn >= written
    assert page.locator("[data-mml-node=merror]").count() == 0


@pytest.mark.parametrize("name", TOC)
def test_pictures_are_drawn(name, visit):
    page = visit(name)
    images = page.locator("article img")
    for i in range(images.count()):
        assert images.nth(i).evaluate("image => image.naturalWidth") > 0
        assert images.nth(i).get_attribute("alt")


@pytest.mark.parametrize("name", TOC)
def test_page_fits_a_phone(name, visit):
    page = visit(name, viewport=PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert not page.evaluate(STICKING_OUT)


@pytest.mark.parametrize("word", ["imbalance", "重采样"])
def test_search_finds_a_word(word, visit):
    page = visit("search", query=f"?q={word}")
    page.wait_for_selector("#search-results li a", timeout=10_000)
    assert page.locator("#search-results li").count() >= 1
    assert not page.faults


@pytest.mark.parametrize(("scheme", "viewport"), [("light", DESK), ("dark", PHONE)])
@pytest.mark.parametrize("name", [*TOC, "search"])
def test_no_serious_fault_of_accessibility(name, scheme, viewport, visit):
    page = visit(name, viewport, scheme)
    violations = Axe().run(page).response["violations"]
    serious = [v for v in violations if v["impact"] in ("serious", "critical")]
    assert not [f"{v['id']}: {node['html'][:160]}" for v in serious for node in v["nodes"]]


# ---- slides ---------------------------------------------------------------------------------

LAPTOP = {"width": 1280, "height": 720}
TOO_HIGH = """() => [...document.querySelectorAll('section')]
    .filter(section => section.scrollHeight > window.innerHeight + 2)
    .map(section => section.querySelector('h1, h2').textContent)"""


@pytest.mark.parametrize("deck", [path.stem for path in sources()])
def test_slides_fit_the_screen_and_turn_by_keyboard(deck, visit):
    page = visit(f"_static/slides/{deck}", LAPTOP)
    assert not page.evaluate(TOO_HIGH)
    page.keyboard.press("ArrowRight")
    assert page.evaluate("location.hash") == "#2"
    page.keyboard.press("n")
    assert page.locator("aside").first.evaluate("note => getComputedStyle(note).display") == "block"
    assert not page.faults


@pytest.mark.parametrize(("scheme", "viewport"), [("light", LAPTOP), ("dark", PHONE)])
@pytest.mark.parametrize("deck", [path.stem for path in sources()])
def test_slides_are_accessible(deck, scheme, viewport, visit):
    page = visit(f"_static/slides/{deck}", viewport, scheme)
    violations = Axe().run(page).response["violations"]
    assert not [v["id"] for v in violations if v["impact"] in ("serious", "critical")]
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]


@pytest.mark.parametrize("part", [path.stem for path in QUIZZES.glob("*.yml")])
def test_an_answer_of_a_quiz_opens_by_keyboard(part, visit):
    page = visit(f"book/quiz_{part}")
    answer = page.locator("article details").first
    answer.locator("summary").focus()
    page.keyboard.press("Enter")
    assert answer.evaluate("answer => answer.open")
