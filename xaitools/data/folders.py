"""What every loader says of a folder that is not there."""

from pathlib import Path

from xaitools.errors import DataFileError


def check_folder(folder: Path, remedy: str, what: str = "folder") -> None:
    """Raise unless `folder` is one.

    Parameters
    ----------
    folder : Path
    remedy : str
        What to give instead, the end of the message.
    what : str
        Names what is expected: ``"folder of masks"``.

    Raises
    ------
    DataFileError
        There is none, or there is a file.
    """
    if folder.is_dir():
        return
    found = f"a file; expected a {what}" if folder.exists() else f"no such {what}"
    raise DataFileError(f"{folder}: {found}; {remedy}")
