"""How the documentation is built: ``sphinx-build -W -b html docs docs/_build/html``. Nothing is fetched."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

import semdedup  # noqa: E402

project = "semdedup"
author = "the authors of semdedup"
copyright = "the authors of semdedup, Apache License 2.0"
version = release = semdedup.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "made_pages",
    "names_as_links",
]
intersphinx_mapping = {
    "python": ("https://docs.python.org/3", None),
    "numpy": ("https://numpy.org/doc/stable", None),
    "pandas": ("https://pandas.pydata.org/docs", None),
    "dask": ("https://docs.dask.org/en/stable", None),
    "distributed": ("https://distributed.dask.org/en/stable", None),
}
if os.environ.get("SEMDEDUP_DOCS_INTERSPHINX"):  # links into the pages of others, whose lists of names are fetched
    extensions.append("sphinx.ext.intersphinx")

exclude_patterns = ["_build", "made/*.md"]
templates_path = ["_templates"]
nitpicky = True
nitpick_ignore_regex = [
    # What is not ours is linked where intersphinx is on; and what is ours and not public is only named.
    (r"py:.*", rf"(?!semdedup\.(?:{'|'.join(semdedup.__all__)})$).*"),
]

smartquotes_action = "D"  # dashes alone
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

default_role = "py:obj"
autodoc_class_signature = "mixed"
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = [("Settings", "params_style"), "Cost"]
python_maximum_signature_line_length = 100
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"

html_theme = "pydata_sphinx_theme"
html_title = "semdedup"
html_static_path = ["_static"]
html_css_files = ["semdedup.css"]
html_show_sourcelink = False
html_copy_source = False
html_sidebars = {"**": ["contents"]}
html_theme_options = {
    "navbar_center": [],
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_version_warning_banner": False,
    "back_to_top_button": True,
    "pygments_light_style": "tango",
    "pygments_dark_style": "github-dark",
}
