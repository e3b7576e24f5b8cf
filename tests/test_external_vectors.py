"""External embeddings from files: every format, and every mistake."""

from itertools import product

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save_file

from features.embeddings import read_embeddings, write_embeddings
from features.external_vectors import read_vectors
from pretrain.similarity import normalise
from run.errors import UserError


def write_vectors(path, ids, vectors, kind):
    """Write embeddings in the format `kind`; returns the path to pass."""
    if kind == "folder":
        write_embeddings(path, pl.Series("item_id", ids), vectors, {})
        return path
    target = path.with_suffix(
        {"lists": ".parquet", "arrays": ".parquet", "columns": ".parquet", "tensors": ".safetensors"}.get(kind, ".npy")
    )
    if kind in ("lists", "arrays"):
        cell = pl.List(pl.Float32) if kind == "lists" else pl.Array(pl.Float64, vectors.shape[1])
        pl.DataFrame({"item_id": ids, "e": pl.Series(vectors.tolist(), dtype=cell)}).write_parquet(target)
    elif kind == "columns":
        pl.DataFrame({"item_id": ids} | {f"d{n}": column for n, column in enumerate(vectors.T)}).write_parquet(target)
    elif kind == "tensors":
        save_file({"item_id": np.asarray(ids), "vectors": vectors}, target)
    else:
        np.save(target, vectors)
        ids_file = target.with_suffix(f".ids.{kind}")
        if kind == "txt":
            ids_file.write_text("".join(f"{one}\n" for one in ids))
        elif kind == "npy":
            np.save(ids_file, np.asarray(ids))
        elif kind in ("csv", "parquet"):
            frame = pl.DataFrame({"item_id": ids})
            frame.write_csv(ids_file) if kind == "csv" else frame.write_parquet(ids_file)
    return target


KINDS = ("txt", "npy", "csv", "parquet", "lists", "arrays", "columns", "folder")


@pytest.mark.parametrize(("kind", "text_ids"), [*product(KINDS, [False, True]), ("tensors", False)])  # tensors hold no text
def test_every_format_gives_each_item_its_own_row_and_missing_items_zeros(tmp_path, capsys, kind, text_ids):
    ids = [f"i{n:04d}" if text_ids else 100 + n for n in range(12)]
    vectors = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)  # an embeddings folder is read as unit rows
    shuffled = np.random.default_rng(1).permutation(10)  # the last two are missing
    path = write_vectors(tmp_path / "e", [ids[row] for row in shuffled], vectors[shuffled], kind)
    found = read_vectors(path, pl.Series("item_id", ids))
    np.testing.assert_allclose(found[:10], vectors[:10], rtol=1e-6)
    assert not found[10:].any()
    assert "2 of the shop's 12 items have no row and count as having no picture" in capsys.readouterr().err


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32])
def test_without_ids_row_n_is_item_n(tmp_path, dtype):
    vectors = np.arange(1, 13).reshape(4, 3).astype(dtype)
    np.save(tmp_path / "image_feat.npy", vectors)
    assert (read_vectors(tmp_path / "image_feat.npy", pl.Series("item_id", [9, 4, 7, 1])) == vectors).all()


def test_a_null_list_is_an_item_without_a_picture(tmp_path):
    pl.DataFrame({"item_id": [1, 2, 3], "e": [[1.0, 2.0], None, [3.0, 4.0]]}).write_parquet(tmp_path / "e.parquet")
    assert read_vectors(tmp_path / "e.parquet", pl.Series([3, 2, 1])).tolist() == [[3, 4], [0, 0], [1, 2]]


def npy(values, ids=None):
    def write(path):
        np.save(path / "e.npy", values, allow_pickle=True)
        if ids is not None:
            (path / "e.ids.txt").write_text("\n".join(ids))
        return path / "e.npy"

    return write


def parquet(**columns):
    def write(path):
        pl.DataFrame(columns).write_parquet(path / "e.parquet")
        return path / "e.parquet"

    return write


def other(name, content=b"x"):
    def write(path):
        (path / name).write_bytes(content)
        return path / name

    return write


def tensors(**content):
    def write(path):
        save_file(content, path / "e.safetensors")
        return path / "e.safetensors"

    return write


def spoiled(value):
    values = np.ones((4, 3))
    values[2, 1] = value
    return values


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (npy(np.ones((3, 3))), r"e\.npy: value '3 rows'; items\.parquet has 4 rows; .*e\.ids\.txt"),
        (npy(np.ones(4)), r"value 'float64 \(4,\)'; give numbers of shape \(N, D\)"),
        (npy(np.ones((4, 0))), r"value 'float64 \(4, 0\)'"),
        (npy(np.array([["a"]] * 4)), r"give numbers of shape"),
        (npy(np.array([[{}]] * 4, dtype=object)), "not readable as a NumPy array of numbers"),
        (npy(spoiled(np.nan)), r"row 2, column '1': value nan; item 7: give finite"),
        (npy(spoiled(np.inf)), r"row 2, column '1': value inf"),
        (npy(np.zeros((4, 3))), "all embeddings of the shop's items are zero"),
        (npy(np.ones((2, 3)), ["9"]), r"e\.ids\.txt: value '1 ids'; e\.npy has 2 rows"),
        (npy(np.ones((2, 3)), ["9", "9"]), r"row 0, column 'item_id': value 9; occurs more than once"),
        (npy(np.ones((2, 3)), ["90", "91"]), r"holds none of the shop's items; its ids are like 90, the shop's like 9"),
        (npy(np.ones((2, 3)), ["a", "b"]), r"column 'item_id': value .*String.*; the shop's ids are Int64"),
        (other("e.pkl"), r"in an unsupported format; give \.npy"),
        (other("e.npy"), "not readable as a NumPy array"),
        (other("e.parquet"), "not readable as parquet"),
        (other("e.safetensors"), "not readable as safetensors"),
        (tensors(a=np.ones((4, 2)), b=np.ones((4, 2))), r"value 'a \(4, 2\), b \(4, 2\)'; give one tensor"),
        (tensors(a=np.ones((4, 2)), item_id=np.ones(3, dtype=np.int64)), r"column 'item_id': value .*; give \(4,\) integers"),
        (parquet(id=[9], e=[[1.0]]), "column 'item_id': no such column; there are id, e"),
        (parquet(item_id=[9], e=["text"]), "give one column of lists, or columns of floats"),
        (parquet(item_id=[9], e=[[1.0]], f=[[1.0]]), "give one column of lists"),
        (parquet(item_id=[9], e=[["a"]]), "column 'e': value List.*; give lists of numbers"),
        (parquet(item_id=[9, 4, 7], e=[None, [1.0, 2.0], [1.0]]), r"row 2, column 'e': value '1 numbers'; row 1 has 2"),
        (parquet(item_id=[9, 4], e=[[1.0, 2.0], [1.0, None]]), r"row 1, column '1': value nan; item 4"),
        (parquet(item_id=[9, 4], d0=[1.0, 2.0], d1=[1.0, None]), r"row 1, column 'd1': value nan; item 4"),
        (parquet(item_id=[9, None], e=[[1.0], [2.0]]), r"row 1, column 'item_id': value None; every row needs an id"),
        (lambda path: path, r"vectors\.npy: no such file; an embeddings folder holds"),
    ],
)
def test_a_wrong_file_is_refused_with_place_value_and_fix(tmp_path, write, message):
    with pytest.raises(UserError, match=message):
        read_vectors(write(tmp_path), pl.Series("item_id", [9, 4, 7, 1]))


def test_two_files_of_ids_are_refused(tmp_path):
    path = npy(np.ones((1, 2)), ["9"])(tmp_path)
    np.save(tmp_path / "e.ids.npy", np.array([9]))
    with pytest.raises(UserError, match=r"two files of ids next to it, e\.ids\.txt and e\.ids\.npy"):
        read_vectors(path, pl.Series([9]))


EDGES = [1e20, 1e-25, 1e30, 1e-30, 1e-42, 1e200, 1e300, 1e-300, 1e-310]


@pytest.mark.parametrize("scale", EDGES)
@pytest.mark.parametrize("kind", ["txt", "arrays", "columns", "tensors", "folder"])
def test_vectors_of_any_length_keep_their_direction(tmp_path, scale, kind):
    vectors = np.random.default_rng(0).normal(size=(6, 4))
    vectors[::2] *= scale
    path = write_vectors(tmp_path / "e", list(range(6)), vectors, kind)
    if kind == "folder":  # written by another tool: ours holds float32
        read_embeddings(path, pl.Series("item_id", range(6)))
        np.save(path / "vectors.npy", vectors)
    found = normalise(read_vectors(path, pl.Series("item_id", range(6))))
    scaled = vectors / np.abs(vectors).max(1, keepdims=True)
    np.testing.assert_allclose(found, scaled / np.linalg.norm(scaled, axis=1, keepdims=True), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", [1e20, 1e-22, 1e-38, 3e37])
def test_float32_rows_beyond_a_float32_length_become_unit_rows_and_zeros_stay(scale):
    rows = (np.random.default_rng(0).normal(size=(5, 8)) * scale).astype(np.float32)
    rows[2] = 0
    found = normalise(rows)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), [1, 1, 0, 1, 1], rtol=1e-5)


def test_ordinary_rows_are_normalised_to_the_same_bits_as_by_division():
    rows = np.random.default_rng(0).normal(size=(1000, 16)).astype(np.float32) * np.logspace(-15, 15, 1000, dtype=np.float32)[:, None]
    assert (normalise(rows) == rows / np.linalg.norm(rows, axis=1, keepdims=True)).all()


BIG = 2**63
ID_FIX = r"ids must fit 64 bits with sign; write them as text"


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (pl.Series([1, BIG + 1], dtype=pl.UInt64), rf"row 1, column 'item_id': value {BIG + 1}; {ID_FIX}"),
        (pl.Series([1, 2**64 + 2], dtype=pl.Int128), rf"row 1, column 'item_id': value {2**64 + 2}; {ID_FIX}"),
        (pl.Series([1.0, 2.0]), r"column 'item_id': type Float64; ids are integers or text: cast the column"),
        (pl.Series(["1", "2"]).cast(pl.Decimal(10, 0)), r"column 'item_id': type Decimal.*; ids are integers or text"),
        (pl.Series([True, False]), r"column 'item_id': type Boolean; ids are integers or text"),
        (pl.Series(["1", str(BIG)]), rf"row 1, column 'item_id': value '{BIG}'; does not fit 64 bits"),
        (pl.Series([2, 2]), r"row 0, column 'item_id': value 2; occurs more than once"),
    ],
)
@pytest.mark.parametrize("kind", ["lists", "parquet", "folder"])
def test_ids_that_are_not_64_bit_integers_are_refused_by_file_row_and_value(tmp_path, ids, message, kind):
    vectors = np.eye(2, dtype=np.float32)
    path = write_vectors(tmp_path / "e", [1, 2], vectors, kind)
    ids = ids.alias("item_id")
    file = {"lists": path, "parquet": tmp_path / "e.ids.parquet", "folder": path / "items.parquet"}[kind]
    frame = pl.DataFrame({"item_id": ids})
    more = {"lists": pl.Series("e", vectors.tolist()), "folder": pl.Series("row", [0, 1])}
    (frame.with_columns(more[kind]) if kind in more else frame).write_parquet(file)
    with pytest.raises(UserError, match=rf"{file.name}: {message}"):
        read_vectors(path, pl.Series("item_id", [1, 2]))


@pytest.mark.parametrize("dtype", [pl.UInt8, pl.Int16, pl.UInt64, pl.Int128])
def test_other_integers_are_matched_exactly(tmp_path, dtype):
    pl.DataFrame({"item_id": pl.Series([2, 1], dtype=dtype), "e": [[2.0], [1.0]]}).write_parquet(tmp_path / "e.parquet")
    assert read_vectors(tmp_path / "e.parquet", pl.Series([1, 2])).tolist() == [[1], [2]]


def test_ids_at_the_limits_are_matched_exactly(tmp_path):
    ids = [-BIG, BIG - 1, BIG - 2, 2**53 + 1]
    path = write_vectors(tmp_path / "e", ids, np.eye(4), "csv")
    assert (read_vectors(path, pl.Series("item_id", ids)) == np.eye(4)).all()


@pytest.mark.parametrize(("rows", "message"), [([0, 2], "row 1, column 'row': value 2"), ([0, -1], "value -1"), ([0.0, 1.0], "value 0.0")])
def test_rows_outside_the_folders_vectors_are_refused(tmp_path, rows, message):
    write_vectors(tmp_path / "e", [1, 2], np.eye(2), "folder")
    pl.DataFrame({"item_id": [1, 2], "row": rows}).write_parquet(tmp_path / "e" / "items.parquet")
    with pytest.raises(UserError, match=message):
        read_embeddings(tmp_path / "e", pl.Series("item_id", [1, 2]))


@pytest.mark.parametrize("name", ["vec[1]", "vec *", "vec ?", "v\u00e9c {1,2}"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_path_is_read_literally(tmp_path, name, kind):
    """Next to each of them is a file that it would match as a pattern."""
    for neighbour, scale in (("vec1", -1), ("vec a", -1), (name, 1)):
        path = write_vectors(tmp_path / neighbour, [1, 2], scale * np.eye(2, dtype=np.float32), kind)
    assert (read_vectors(path, pl.Series("item_id", [1, 2])) == np.eye(2)).all()


def test_an_id_may_hold_a_unicode_line_break(tmp_path):
    ids = ["a\u2028b", "c\x0bd"]
    path = write_vectors(tmp_path / "e", ids, np.eye(2), "txt")
    assert (read_vectors(path, pl.Series("item_id", ids)) == np.eye(2)).all()
