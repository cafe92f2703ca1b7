"""How progress is shown: bars on a terminal, plain lines elsewhere, one output that changes in a notebook, or not."""

from __future__ import annotations

import contextlib
import html
import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task
from rich.text import Text

from semdedup.compute.activity import Activity
from semdedup.compute.pace import time_words

SECONDS_BETWEEN_LINES = 10.0
"""Where there is no terminal, nobody waits longer for a line."""
SECONDS_BETWEEN_UPDATES = 0.5
"""How often the output of a notebook is changed."""
LINES_SHOWN = 3
"""The last lines, which a notebook shows beneath the bar; those before are folded away."""
MOST_LINES = 500
"""Lines that a notebook keeps."""


class Display:
    """Where progress goes. This one shows nothing."""

    def say(self, line: str) -> None:
        """Show one line."""

    def part(self, words: str) -> None:
        """Show which part of several has begun."""
        self.say(words)

    def begin(self, activity: Activity) -> None:
        """Show something that has begun. What had begun before, and has not ended, waits for it."""

    def advance(self, activity: Activity) -> None:
        """Show that it went on."""

    def end(self, activity: Activity) -> None:
        """Show that it is over."""

    def tick(self, activity: Activity | None, seconds: float) -> None:
        """Called every second: what is being done, and for how long there has been work."""

    def close(self, words: str) -> None:
        """All is over: in a few words, how."""


class Lines(Display):
    """Plain lines, in a pipe or a log: when something ends, and every `SECONDS_BETWEEN_LINES` while it does not."""

    def __init__(self, console: Console) -> None:
        self._console, self._last = console, time.monotonic()

    def say(self, line: str) -> None:
        """Print one line."""
        self._last = time.monotonic()
        self._console.print(line, markup=False)

    def begin(self, activity: Activity) -> None:
        """Say what is announced."""
        if activity.is_announced:
            self.say(activity.name)

    def end(self, activity: Activity) -> None:
        """Say how far a step got."""
        if activity.unit:
            self.say(activity.words())

    def tick(self, activity: Activity | None, seconds: float) -> None:
        """Say that it goes on, where nothing was said for a while."""
        if time.monotonic() - self._last >= SECONDS_BETWEEN_LINES:
            self.say(f"at work, {time_words(seconds)}" if activity is None else activity.words())


class _Column(ProgressColumn):
    """The words of an activity: counts, or times."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def render(self, task: Task) -> Text:
        """Its words as they are now."""
        activity: Activity = task.fields["activity"]
        words = activity.name if self._name == "name" else getattr(activity, self._name)()
        return Text(f"{words:<16}" if self._name == "name" else words)


class Bars(Display):
    """Bars on a terminal. That of a step stays when it is over; one of something without units goes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._begun: list[Activity] = []
        self._bar: Progress | None = None

    def say(self, line: str) -> None:
        """Print one line, above the bar."""
        self._console.print(line, markup=False)

    def begin(self, activity: Activity) -> None:
        """Show its bar in place of that of what waits for it."""
        self._hide()
        self._begun.append(activity)
        self._show(activity)

    def advance(self, activity: Activity) -> None:
        """Move its bar."""
        if self._bar is not None and self._begun[-1] is activity:
            self._bar.update(self._bar.task_ids[0], completed=activity.done)

    def end(self, activity: Activity) -> None:
        """Leave its bar as it is, and show that of what waited for it again."""
        if activity not in self._begun:
            return
        is_shown = self._begun[-1] is activity
        self._begun.remove(activity)
        if is_shown:
            self._hide(stays=bool(activity.unit))
            if self._begun:
                self._show(self._begun[-1])

    def close(self, words: str) -> None:
        """Give the terminal back, whatever has not ended."""
        self._begun.clear()
        self._hide()

    def _show(self, activity: Activity) -> None:
        columns = (_Column("name"), BarColumn(bar_width=24), _Column("counts"), _Column("times"))
        self._bar = Progress(*columns, console=self._console, refresh_per_second=4)
        self._bar.add_task(activity.name, total=activity.total, completed=activity.done, activity=activity)
        self._bar.start()

    def _hide(self, stays: bool = False) -> None:
        if self._bar is not None:
            self._bar.live.transient = not stays
            self._bar.stop()
            self._bar = None


class _Output:
    """What a notebook shows, as HTML and as text."""

    def __init__(self, page: str, text: str) -> None:
        self._page, self._text = page, text

    def __repr__(self) -> str:
        return self._text

    def _repr_html_(self) -> str:
        return self._page


class Notebook(Display):
    """One output of a notebook that changes: a bar, what is being done, and the last lines."""

    def __init__(self) -> None:
        self._begun: list[Activity] = []
        self._said: list[str] = []
        self._part, self._closed, self._last = "", "", 0.0
        self._handle: Any = None

    def say(self, line: str) -> None:
        """Show one line beneath the bar."""
        self._said = [*self._said[1 - MOST_LINES :], line]
        self._update(at_once=True)

    def part(self, words: str) -> None:
        """Show it above the bar."""
        self._part = words
        self.say(words)

    def begin(self, activity: Activity) -> None:
        """Show its bar."""
        self._begun.append(activity)
        self._closed = ""
        self._update(at_once=activity.is_announced)

    def advance(self, activity: Activity) -> None:
        """Move its bar."""
        self._update()

    def end(self, activity: Activity) -> None:
        """Keep a line of a step."""
        if activity in self._begun:
            self._begun.remove(activity)
        if activity.unit:
            self.say(activity.words())

    def tick(self, activity: Activity | None, seconds: float) -> None:
        """Show how long it has taken."""
        self._update()

    def close(self, words: str) -> None:
        """Show how it ended, in place of the bar."""
        self._begun.clear()
        self._part, self._closed = "", words
        self._update(at_once=True)

    def _update(self, at_once: bool = False) -> None:
        now = time.monotonic()
        if not at_once and now - self._last < SECONDS_BETWEEN_UPDATES:
            return
        self._last = now
        shown = _Output(*page_of(self._begun[-1] if self._begun else None, self._said, self._closed or self._part))
        if self._handle is None:
            from IPython.display import display

            self._handle = display(shown, display_id=True)
        else:
            self._handle.update(shown)


def page_of(activity: Activity | None, said: list[str], title: str) -> tuple[str, str]:
    """What a notebook shows of progress: HTML that needs no script, and the same as text."""
    now = "" if activity is None else activity.words()
    before, last = said[:-LINES_SHOWN], said[-LINES_SHOWN:]
    parts = [f"<div><b>{html.escape(title)}</b></div>"] if title else []
    if activity is not None:
        value = "" if activity.total is None else f' value="{activity.done}" max="{max(1, activity.total)}"'
        parts.append(f'<progress{value} style="width:20em;vertical-align:middle"></progress> ')
    parts.append(html.escape(now))
    if last:
        parts.append(f'<div style="opacity:.75;font-size:90%">{"<br>".join(map(html.escape, last))}</div>')
    if before:
        lines = "<br>".join(map(html.escape, before))
        parts.append(
            f'<details style="opacity:.75;font-size:90%"><summary>{len(before)} lines before</summary>{lines}</details>'
        )
    return f'<div class="semdedup-progress">{"".join(parts)}</div>', "\n".join(filter(None, [*said, title, now]))


def display_of(console: Console) -> Display:
    """How progress is shown where this process runs."""
    if console.is_jupyter:
        with contextlib.suppress(ImportError):
            import IPython.display  # noqa: F401

            return Notebook()
    is_terminal = console.is_terminal and not console.is_dumb_terminal and sys.stderr.isatty()
    return Bars(console) if is_terminal else Lines(console)
