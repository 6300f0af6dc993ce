"""The documentation site: `make docs` builds it into out/docs, without a network."""

import sys
from importlib.metadata import version as version_of
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

project = "ppvi"
author = "the authors of ppvi"
project_copyright = author
version = release = version_of("ppvi")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx_copybutton",
    "sphinx_design",
    "_site.executed",
    "_site.reference",
]
exclude_patterns = ["_site", "_built"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
templates_path = []
html_static_path = ["_static"]
html_css_files = ["ppvi.css"]

myst_enable_extensions = ["colon_fence", "deflist", "attrs_block"]
myst_heading_anchors = 4
myst_links_external_new_tab = False

nitpicky = True
highlight_language = "python"
pygments_style = "tango"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 90
python_use_unqualified_type_names = True
add_module_names = False
toc_object_entries_show_parents = "hide"

html_theme = "pydata_sphinx_theme"
html_title = f"ppvi {version}"
html_show_sourcelink = False
html_show_copyright = False
html_copy_source = False
html_theme_options = {
    "logo": {"text": "ppvi"},
    "navbar_align": "left",
    "navbar_persistent": [],
    "navbar_end": ["search-button", "theme-switcher"],
    "header_links_before_dropdown": 7,
    "show_toc_level": 2,
    "show_prev_next": True,
    "navigation_with_keys": False,
    "footer_start": ["sphinx-version"],
    "footer_end": ["theme-version"],
    "secondary_sidebar_items": ["page-toc"],
}
html_sidebars = {"index": []}
copybutton_exclude = ".linenos, .gp, .go"
copybutton_selector = "div:not(.output) > div.highlight > pre"
