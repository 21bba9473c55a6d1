"""Covariates as numbers: estimated on the patients of ``fit`` alone, finite for every patient, and refused by name."""

import numpy as np
import pandas as pd
import pytest

from milkit.covariates import MOST_LEVELS, CovariateEncoding
from milkit.errors import MilkitError, SettingsError, UnknownName

COLUMNS = ["age", "sex", "leukocytes"]


@pytest.fixture
def train() -> pd.DataFrame:
    table = {"label": list("AABBA"), "age": [40.0, 60.0, np.nan, 80.0, 20.0], "sex": ["F", "M", "F", None, "M"]}
    return pd.DataFrame(table | {"leukocytes": [3, 9, 27, 1, 5]}, index=[f"P{n}" for n in range(5)])


@pytest.fixture
def others() -> pd.DataFrame:
    table = {
        "label": list("BAB"),
        "age": [50.0, np.nan, np.inf],
        "sex": ["M", "X", " "],
        "leukocytes": [9.0, np.nan, 0.0],
    }
    return pd.DataFrame(table, index=["Q0", "Q1", "Q2"])


def test_the_encoding_equals_its_formula(train: pd.DataFrame, others: pd.DataFrame) -> None:
    encoding = CovariateEncoding.fit(train, COLUMNS)
    assert encoding.names == ("age", "age missing", "sex=F", "sex=M", "sex missing", "leukocytes")
    age = [(50 - 50) / np.sqrt(500), 0, 0]  # mean of 40, 60, 80, 20, and their spread
    cells = [(value - 9) / np.sqrt((36 + 0 + 324 + 64 + 16) / 5) for value in (9, 9, 0)]
    expected = [age, [0, 1, 1], [0, 0, 0], [1, 0, 0], [0, 0, 1], cells]
    np.testing.assert_allclose(encoding.encode(others), np.array(expected).T, atol=1e-12)


def test_training_values_have_mean_zero_and_spread_one(train: pd.DataFrame) -> None:
    cells = CovariateEncoding.fit(train, ["leukocytes"]).encode(train)[:, 0]
    assert (cells.mean(), cells.std()) == (pytest.approx(0, abs=1e-12), pytest.approx(1))


def test_missing_values_are_counted_for_each_column(train: pd.DataFrame) -> None:
    assert CovariateEncoding.fit(train, COLUMNS).missing == {"age": 1, "sex": 1, "leukocytes": 0}


def test_what_no_training_patient_lacks_gets_no_indicator_and_is_the_mean_elsewhere(
    train: pd.DataFrame, others: pd.DataFrame
) -> None:
    encoding = CovariateEncoding.fit(train, ["leukocytes"])
    assert encoding.names == ("leukocytes",)
    assert encoding.encode(others)[1, 0] == 0


@pytest.mark.parametrize("whole", [True, False])
def test_other_patients_change_nothing(train: pd.DataFrame, others: pd.DataFrame, *, whole: bool) -> None:
    """Neither the statistics, nor what a patient's numbers are beside others."""
    encoding = CovariateEncoding.fit(train, COLUMNS)
    rows = encoding.encode(pd.concat([train, others]) if whole else others)
    np.testing.assert_array_equal(rows[-3:], encoding.encode(others))


def test_a_value_that_does_not_vary_is_zero_for_those_who_have_it() -> None:
    encoding = CovariateEncoding.fit(pd.DataFrame({"age": [0.1, 0.1, 0.1]}), ["age"])
    np.testing.assert_allclose(encoding.encode(pd.DataFrame({"age": [0.1, 2.1]}))[:, 0], [0, 2], atol=1e-12)


def test_truth_values_and_categories_have_levels() -> None:
    patients = pd.DataFrame({"smoker": [True, False], "stage": pd.Categorical(["II", None], ["I", "II"])})
    assert CovariateEncoding.fit(patients, ["smoker", "stage"]).names == (
        "smoker=False",
        "smoker=True",
        "stage=II",
        "stage missing",
    )


def test_nullable_numbers_are_numbers() -> None:
    patients = pd.DataFrame({"blasts": pd.array([1, None, 3], dtype="Int64")})
    np.testing.assert_array_equal(CovariateEncoding.fit(patients, ["blasts"]).encode(patients)[:, 0], [-1, 0, 1])


def test_a_saved_encoding_encodes_alike(train: pd.DataFrame, others: pd.DataFrame) -> None:
    encoding = CovariateEncoding.fit(train, COLUMNS)
    again = CovariateEncoding.described(encoding.description(), encoding.mean, encoding.scale)
    np.testing.assert_array_equal(again.encode(others), encoding.encode(others))
    assert again.names == encoding.names


def test_no_patients_have_no_rows(train: pd.DataFrame) -> None:
    assert CovariateEncoding.fit(train, COLUMNS).encode(train[:0]).shape == (0, 6)
    assert CovariateEncoding.fit(train, []).encode(train).shape == (5, 0)


@pytest.mark.parametrize(
    ("column", "error", "text"),
    [
        (
            "agee",
            UnknownName,
            r"^No covariate is called 'agee'\. Did you mean 'age'\? Known: age, sex, leukocytes, empty\.$",
        ),
        ("label", SettingsError, "The covariate 'label' is what is predicted; name columns"),
        (
            "empty",
            SettingsError,
            "The covariate 'empty' has no value in any of the 5 training patients of a fold; leave",
        ),
    ],
)
def test_what_can_be_no_covariate_is_refused_by_name(
    train: pd.DataFrame, column: str, error: type[MilkitError], text: str
) -> None:
    with pytest.raises(error, match=text):
        CovariateEncoding.fit(train.assign(empty=np.nan), [column])


def test_a_covariate_that_is_named_twice_is_refused(train: pd.DataFrame) -> None:
    with pytest.raises(SettingsError, match=r"^The covariate 'age' was named 2 times; name it once\.$"):
        CovariateEncoding.fit(train, ["age", "sex", "age"])


def test_free_text_is_refused() -> None:
    notes = pd.DataFrame({"note": [f"text {n}" for n in range(MOST_LEVELS + 1)]})
    with pytest.raises(
        SettingsError, match=r"'note' has 21 different texts among 21 training patients, expected at most"
    ):
        CovariateEncoding.fit(notes, ["note"])


def test_a_number_that_became_text_is_refused(train: pd.DataFrame) -> None:
    encoding = CovariateEncoding.fit(train, ["leukocytes"])
    with pytest.raises(SettingsError, match="'leukocytes' was a number in the training patients and is text in these"):
        encoding.encode(pd.DataFrame({"leukocytes": ["many"]}))


def test_a_number_that_nobody_has_is_missing_whatever_its_type(train: pd.DataFrame) -> None:
    encoding = CovariateEncoding.fit(train, ["leukocytes"])
    assert encoding.encode(pd.DataFrame({"leukocytes": [None, None]})).tolist() == [[0.0], [0.0]]
