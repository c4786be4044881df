"""Regions of the brain: label volumes with names, and tables of relevance over them."""

from xaitools.atlas.files import fetch_atlas, load_atlas
from xaitools.atlas.mni import mni_regions
from xaitools.atlas.names import read_names
from xaitools.atlas.regions import Atlas
from xaitools.atlas.tables import region_table, regions_touched

__all__ = [
    "Atlas",
    "fetch_atlas",
    "load_atlas",
    "mni_regions",
    "read_names",
    "region_table",
    "regions_touched",
]
