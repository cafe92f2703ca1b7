"""What the tests of the page share: a page that is open in a browser, and tables of scores to show."""

import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

HOSTILE = "<script>document.title='hacked'</script>"


def scores_of(folder: Path, tables: list[list[tuple[str, str, float]]]) -> Path:
    """Tables of scores of another program: (id, max_id, score) of the rows of each cluster."""
    folder.mkdir(parents=True)
    for cluster, rows in enumerate(tables):
        ids, others, scores = zip(*rows, strict=True)
        table = pa.table({"id": ids, "max_id": others, "cosine_sim_score": pa.array(scores, pa.float32())})
        pq.write_table(table, folder / f"cluster_{cluster}.parquet", row_group_size=3)
    return folder


class Seen:
    """A page that is open, and everything that it said or asked for."""

    def __init__(self, browser: Any, path: str, width: int = 1280, scheme: str = "light") -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda dialog: self.said.append(dialog.message))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(Path(path).as_uri())

    def text(self, selector: str) -> str:
        return str(self.page.inner_text(selector))

    def wait_until(self, expression: str) -> None:
        """Wait until something is true. The page's own policy forbids what `wait_for_function` does."""
        deadline = time.monotonic() + 30
        while not self.page.evaluate(expression):
            assert time.monotonic() < deadline, expression
            self.page.wait_for_timeout(50)

    def quiet(self) -> bool:
        return self.said == [] and [url for url in self.asked if not url.startswith("data:")] == [self.page.url]
