"""Tables as sequences: their columns are told apart by name, not by place alone."""

import numpy as np
import pandas as pd
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import rnncore
from rnncore.preprocessing import StepTransformer

NAMES = ["height", "weight", "age"]
Y = np.array([0, 1, 0, 1])


def tables():
    rng = np.random.default_rng(0)
    return [pd.DataFrame(rng.standard_normal((n, 3)), columns=NAMES) for n in (3, 5, 2, 4)]


def turned(X):
    return [x[x.columns[::-1]] for x in X]


@pytest.fixture
def model():
    return rnncore.GRU(2, max_epochs=1, random_state=0).fit(tables(), Y)


@pytest.mark.parametrize("form", ["fresh", "loaded"])
def test_columns_in_another_order_are_refused(model, form, tmp_path):
    if form == "loaded":
        model.save(tmp_path / "model")
        model = rnncore.load(tmp_path / "model")
    assert model.feature_names_in_.tolist() == NAMES
    assert (model.feature_names_in_.dtype, model.n_features_in_) == (np.dtype(object), 3)
    X = tables()
    expected = (
        r"X\[0\]: expected the columns of fit in their order, 'height' as column 0, got 'age'$"
    )
    with pytest.raises(ValueError, match=expected):
        model.predict(turned(X))
    with pytest.raises(ValueError, match=r"X\[3\]: expected the columns of fit .*, got 'age'$"):
        model.predict([*X[:3], *turned(X[3:])])
    with pytest.raises(ValueError, match=r"eval_set\[0\]\[0\]: expected the columns of fit"):
        model.partial_fit(X, Y).fit(X, Y, eval_set=(turned(X), Y))
    with pytest.raises(ValueError, match=r"X\[0\]: expected the columns of fit"):
        model.partial_fit(turned(X), Y)
    arrays = [x.to_numpy() for x in X]
    np.testing.assert_array_equal(model.predict_proba(X), model.predict_proba(arrays))
    assert model.fit(turned(X), Y).feature_names_in_.tolist() == NAMES[::-1]
    assert not hasattr(model.fit(arrays, Y), "feature_names_in_")
    model.predict(turned(X))


def test_tables_of_one_call_have_their_columns_in_one_order():
    X = tables()
    expected = r"X\[2\]: expected the columns of X\[0\] in their order, 'height' as column 0"
    with pytest.raises(ValueError, match=expected):
        rnncore.LSTM(2).fit([*X[:2], *turned(X[2:])], Y)
    with pytest.raises(ValueError, match=expected.replace(r"X\[0\]", r"X\[1\]")):
        rnncore.LSTM(2).fit([X[0].to_numpy(), X[1], *turned(X[2:])], Y)


def test_columns_without_names_are_taken_at_their_word(model):
    numbered = [pd.DataFrame(x.to_numpy()) for x in tables()]
    assert len(model.predict(numbered)) == 4
    assert not hasattr(model.fit(numbered, Y), "feature_names_in_")
    assert len(model.predict(tables())) == 4


def test_a_transformer_of_steps_knows_the_columns_too():
    X = tables()
    scaler = StepTransformer(StandardScaler()).fit(X)
    assert scaler.feature_names_in_.tolist() == NAMES
    with pytest.raises(ValueError, match=r"X\[0\]: expected the columns of fit in their order"):
        scaler.transform(turned(X))
    scaled = scaler.transform(X)
    assert len(scaler.inverse_transform(scaled)) == 4
    assert not hasattr(scaler.fit(scaled), "feature_names_in_")
    model = make_pipeline(StepTransformer(StandardScaler()), rnncore.RNN(2, max_epochs=1))
    with pytest.raises(ValueError, match=r"X\[0\]: expected the columns of fit in their order"):
        model.fit(X, Y).predict(turned(X))
