"""The networks of the matrix: what people bring, each as small as it can be and with weights that mean something."""

from tests.matrix import libraries, wrapped, written  # noqa: F401
from tests.matrix.case import ZOO, Case

__all__ = ["ZOO", "Case"]
