"""Take the pictures of the report's page: ``python docs/pictures/photograph.py``. It runs the demo, and needs Chromium.

Needs the extra ``test`` (Playwright) and Pillow, which comes with semdedup.
"""

from __future__ import annotations

import io
import shutil
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from semdedup.demo import run_demo

SIZE = {"width": 1100, "height": 900}
COLOURS = 192
WITHOUT_FOLDER = """folder => {
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) walker.currentNode.data = walker.currentNode.data.replaceAll(folder, "");
}"""


def keep(name: str, taken: bytes) -> None:
    """A picture of few colours, which is small."""
    few = Image.open(io.BytesIO(taken)).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    few.save(Path(__file__).parent / name, optimize=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as tools:
        page_file = run_demo(f"{folder}/demo").run.report
        browser = tools.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE, color_scheme="light")
        page.goto(Path(str(page_file)).as_uri())
        page.wait_for_timeout(1000)
        page.evaluate(WITHOUT_FOLDER, f"{folder}/")
        keep("report.png", page.screenshot())
        page.evaluate("document.querySelector('#pairs').scrollIntoView()")
        page.wait_for_timeout(500)
        keep("report-pairs.png", page.screenshot())
        browser.close()


if __name__ == "__main__":
    main()
