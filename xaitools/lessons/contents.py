"""Which lessons there are, and where what belongs to one is found."""

from importlib import import_module

from xaitools.errors import ParameterError

LESSONS = (
    "why",
    "gradient",
    "paths_and_baselines",
    "backprop_rules",
    "class_activation_maps",
    "perturbation",
    "judging",
    "sanity",
)
"""In their order: lesson 2 is the notebook ``2_gradient.ipynb`` and the module ``xaitools.lessons.gradient``."""


def load_lesson(key: str) -> None:
    """Import the module of the lesson that a key such as "2.1" or "2.a" belongs to: its checks register themselves.

    Raises
    ------
    ParameterError
        If the key names no lesson.
    """
    number = key.partition(".")[0]
    if number not in map(str, range(1, len(LESSONS) + 1)):
        raise ParameterError(
            f'{key!r} names no lesson; expected its number, a point and the exercise, such as "2.1" or "2.a".'
        )
    import_module(f"xaitools.lessons.{LESSONS[int(number) - 1]}")
