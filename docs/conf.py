"""The documentation's site: `make docs`.

Sphinx with MyST, and not Jupyter Book 2, since that needs Node and fetches its theme from the network at each build.
"""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

project = "xaitools"
copyright = "xaitools contributors"
extensions = [
    "myst_parser",
    "sphinx_design",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "mathml",
    "docstrings",
    "cards",
    "names",
    "tutorials",
]
exclude_patterns = ["_ext"]

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
myst_links_external_new_tab = False

default_role = "literal"  # docstrings have names in single backticks
html_math_renderer = "mathml"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "exclude-members": "__init__, __new__"}
napoleon_google_docstring = False
napoleon_attr_annotations = False
napoleon_custom_sections = [("Attributes", "params_style")]
maximum_signature_line_length = 80
python_display_short_literal_types = True

html_theme = "furo"
html_title = "xaitools"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
