"""What the lessons share: checks of exercises, multiple-choice questions, copies for students."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "checking": ["Verdict", "check", "judge"],
        "copies": ["lessons_dir", "student_copy"],
        "questions": ["question"],
    },
)
