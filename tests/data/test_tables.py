import shutil
import unicodedata

import nibabel
import numpy as np
import pytest
from PIL import Image

from xaitools.data.brain import load_brains
from xaitools.data.ct import load_ct
from xaitools.data.fetal import load_fetal
from xaitools.data.tables import find_column, parse_table, plain, read_table, shown_values
from xaitools.errors import DataError, DataFileError


def test_tables_are_read_as_text_whatever_their_delimiter(tmp_path):
    for name, text in (("a.csv", "id;sex\n01; M \n02;F\n"), ("b.tsv", "\ufeffid\tsex\n01\tM\n02\tF\n")):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        assert read_table(path).to_dict("list") == {"id": ["01", "02"], "sex": ["M", "F"]}


@pytest.mark.parametrize(
    ("content", "error"),
    [(b"", DataFileError), (b"id,sex\n", DataError), (b"\xff\xfea\0,", DataFileError)]
    + [
        (content, DataFileError)
        for content in (b"PK\x03\x04, 1", b"a,b\n\x00\x01\n", b'a,b\n"1,2\n', b"\n ,\n")
    ],
)
def test_files_that_are_no_tables_are_refused(tmp_path, content, error):
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(error, match=r"a\.csv"):
        read_table(path)
    with pytest.raises(DataFileError, match=r"gone\.csv"):
        read_table(tmp_path / "gone.csv")


def test_columns_are_found_case_aside(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("MRID,Age,age\n1,2,3\n")
    table = read_table(path)
    assert find_column(table, "", ("participant_id", "mrid"), path) == "MRID"
    assert find_column(table, "age", (), path) == "age"
    assert find_column(table, "AGE", (), path) == "Age"
    assert find_column(table, "", ("session",), path) is None
    with pytest.raises(DataError, match=r"no column 'dx'; its columns are \['MRID', 'Age', 'age'\]"):
        find_column(table, "dx", (), path)


@pytest.mark.parametrize(
    "text",
    [
        "a,b\n1,x y\n2,\n",
        "a;b\n1; x y\n2\n",
        'a\tb\r\n1\t"x y"\r\n2\t\r\n',
        "\na, b ,\n1, x y ,\n\n2,,\n",
        'a b\n1   "x y"\n2\n',
    ],
)
def test_cells_are_divided_by_what_divides_the_header(text):
    table = parse_table(text, "table")
    assert table[["a", "b"]].to_dict("list") == {"a": ["1", "2"], "b": ["x y", ""]}


@pytest.mark.parametrize("text", ["a,b\n1,2,3\n2,3,4\n", "a,b\n1,2\n2,3,4\n", ""])
def test_rows_that_are_longer_than_the_header_are_refused_rather_than_shifted(text):
    with pytest.raises(
        DataFileError, match=r"table: cannot be read as a CSV or TSV table .*Correct or fetch"
    ):
        parse_table(text, "table")


def test_names_of_columns_are_compared_by_their_letters():
    assert plain("Pixel_Size (mm)") == plain("pixel size(mm)") == "pixelsizemm"


def test_many_different_values_may_be_names_and_are_counted_only():
    assert shown_values(["b", "a", "b"]) == "the values ['a', 'b']"
    assert shown_values([f"Doe{i}" for i in range(11)]) == "11 different values"


@pytest.mark.parametrize(
    "content",
    [
        "id,dx\nJos\u00e9,CN\n2,AD\n".encode(),
        "\ufeffid,dx\r\nJos\u00e9,CN\r\n2,AD\r\n".encode(),
        "id,dx\rJos\u00e9,CN\r2,AD\r".encode(),
        "id;dx\nJos\u00e9;CN\n2;AD\n".encode("latin-1"),
        "id\tdx\nJos\u00e9\tCN\n2\tAD\n".encode("utf-16"),
        "id,dx\nJos\u00e9,CN\n2,AD\n".encode("utf-16-le"),
        "id,dx\nJos\u00e9,CN\n2,AD\n".encode("utf-16-be"),
        "id,dx\nJose\u0301,CN\n2,AD\n".encode(),
        "id,dx,\nJos\u00e9,CN,\n2,AD,\n".encode(),
        "id,dx\nJos\u00e9,CN,\n2,AD,,\n".encode(),
        "sep=;\nid;dx\nJos\u00e9;CN\n2;AD\n".encode(),
        ' id , dx \n" Jos\u00e9 " , "CN"\n 2 ,AD\n\n,\n'.encode(),
    ],
)
def test_one_table_however_it_was_saved(tmp_path, content):
    (tmp_path / "a.csv").write_bytes(content)
    assert read_table(tmp_path / "a.csv").to_dict("list") == {"id": ["Jos\u00e9", "2"], "dx": ["CN", "AD"]}


def test_columns_of_one_name_are_told_apart_and_none_of_them_is_chosen():
    table = parse_table("a,dx,dx ,\n1,CN,AD,x\n", "table")
    assert table.to_dict("list") == {"a": ["1"], "dx": ["CN"], "dx (2)": ["AD"], "column 4": ["x"]}
    assert find_column(table, "A", (), "table") == "a"
    with pytest.raises(DataError, match=r"table: two columns are named 'dx'; .*Rename"):
        find_column(table, "dx", (), "table")


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["0,069135804", "1"], ["0.069135804", "1"]),
        (["24,3", "1,234"], ["24.3", "1.234"]),
        (["1,234", "5,678"], ["1,234", "5,678"]),
        (["a,5", "1,5"], ["a,5", "1,5"]),
        (["1.5", "2"], ["1.5", "2"]),
    ],
)
def test_decimal_commas_get_a_point_unless_they_may_be_thousands(cells, expected):
    assert parse_table("\n".join(["a;b", *(f"{cell};" for cell in cells)]), "table")["a"].tolist() == expected
    quoted = "\n".join(["a,b", *(f'"{cell}",x' for cell in cells)])
    assert parse_table(quoted, "table")["a"].tolist() == cells


NAMES = ["m\u00fcller", "b", "c", "d"]


def write_volumes(folder):
    for number, name in enumerate(NAMES):
        voxels = np.random.default_rng(number).uniform(-900, 900, (9, 10, 1 if folder.name == "ct" else 8))
        place = folder / "deep" / unicodedata.normalize("NFD", f"{name}.nii")
        place.parent.mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(voxels.astype(np.float32), np.eye(4)), place)
    return [["file", "subject", "label"]] + [
        [f"deep/{name}.nii", name, f"{n % 2}"] for n, name in enumerate(NAMES)
    ]


def write_pictures(folder):
    (folder / "training_set").mkdir(parents=True)
    rows = [["filename", "pixel size(mm)", "head circumference (mm)"]]
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 255, (12, 14)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "training_set" / f"{number}_HC.png")
        rows.append([f"training_set/{number}_HC.png", "0.5", f"{60 + number}.25"])
    return rows


LOADERS = {
    "ct": (write_volumes, lambda folder, path: load_ct(folder, table=path, size=8, progress=False), "t.csv"),
    "brains": (
        write_volumes,
        lambda folder, path: load_brains(folder, table=path, label_column="label", progress=False),
        "t.csv",
    ),
    "fetal": (
        write_pictures,
        lambda folder, path: load_fetal(folder, size=8, progress=False),
        "training_set_pixel_size_and_HC.csv",
    ),
}


@pytest.mark.parametrize("loader", LOADERS)
def test_all_loaders_read_one_table_however_it_was_saved(loader, tmp_path):
    write, load, name = LOADERS[loader]
    folder = tmp_path / loader
    rows = write(folder)

    def loaded(sign=",", ending="\n", encoding="utf-8", rows=rows, after=""):
        text = ending.join(sign.join(row) + after for row in rows) + ending
        (folder / name).write_bytes(text.encode(encoding))
        return load(folder, folder / name)

    expected = loaded()
    assert len(expected) == 4
    commas = [
        [cell.replace(".", ",") if cell[:1].isdecimal() and "/" not in cell else cell for cell in row]
        for row in rows
    ]
    backslashes = [[cell.replace("/", "\\") for cell in row] for row in rows]
    padded = [[f" {cell} " for cell in rows[0]], *rows[1:]]
    for found in (
        loaded(";"),
        loaded("\t", "\r\n"),
        loaded(encoding="utf-8-sig"),
        loaded(encoding="utf-16"),
        loaded(encoding="latin-1"),
        loaded(rows=backslashes),
        loaded(rows=padded),
        loaded(after=",", ending="\r\n"),
        loaded(rows=[rows[0], *([*row, ""] for row in rows[1:])]),
        loaded(";", rows=commas),
    ):
        assert found.fingerprint() == expected.fingerprint()
        assert (found.subjects, found.sources) == (expected.subjects, expected.sources)


@pytest.mark.parametrize("loader", LOADERS)
def test_what_macos_adds_to_a_folder_does_no_harm(loader, tmp_path):
    write, load, name = LOADERS[loader]
    folder = tmp_path / loader
    (folder / name).write_text("\n".join(",".join(row) for row in write(folder)))
    expected = load(folder, folder / name)
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in files:
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7")
        copy = folder / "__MACOSX" / path.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    (folder / ".DS_Store").write_bytes(b"\0")
    assert load(folder, folder / name).fingerprint() == expected.fingerprint()
