"""Draw a Mermaid file as SVG."""

import sys
from pathlib import Path

import mermaidx
from common import stop, write_atomically

# HTML labels would cut Chinese text and are not drawn inside an <img>.
CONFIG = {"htmlLabels": False, "flowchart": {"htmlLabels": False}}


def main(source: Path, target: Path) -> None:
    """Write the drawing of `source` to `target`."""
    try:
        drawing = mermaidx.render(source.read_text(encoding="utf-8"), config=CONFIG)
        write_atomically(target, drawing.svg())
    except Exception as error:
        stop(f"{source}: cannot be drawn: {str(error).splitlines()[0]}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
