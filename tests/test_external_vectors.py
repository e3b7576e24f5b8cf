"""Embeddings made elsewhere, from files: every format, and every way to be wrong."""

from itertools import product

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save_file

from features.embeddings import write_embeddings
from features.external_vectors import read_vectors
from run.errors import UserError


def write_vectors(path, ids, vectors, kind):
    """One set of embeddings in the format that `kind` names; the path to give."""
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
        beside = target.with_suffix(f".ids.{kind}")
        if kind == "txt":
            beside.write_text("".join(f"{one}\n" for one in ids))
        elif kind == "npy":
            np.save(beside, np.asarray(ids))
        elif kind in ("csv", "parquet"):
            frame = pl.DataFrame({"item_id": ids})
            frame.write_csv(beside) if kind == "csv" else frame.write_parquet(beside)
    return target


KINDS = ("txt", "npy", "csv", "parquet", "lists", "arrays", "columns", "folder")


@pytest.mark.parametrize(("kind", "text_ids"), [*product(KINDS, [False, True]), ("tensors", False)])  # tensors hold no text
def test_every_format_gives_each_item_its_own_row_and_zeros_to_those_it_lacks(tmp_path, capsys, kind, text_ids):
    ids = [f"i{n:04d}" if text_ids else 100 + n for n in range(12)]
    vectors = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)  # an embeddings folder is read as unit rows
    order = np.random.default_rng(1).permutation(10)  # the last two are missing
    path = write_vectors(tmp_path / "e", [ids[row] for row in order], vectors[order], kind)
    found = read_vectors(path, pl.Series("item_id", ids))
    np.testing.assert_allclose(found[:10], vectors[:10], rtol=1e-6)
    assert not found[10:].any()
    assert "2 of the shop's 12 items have no row and count as without a picture" in capsys.readouterr().err


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
        (npy(spoiled(1e300)), r"row 2, column '1': value 1e\+300; .*float32's size"),
        (npy(np.zeros((4, 3))), "all embeddings of the shop's items are zero"),
        (npy(np.ones((2, 3)), ["9"]), r"e\.ids\.txt: value '1 ids'; e\.npy has 2 rows"),
        (npy(np.ones((2, 3)), ["9", "9"]), r"row 0, column 'item_id': value 9; stands there more than once"),
        (npy(np.ones((2, 3)), ["90", "91"]), r"holds none of the shop's items: its ids are like 90, the shop's are like 9"),
        (npy(np.ones((2, 3)), ["a", "b"]), r"column 'item_id': value .*String.*; the shop's ids are Int64"),
        (other("e.pkl"), r"in a format that is not read here; give \.npy"),
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
        (parquet(item_id=[9, None], e=[[1.0], [2.0]]), r"row 1, column 'item_id': value None; give every row an id"),
        (lambda path: path, r"vectors\.npy: no such file; an embeddings folder holds"),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_place_value_and_mend(tmp_path, write, message):
    with pytest.raises(UserError, match=message):
        read_vectors(write(tmp_path), pl.Series("item_id", [9, 4, 7, 1]))


def test_two_files_of_ids_are_one_too_many(tmp_path):
    path = npy(np.ones((1, 2)), ["9"])(tmp_path)
    np.save(tmp_path / "e.ids.npy", np.array([9]))
    with pytest.raises(UserError, match=r"two files of ids beside it, e\.ids\.txt and e\.ids\.npy"):
        read_vectors(path, pl.Series([9]))
