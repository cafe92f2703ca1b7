"""Names in pages are links: ``semdedup.load`` to its reference, ``semdedup dedup`` to that of the command.

So pages are plain Markdown, which reads as well where nothing is built. A reference to a public name by the module that
it lives in, as annotations have it, goes to the public name.
"""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.transforms import SphinxTransform
from sphinx.util.nodes import make_refnode

import semdedup
from semdedup import cli

COMMAND = "semdedup-command"
"""The type of a reference to the page of a command."""


def public_name(text: str) -> str:
    """The public name that code is, or calls; empty where it is none, or could be the word for something else."""
    name = re.sub(r"\(.*\)$", "", text, flags=re.DOTALL)
    bare = name.removeprefix("semdedup.")
    is_plain_word = bare == name and bare.islower() and "_" not in bare
    return bare if bare in semdedup.__all__ and not is_plain_word else ""


class NamesAsLinks(SphinxTransform):
    """Make a link of each name in the running text of a page."""

    default_priority = 450

    def apply(self, **kwargs: Any) -> None:
        """Look at what is set as code, but for headings, links, and the reference itself."""
        if self.env.docname.startswith("made/"):
            return
        for code in list(self.document.findall(nodes.literal)):
            if any(isinstance(above, nodes.title | nodes.reference | pending_xref) for above in _above(code)):
                continue
            text = code.astext()
            command = re.fullmatch(r"semdedup ([a-z]+)(?: .*)?", text)
            if name := public_name(text):
                self._link(code, {"refdomain": "py", "reftype": "obj", "reftarget": f"semdedup.{name}"})
            elif command and command[1] in cli.main.commands:
                self._link(code, {"refdomain": "", "reftype": COMMAND, "reftarget": f"made/commands/{command[1]}"})

    def _link(self, code: nodes.literal, target: dict[str, Any]) -> None:
        link = pending_xref("", refdoc=self.env.docname, refwarn=True, refexplicit=False, **target)
        code.replace_self(link)
        link += code


def _above(node: nodes.Node) -> Any:
    while node.parent is not None:
        node = node.parent
        yield node


def find_public(app: Any, env: Any, node: Any, contnode: Any) -> Any:
    """A reference that led nowhere: to a command, or to the public name that it is by its last part."""
    if node.get("reftype") == COMMAND:
        return make_refnode(app.builder, node["refdoc"], node["reftarget"], "", contnode)
    target = node.get("reftarget", "")
    name = target.rpartition(".")[2]
    if node.get("refdomain") != "py" or name not in semdedup.__all__ or target == f"semdedup.{name}":
        return None
    if "." in target and not target.startswith("semdedup."):
        return None
    docname = node.get("refdoc", env.docname)
    return env.get_domain("py").resolve_xref(env, docname, app.builder, "obj", f"semdedup.{name}", node, contnode)


def setup(app: Any) -> dict[str, bool]:
    """Add both."""
    app.add_transform(NamesAsLinks)
    app.connect("missing-reference", find_public)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
