"""Columns of words: numbers of labels that models embed, or columns of 0 and 1."""

from __future__ import annotations

import re

import numpy as np
import pytest

from ragged.data import EncoderDecoderDataModule, Normalization, StandardScaler, Tables, Windows
from ragged.errors import DataError, OptionError

pandas = pytest.importorskip("pandas")
pytest.importorskip("pyarrow")

WORDS = {
    "t": [0, 1, 0, 1],
    "g": ["a", "a", "b", "b"],
    "kind": ["dry", "wet", "dry", "NA"],
    "open": ["yes", "no", "no", "yes"],
    "area": ["x", "x", "z", "z"],
    "y": [1.0, 2, 3, 4],
}
ROLES = {"group": "g", "known": ["kind"], "past": ["open"], "static": ["area"], "missing": "ffill"}


def refuses(message: str, error: type[Exception] = DataError):
    return pytest.raises(error, match=re.escape(message))


def tables(columns: dict, **options: object) -> Tables:
    given: dict = {"target": ["y"], "time": "t"}
    return Tables.from_frame(pandas.DataFrame(columns), **given | options)


def test_words_are_numbers_of_labels():
    source = tables(WORDS, **ROLES)
    a, b = source.events()
    assert source.roles.encoder + source.roles.static == ("kind", "open", "y", "area")
    assert source.categories == {"kind": ["dry", "wet"], "area": ["x", "z"]}
    assert (a.columns["kind"].tolist(), a.columns["open"].tolist()) == ([1, 2], [1, 0])
    np.testing.assert_array_equal(b.columns["kind"], [1, np.nan])
    assert (a.columns["area"].tolist(), b.columns["area"].tolist()) == ([1, 1], [2, 2])
    with refuses("`area` is 'x' and 'z' in event 'a'; expected one value an event"):
        tables(WORDS | {"area": ["x", "z", "x", "x"]}, **ROLES).events()


def test_words_are_columns_of_zeros_and_ones_where_that_is_said():
    source = tables(WORDS, **ROLES, labels="auto")
    a, b = source.events()
    assert source.roles.known == ("kind=dry", "kind=wet")
    assert source.roles.static == ("area=x", "area=z")
    assert (a.columns["kind=wet"].tolist(), a.columns["open"].tolist()) == ([0, 1], [1, 0])
    np.testing.assert_array_equal(b.columns["kind=wet"], [0, np.nan])
    assert source.resolved["labels"] == {"kind": ["dry", "wet"], "area": ["x", "z"]}
    assert source.resolved["categories"] == "none"
    mixed = tables(WORDS, **ROLES, labels="auto", categories=["area"])
    assert mixed.roles.known + mixed.roles.static == ("kind=dry", "kind=wet", "area")
    # What a run of before embeddings has in its configuration.
    before = tables(WORDS, **ROLES, labels={"kind": ["wet"], "area": ["x"]}, calendar="none")
    assert before.roles.known + before.roles.static == ("kind=wet", "area=x")
    assert (before.categories, before.resolved) == ({}, {})


def test_numbers_truth_and_categories_are_labels_where_that_is_said():
    columns = WORDS | {"shop": pandas.Categorical([7, 7, 8, 8]), "item": [1, 1, 2, 2]}
    source = tables(columns, group="g", static=["shop", "item"])
    assert source.categories == {"shop": ["7", "8"]}
    named = ["open", "item"]
    source = tables(columns, group="g", past=["open"], static=["item"], categories=named)
    assert source.categories == {"open": ["no", "yes"], "item": ["1", "2"]}


def test_yes_and_no_among_other_words_are_words():
    columns = {"t": [0, 1, 2], "kind": ["yes", "no", "maybe"], "y": [1.0, 2, 3]}
    assert tables(columns, known=["kind"]).categories == {"kind": ["maybe", "no", "yes"]}


def test_unknown_words_are_refused_like_unknown_numbers():
    with refuses("is 'NA' at row 3, column 'kind' in the frame; expected a label. Fill the cell"):
        tables(WORDS, group="g", known=["kind"]).events()


@pytest.mark.parametrize("labels", [None, "auto"])
def test_labels_that_were_not_seen_are_counted(tmp_path, labels):
    columns = {"t": [0, 1], "kind": ["a", "b"], "y": [1.0, 2]}
    source = tables(columns, known=["kind"], labels=labels)
    source.events()
    path = tmp_path / "new.csv"
    path.write_text("t,kind,y\n0,a,1\n1,c,\n2,c,\n")
    (event,) = source.read(path)
    assert event.columns["kind" if labels is None else "kind=a"].tolist() == [1, 0, 0]
    told = "cells of 'kind' with a label that is not told apart, taken as none of them: 2 (c)"
    assert told in source.notes


def test_labels_are_named_where_they_are_many():
    count = 51
    columns = {"t": range(count), "kind": [f"k{n}" for n in range(count)], "y": np.zeros(count)}
    with refuses("`kind` is a column of 51 labels; expected at most 50. List those to tell apart"):
        tables(columns, known=["kind"], labels="auto").events()
    source = tables(columns, known=["kind"], labels={"kind": ["k3"]})
    assert source.events()[0].columns["kind=k3"].tolist() == [0.0] * 3 + [1.0] + [0.0] * 47
    source = tables(columns, known=["kind"], categories={"kind": ["k3"]})
    assert source.events()[0].columns["kind"].tolist() == [0.0] * 3 + [1.0] + [0.0] * 47
    assert len(tables(columns, known=["kind"]).categories["kind"]) == 51


def test_a_number_among_words_is_no_label():
    with refuses("is 'wet' at row 1, column 'kind' in the frame; expected a number"):
        tables({"t": [0, 1], "kind": ["1.5", "wet"], "y": [1.0, 2]}, known=["kind"]).events()


def test_labels_have_no_mean():
    columns = {"t": [0, 1, 1], "kind": ["a", "b", "c"], "x": [0.0, 2, 4], "y": [1.0, 2, 4]}
    (event,) = tables(columns, known=["kind", "x"], duplicates="mean").events()
    assert [event.columns[name].tolist() for name in ("kind", "x", "y")] == [[1, 2], [0, 3], [1, 3]]


def test_labels_that_training_lacks_are_unknown_and_told():
    kinds = ["a", "b"] * 10 + ["a"] + ["c"] * 4  # of the validation and test steps alone
    columns = {"t": np.arange(25), "kind": kinds, "y": np.arange(25.0)}
    source = tables(columns, known=["kind"])
    data = EncoderDecoderDataModule(source, windows=Windows(4, 2), validation=0.1, test=0.1)
    assert data.cardinalities == (4, 0)
    assert data.train[0].past[:, 0].tolist() == [1, 2, 1, 2]
    assert data.test[0].future[:, 0].tolist() == [0, 0]
    assert data.notes[-1] == "labels of 'kind' that training lacks, taken as unknown: c"
    saved = data.normalization.to_dict()
    assert saved["kind"] == {"mean": 0.0, "transforms": [{"SeenLabels": {"seen": [1, 2]}}]}
    assert Normalization.from_dict(saved).chains == data.normalization.chains


def test_labels_are_not_scaled_and_drive_nothing():
    columns = {"t": range(9), "kind": list("abc" * 3), "y": np.arange(9.0)}
    source = tables(columns, known=["kind"])
    data = EncoderDecoderDataModule(source, transforms={"kind": [StandardScaler()]}, test=0)
    with refuses("`transforms` is of 'kind', whose labels are embedded; exp", OptionError):
        _ = data.normalization
    with refuses("`driver` is 'kind', a column of labels; expected one of numbers", OptionError):
        tables(columns, known=["kind"], driver="kind").events()
    for option in ({"categories": ["z"]}, {"labels": {"z": ["a"]}}):
        with refuses("is of 'z'; expected a known, past or static column", OptionError):
            tables(columns, known=["kind"], **option)
    with refuses("`labels` is of 'kind', which is in categories too", OptionError):
        tables(columns, known=["kind"], categories=["kind"], labels={"kind": ["a"]})
