"""Sphinx's configuration: `make docs` builds the site from the Markdown files and the docstrings.

The source directory is the repository, so that links between README.md and docs/ work here as they do on a code host.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

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


def find_source_module(_app: Sphinx, module: str, name: str) -> str | None:
    """Name the module of an object's class, so that the object's source page leads back to that class.

    ``KeyValueStore.pipeline`` is a function of another module. Without this, that module's source page would look for
    all its objects beside ``KeyValueStore``.
    """
    owner = getattr(sys.modules.get(module), name.partition(".")[0], None)
    return getattr(owner, "__module__", None)


def check_anchors(app: Sphinx, error: Exception | None) -> None:
    """Check the links with anchors between all pages of the site, including generated ones.

    Raises:
        ExtensionError: A page or an anchor is missing.
    """
    if error or app.builder.format != "html":
        return
    pages = {page: page.read_text(encoding="utf-8") for page in Path(app.outdir).resolve().rglob("*.html")}
    anchors = {page: set(re.findall(r'\bid="([^"]+)"', text)) for page, text in pages.items()}
    broken = [
        f"{page.name}: {target}#{anchor}"
        for page, text in pages.items()
        for target, anchor in re.findall(r'\bhref="([^"#:]*)#([^"]+)"', text)
        if anchor not in anchors.get((page.parent / target).resolve() if target else page, ())
    ]
    if broken:
        hint = f"if an older build left these pages, delete {app.outdir}"
        raise ExtensionError(f"broken links in the site ({hint}): {'; '.join(broken)}")


def setup(app: Sphinx) -> None:
    """Connect the functions above to the build."""
    app.connect("viewcode-follow-imported", find_source_module)
    app.connect("build-finished", check_anchors)
