"""Lay the sources of the book out in one folder, touching only what changed."""

import importlib.util
from pathlib import Path

import slides
import yaml
from common import BUILD, EXECUTED, FIGURES, ROOT, STAGE, chapters, stop
from tables import fill, say_claims


def mathjax() -> Path:
    """MathJax in one file, from the package that carries it."""
    package = importlib.util.find_spec("sphinx-mathjax-offline")
    return Path(package.origin).parent / "static" / "mathjax" / "tex-svg.js"


def figures() -> dict[Path, bytes]:
    """Figures that notebooks saved for the book's other pages."""
    files = {}
    for chapter in chapters():
        for path in sorted((FIGURES / chapter).glob("*")):
            target = Path("book/figures") / path.name
            if target in files:
                stop(f"notebooks/{chapter}.ipynb: another notebook saves a figure {path.name} too")
            files[target] = path.read_bytes()
    return files


def plan() -> dict[Path, bytes]:
    """What the stage holds: path within it, and content."""
    files = {Path("_toc.yml"): (ROOT / "_toc.yml").read_bytes()}
    for path in (ROOT / "book").glob("*.bib"):
        files[Path("book") / path.name] = path.read_bytes()
    for path in (ROOT / "book").glob("*.md"):
        page = fill(path.read_text(encoding="utf-8"), f"book/{path.name}")
        files[Path("book") / path.name] = page.encode()
    for chapter in chapters():
        path = Path("notebooks") / f"{chapter}.ipynb"
        files[path] = (EXECUTED / path.name).read_bytes()
    for path in (BUILD / "diagrams").glob("*.svg"):
        if (ROOT / "book" / "diagrams" / f"{path.stem}.mmd").exists():
            files[Path("book/diagrams") / path.name] = path.read_bytes()
    files |= figures()
    for path in slides.sources():
        page = slides.deck(path, say_claims, "../../")
        files[Path("assets/slides") / f"{path.stem}.html"] = page.encode()
    for path in (ROOT / "book" / "assets").glob("*"):
        files[Path("assets") / path.name] = path.read_bytes()
    files[Path("assets/mathjax") / mathjax().name] = mathjax().read_bytes()
    return files


def toc_files(toc: dict) -> list[str]:
    """Every file a table of contents names, the root first."""
    found = [toc["root"]]

    def walk(node) -> None:
        for entry in node.get("parts", []) + node.get("chapters", []) + node.get("sections", []):
            if "file" in entry:
                found.append(entry["file"])
            walk(entry)

    walk(toc)
    return found


def check_toc(files: dict[Path, bytes]) -> None:
    """Stop when the table of contents and the sources do not agree."""
    named = set(toc_files(yaml.safe_load(files[Path("_toc.yml")])))
    sources = {str(path.with_suffix("")) for path in files if path.suffix in (".md", ".ipynb")}
    for entry in sorted(named - sources):
        stop(f"_toc.yml: '{entry}' names no page of book/ and no notebook; write it or remove it")
    for entry in sorted(sources - named):
        stop(f"_toc.yml: '{entry}' is missing; name it there or remove the file")


def sync(files: dict[Path, bytes], folder: Path) -> list[Path]:
    """Make `folder` hold exactly `files`; return what was written or removed."""
    changed = []
    for path in [p for p in folder.rglob("*") if p.is_file()]:
        if path.relative_to(folder) not in files:
            path.unlink()
            changed.append(path)
    for name, content in files.items():
        path = folder / name
        if not path.exists() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            changed.append(path)
    return changed


def stage() -> None:
    """Bring the stage up to date."""
    files = plan()
    check_toc(files)
    sync(files, STAGE)
