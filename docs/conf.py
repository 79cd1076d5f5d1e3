"""Sphinx's configuration: `make docs` builds the site from the Markdown files and the docstrings.

The source directory is the repository, so that links between README.md and docs/ work here as they do on a code host.
"""

from __future__ import annotations

import re
from pathlib import Path

from kvworker import __version__

project = "kvworker"
author = "the kvworker authors"
project_copyright = author
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
root_doc = "docs/index"
include_patterns = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "docs/**"]
exclude_patterns = ["docs/_templates"]
source_suffix = {".rst": "restructuredtext", ".md": "markdown"}

# GitHub's anchors, so that a link to a heading works in both places, and is checked.
myst_heading_anchors = 4
# Other protocols are checked by nothing, since the build has no network.
myst_url_schemes = ("http", "https", "mailto")

# Every reference to an object of the API pages must lead somewhere. Signatures also name objects of other libraries and
# of our own inner modules, which are not on these pages.
_API_PAGES = Path(__file__).parent / "reference" / "api"
_SHOWN = {
    name
    for page in _API_PAGES.glob("*.rst")
    for name in re.findall(r"^\.\. auto\w+:: ([\w.]+)", page.read_text(), re.M)
}
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", rf"(?!(?:{'|'.join(map(re.escape, sorted(_SHOWN)))})(?:\.\w+)?$).*"),
    (r"py:.*", r".*\._\w+"),
]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = f"kvworker {release}"
templates_path = ["_templates"]
html_additional_pages = {"index": "start.html"}
html_copy_source = False
