"""Take the picture of the report's page: ``python docs/pictures/photograph.py``. It runs the demo, and needs Chromium.

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
COLOURS = 128


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as tools:
        page_file = run_demo(f"{folder}/demo").run.report
        browser = tools.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE, color_scheme="light")
        page.goto(Path(str(page_file)).as_uri())
        page.wait_for_timeout(1000)
        taken = Image.open(io.BytesIO(page.screenshot()))
        browser.close()
    few = taken.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    few.save(Path(__file__).parent / "report.png", optimize=True)


if __name__ == "__main__":
    main()
