"""Files of arrays that are damaged, are missing, or are something else: one clear error each."""

import numpy as np
import pytest

from unrolled.data.arrays import read_array, read_arrays
from unrolled.errors import DataError


def test_arrays_are_read(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", one=np.arange(3), two=["x"])
    found = read_arrays(tmp_path / "a.npz")
    assert found["one"].tolist() == [0, 1, 2]
    assert found["two"].tolist() == ["x"]
    np.save(tmp_path / "a.npy", np.arange(3))
    assert read_array(tmp_path / "a.npy").tolist() == [0, 1, 2]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_archive_with_any_damage_is_read_or_is_one_error(tmp_path, save):
    path = tmp_path / "a.npz"
    save(path, one=np.arange(300), two=["x"])
    whole = path.read_bytes()
    errors = 0
    for place in range(0, len(whole), 7):
        for damaged in (
            whole[:place],
            whole[:place] + bytes(b ^ 0x55 for b in whole[place : place + 5]) + whole[place + 5 :],
        ):
            path.write_bytes(damaged)
            try:
                read_arrays(path)
            except DataError:
                errors += 1
    assert errors > len(whole) / 7


def test_an_array_with_any_damage_is_read_or_is_one_error(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.arange(30))
    whole = path.read_bytes()
    errors = 0
    for place in range(128):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            read_array(path)
        except DataError:
            errors += 1
    assert errors > 30


def test_files_that_are_something_else(tmp_path):
    (tmp_path / "text").write_text("text")
    np.save(tmp_path / "array.npy", np.arange(3))
    np.savez(tmp_path / "archive.npz", np.arange(3))
    np.savez(tmp_path / "objects.npz", np.array([{}], object))
    np.save(tmp_path / "objects.npy", np.array([{}], object))
    for name, reason in [
        ("text", "not an archive of NumPy arrays"),
        ("array.npy", "not an archive of NumPy arrays"),
        ("objects.npz", "it holds Python objects; save numbers or strings"),
        ("missing", "No such file or directory$"),
        (".", "Is a directory$"),
    ]:
        with pytest.raises(DataError, match=reason):
            read_arrays(tmp_path / name)
    for name, reason in [
        ("text", "not a NumPy array"),
        ("archive.npz", "not a NumPy array"),
        ("objects.npy", "it holds Python objects"),
        ("missing", "No such file or directory$"),
    ]:
        with pytest.raises(DataError, match=reason):
            read_array(tmp_path / name)
