"""Malformed tables, for all loaders that read one."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from tests.hostile.case import Case

PLACES = {
    "ct_table": "labels.csv",
    "brains_flat": "participants.csv",
    "brains_bids": "participants.tsv",
    "fetal": "training_set_pixel_size_and_HC.csv",
    "atlas": "a.tsv",
}
PASSWD = b"../../../../../../etc/passwd"
LABEL = "<a><label><index>1</index><name>{}</name></label></a>"
LAUGHS = "".join(f'<!ENTITY l{n + 1} "{f"&l{n};" * 10}">' for n in range(9))


def content(data: bytes | str) -> Callable[[Path], object]:
    """A file of these bytes."""
    return lambda path: path.write_bytes(data.encode() if isinstance(data, str) else data)


def changed(change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    """A file made of the one that is there."""
    return lambda path: path.write_bytes(change(path.read_bytes()))


def sparse(path: Path) -> None:
    """A file of 5 GB that takes no room on the disk."""
    with path.open("r+b") as file:
        file.truncate(5 * 10**9)


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (content(""), "."),
    "blanks": (content(" \n\n \t\n"), "."),
    "header only": (changed(lambda data: data.split(b"\n")[0]), "."),
    "half a header": (changed(lambda data: data[:5]), "."),
    "NUL bytes": (changed(lambda data: data.replace(b"\n", b"\0\n")), "."),
    "binary": (content(np.random.default_rng(0).bytes(3000)), "."),
    "a zip file": (content(b"PK\3\4" + bytes(400)), "."),
    "a million columns": (content("a," * 10**6 + "\n" + "1," * 10**6), "."),
    "a million columns of one name": (content("a;" * 10**6 + "b\n"), "."),
    "thousands of columns of one name": (changed(lambda data: data.split(b"\n")[0] + b",a" * 3000 + b"\n"), "."),
    "a quotation mark": (changed(lambda data: data + b'"'), "."),
    "a cell of 10 MB": (changed(lambda data: data + b"a" * 10**7), "."),
    "a cell of 10 MB in quotation marks": (changed(lambda data: data + b'"' + b"a" * 10**7 + b'"'), "."),
    "5 GB": (sparse, "."),
    "one cell too many": (changed(lambda data: data + b"a,b\tc,d\te,f\tg,h\n"), "?"),
    "only separators": (content(",\t;" * 1000 + "\n" + ",\t;" * 1000), "."),
    "a separator of its own, unsaid": (content("sep=\n"), "."),
    "UTF-16, half of a letter": (content("a,b\n1,2\n".encode("utf-16")[:-1]), "."),
    "UTF-32": (changed(lambda data: data.decode().encode("utf-32")), "."),
    "thousands of rows": (changed(lambda data: data + (data.split(b"\n")[1] + b"\n") * 3000), "."),
    "numbers without end": (changed(lambda data: data.replace(b"1", b"1" * 999)), "?"),
    "numbers of other alphabets": (changed(lambda data: data.replace(b"1", "١".encode())), "?"),
    "a name of 300 letters": (changed(lambda data: data.replace(b"a", b"a" * 300)), "."),
    "paths out of the folder": (changed(lambda data: data.replace(b"a.dcm", PASSWD).replace(b"001_HC", PASSWD)), "?"),
    "a device": (changed(lambda data: data.replace(b"a.dcm", b"/dev/zero")), "?"),
}  # fmt: skip
XML = {
    "a billion laughs": f'<!DOCTYPE a [<!ENTITY l0 "ha">{LAUGHS}]>' + LABEL.format("&l9;"),
    "a file of another": '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>' + LABEL.format("&x;"),
    "many levels": "<a>" * 10**5,
    "a label without an index": "<a><label><name>a</name></label></a>",
    "an index among others": '<a><label index="1">a</label><label>b</label></a>',
    "an index of 5000 digits": f"<a><label><index>{'1' * 5000}</index><name>a</name></label></a>",
    "an index of text": "<a><label><index>one</index><name>a</name></label></a>",
    "empty XML": "<a/>",
    "no XML": "<",
}  # fmt: skip
LINES = {
    "an index of 5000 digits": "1" * 5000 + " one\n",
    "an index of --1": "index,name\n--1,a\n-2,b\n",
    "an index of 19 digits": f"{'9' * 19} one\n",
    "backtracking": "1" + " " * 50000 + "\n",
}


def cases() -> Iterator[Case]:
    """Each table in the folder of each loader, and other forms of names for those of an atlas."""
    for name, (damage, says) in FILES.items():
        for loader, file in PLACES.items():
            harmless = "?" if loader == "atlas" else says
            yield Case(loader, name, lambda folder, file=file, damage=damage: damage(folder / file), harmless)
    for name, text in XML.items():
        yield Case("atlas_xml", name, lambda folder, text=text: (folder / "a.xml").write_text(text), ".")
    many = "1 " + " 1" * 20000 + " x\n"
    yield Case("atlas_lines", "much backtracking", lambda folder: (folder / "a.txt").write_text(many))
    for name, text in LINES.items():
        yield Case("atlas_lines", name, lambda folder, text=text: (folder / "a.txt").write_text(text), ".")
