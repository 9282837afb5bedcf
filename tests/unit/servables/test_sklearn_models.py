"""Estimators of scikit-learn: files, inputs, methods, and whose calls may be merged."""

from __future__ import annotations

import io

import numpy as np
import pytest

from servingd.core.types import DataType, ServableId, VersionData
from servingd.errors import (
    DataLoss,
    FailedPrecondition,
    InvalidArgument,
    PermissionDenied,
    ServingError,
)
from servingd.servables.files.source import Bytes
from servingd.servables.registry import Platforms
from servingd.servables.sklearn import row_wise
from servingd.servables.sklearn.model_files import damage_of_joblib
from servingd.servables.sklearn.row_wise import why_not_row_wise
from servingd.sources.listing import DiskListing
from servingd.testing.contract import Outcome, run

pytest.importorskip("skops")
pytest.importorskip("sklearn")
import joblib
import skops.io
from sklearn import ensemble, linear_model, naive_bayes, pipeline, preprocessing, svm
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.neighbors import KNeighborsClassifier
from sklearn.tree import DecisionTreeRegressor

X, Y = load_iris(return_X_y=True)
NAMES = np.array(["setosa", "versicolor", "virginica"])


def load(tmp_path, estimator, code=False, joblib_file=False, **options):
    if joblib_file:
        joblib.dump(estimator, tmp_path / "model.joblib")
    else:
        file = tmp_path / "model.skops"
        skops.io.dump(estimator, file)
        unknown = skops.io.get_untrusted_types(file=file)
        if trees := [kind for kind in unknown if kind.startswith("sklearn.")]:
            options = {"trusted_types": trees, **options}
    platforms = Platforms(allow_code=code)
    data = VersionData(str(tmp_path), "sklearn", options=options)
    return platforms.loader(ServableId("m", 1), data).load()


def ask(servable, name="serving_default", **inputs):
    signature = servable.signatures[name]
    return run(servable, signature, inputs)


# Methods ------------------------------------------------------------------------------------------


def test_a_classifier_has_predictions_probabilities_and_decisions(tmp_path):
    model = linear_model.LogisticRegression(max_iter=500).fit(X, NAMES[Y])
    servable = load(tmp_path, model)
    wanted = {"serving_default", "predict", "predict_proba", "decision_function"}
    assert servable.signatures.keys() == wanted
    spec = servable.signatures["predict_proba"].inputs["features"]
    assert (spec.data_type, spec.shape) == (DataType.DOUBLE, (None, 4))
    rows = X[::30]
    for name in ("serving_default", "predict"):
        found = ask(servable, name, features=rows)
        assert found["predictions"].tolist() == [each.encode() for each in model.predict(rows)]
    found = ask(servable, "predict_proba", features=rows)
    np.testing.assert_array_equal(found["probabilities"], model.predict_proba(rows))
    assert found["classes"].tolist() == [[n.encode() for n in NAMES]] * len(rows)
    for name, signature in servable.signatures.items():
        answer = ask(servable, name, features=rows)
        assert answer.keys() == signature.outputs.keys()
        for alias, array in answer.items():
            assert signature.outputs[alias].takes(array.shape), (name, alias)


def test_a_regressor_and_a_transformer_have_what_they_have(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    servable = load(tmp_path / "a", DecisionTreeRegressor().fit(X, Y), inputs={"x": "float32"})
    assert servable.signatures.keys() == {"serving_default", "predict"}
    found = ask(servable, x=X[:2].astype(np.float32))["predictions"]
    assert (found.dtype, found.tolist()) == (np.float64, [0, 0])
    servable = load(tmp_path / "b", PCA(2).fit(X))
    assert servable.signatures.keys() == {"serving_default", "transform"}
    assert ask(servable, features=X[:3])["transformed"].shape == (3, 2)


def test_texts_go_in_as_strings(tmp_path):
    model = pipeline.make_pipeline(TfidfVectorizer(), linear_model.LogisticRegression())
    model.fit(["good film", "bad film", "good", "bad"], [1, 0, 1, 0])
    servable = load(tmp_path, model)
    spec = servable.signatures["predict"].inputs["features"]
    assert (spec.data_type, spec.shape) == (DataType.STRING, (None,))
    texts = np.array([b"a good one", b"bad"], object)
    assert ask(servable, features=texts)["predictions"].tolist() == [1, 0]
    assert servable.why_not_merged("predict") == ""
    with pytest.raises(InvalidArgument, match="UTF-8"):
        servable.run(
            servable.signatures["predict"], {"features": np.array([b"\xff"], object)}, Outcome()
        )


def mixed():
    columns = ColumnTransformer(
        [
            ("number", preprocessing.StandardScaler(), [0]),
            ("city", preprocessing.OneHotEncoder(handle_unknown="ignore"), [1]),
        ]
    )
    rows = np.array([[1.0, "Rom"], [2.0, "Bonn"], [9.0, "Rom"], [8.0, "Bonn"]], object)
    return pipeline.make_pipeline(columns, linear_model.LogisticRegression()).fit(
        rows, [0, 0, 1, 1]
    )


def test_columns_of_numbers_and_strings_have_a_name_each(tmp_path):
    types = {"age": "float64", "city": "string"}
    servable = load(tmp_path, mixed(), inputs=types)
    shapes = {n: (s.data_type, s.shape) for n, s in servable.signatures["predict"].inputs.items()}
    assert shapes == {"age": (DataType.DOUBLE, (None,)), "city": (DataType.STRING, (None,))}
    cities = np.array([b"Rom", b"Paris"], object)
    found = ask(servable, age=np.array([1.0, 9.0]), city=cities)["predictions"]
    assert found.tolist() == [0, 1]
    assert servable.rows_worth_merging("predict") > 0
    with pytest.raises(InvalidArgument, match="different numbers of rows"):
        servable.run(
            servable.signatures["predict"], {"age": np.array([1.0]), "city": cities}, Outcome()
        )


def test_an_estimator_that_learnt_names_takes_a_column_for_each(tmp_path, recwarn):
    model = linear_model.LinearRegression().fit(X[:, :2], Y)
    model.feature_names_in_ = np.array(["length", "width"], object)  # as pandas leaves them
    servable = load(tmp_path, model, inputs={"width": "float32"})
    inputs = {n: s.data_type for n, s in servable.signatures["predict"].inputs.items()}
    assert inputs == {"length": DataType.DOUBLE, "width": DataType.FLOAT}
    found = ask(servable, length=X[:2, 0], width=X[:2, 1].astype(np.float32))["predictions"]
    np.testing.assert_allclose(found, X[:2, :2] @ model.coef_ + model.intercept_, rtol=1e-6)
    assert not [w for w in recwarn if "feature names" in str(w.message)]
    with pytest.raises(InvalidArgument, match="has no column 'height'; it has length, width"):
        load(tmp_path, model, inputs={"height": "float32"})


def test_columns_picked_by_name_need_pandas_and_say_so(tmp_path, monkeypatch):
    model = mixed()
    transformer = model.steps[0][1]
    transformer.transformers_ = [
        (name, step, [["age", "city"][columns[0]]])
        for name, step, columns in transformer.transformers_
    ]
    transformer.feature_names_in_ = np.array(["age", "city"], object)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "pandas" else name)
    with pytest.raises(FailedPrecondition, match="pip install pandas"):
        load(tmp_path, model, inputs={"city": "string"})


def test_what_an_estimator_refuses_is_the_callers_error(tmp_path):
    model = linear_model.LinearRegression().fit(X, Y)
    servable = load(tmp_path, model)
    with pytest.raises(InvalidArgument) as caught:
        servable.run(servable.signatures["predict"], {"features": np.ones((2, 3))}, Outcome())
    assert "3 features" in caught.value.message
    assert "expected a tensor of shape [-1,4], got [2,3]" in caught.value.message


# Files --------------------------------------------------------------------------------------------


class Mine(linear_model.LinearRegression):
    pass


def test_types_that_are_not_trusted_are_named_and_may_be_trusted(tmp_path):
    model = Mine().fit(X, Y)
    with pytest.raises(FailedPrecondition, match=r"not trusted: .*Mine.*trusted_types"):
        load(tmp_path, model)
    kind = f"{Mine.__module__}.Mine"
    servable = load(tmp_path, model, trusted_types=[kind])
    assert ask(servable, features=X[:1])["predictions"].shape == (1,)
    assert "Mine is not known" in servable.why_not_merged("predict")


def test_trees_are_not_trusted_by_themselves_and_the_error_says_what_to_write(tmp_path):
    skops.io.dump(DecisionTreeRegressor().fit(X, Y), tmp_path / "model.skops")
    loader = Platforms().loader(ServableId("m", 1), VersionData(str(tmp_path), "sklearn"))
    wanted = r"platform_options: \{trusted_types: \[sklearn\.tree\._tree\.Tree\]\}"
    with pytest.raises(FailedPrecondition, match=wanted):
        loader.load()


class Evil:
    def __reduce__(self):
        return (exec, ("raise SystemError('it ran')",))


def test_a_pickle_is_loaded_only_where_model_and_server_allow_it(tmp_path):
    with pytest.raises(FailedPrecondition, match=r"model\.joblib is a pickle.*skops\.io\.dump"):
        load(tmp_path, Evil(), code=True, joblib_file=True)
    with pytest.raises(PermissionDenied, match="--allow_python_models"):
        load(tmp_path, Evil(), joblib_file=True, allow_pickle=True)
    with pytest.raises(FailedPrecondition, match="it ran"):
        load(tmp_path, Evil(), code=True, joblib_file=True, allow_pickle=True)
    model = linear_model.LinearRegression().fit(X, Y)
    servable = load(tmp_path, model, code=True, joblib_file=True, allow_pickle=True)
    assert ask(servable, features=X[:1])["predictions"].shape == (1,)


@pytest.mark.parametrize("compress", [("zlib", 3), ("gzip", 3), ("bz2", 3), ("xz", 3), ("lzma", 3)])
def test_a_compressed_pickle_that_was_cut_off_is_not_whole(tmp_path, compress):
    joblib.dump(list(range(300)), tmp_path / "m", compress=compress)
    content = (tmp_path / "m").read_bytes()
    assert damage_of_joblib(Bytes(content)) is None
    for length in range(len(content)):
        assert damage_of_joblib(Bytes(content[:length])), length


def test_a_plain_pickle_ends_with_a_full_stop():
    file = io.BytesIO()
    joblib.dump({"a": np.arange(9)}, file)
    assert damage_of_joblib(Bytes(file.getvalue())) is None
    assert damage_of_joblib(Bytes(file.getvalue()[:-1])).startswith("does not end")
    assert damage_of_joblib(Bytes(b""))


def test_versions_are_recognised_by_their_files(tmp_path):
    platform = Platforms()["sklearn"]
    assert not platform.recognises(DiskListing(str(tmp_path)))
    (tmp_path / "model.joblib").write_bytes(b"y")
    assert platform.missing(DiskListing(str(tmp_path))).startswith("model.joblib does not end")
    (tmp_path / "model.skops").write_bytes(b"PK")
    assert platform.missing(DiskListing(str(tmp_path))).startswith("model.skops is no whole")
    with pytest.raises(DataLoss):
        platform.loader(ServableId("m", 1), VersionData(str(tmp_path), "sklearn")).load()


# Merging ------------------------------------------------------------------------------------------

MERGED = {
    "logistic": lambda: linear_model.LogisticRegression(max_iter=300),
    "svc": svm.SVC,
    "forest": lambda: ensemble.RandomForestClassifier(5, n_jobs=2),
    "boosting": lambda: ensemble.HistGradientBoostingClassifier(max_iter=3),
    "bayes": naive_bayes.GaussianNB,
    "pipeline": lambda: pipeline.make_pipeline(
        preprocessing.QuantileTransformer(n_quantiles=9),
        preprocessing.PolynomialFeatures(),
        PCA(3),
        linear_model.RidgeClassifier(),
    ),
    "votes": lambda: ensemble.VotingClassifier(
        [("a", naive_bayes.GaussianNB()), ("b", ensemble.ExtraTreesClassifier(4))]
    ),
}


@pytest.mark.parametrize("name", MERGED)
def test_estimators_of_the_table_answer_each_row_by_itself(tmp_path, name):
    model = MERGED[name]().fit(X, Y)
    servable = load(tmp_path, model)
    assert servable.why_not_merged("predict") == ""
    rng = np.random.default_rng(1)
    rows = X[rng.permutation(len(X))[:40]] + rng.normal(size=(40, 4))
    for method in servable.signatures:
        whole = ask(servable, method, features=rows)
        parts = [ask(servable, method, features=rows[a : a + 1]) for a in range(40)]
        for alias, array in whole.items():
            together = np.concatenate([part[alias] for part in parts])
            np.testing.assert_allclose(array, together, rtol=1e-9, err_msg=f"{method} {alias}")


def kernel(a, b):
    return (a - a.mean(0)) @ b.T  # of all rows


@pytest.mark.parametrize(
    ("estimator", "text"),
    [
        (KNeighborsClassifier(), "KNeighborsClassifier"),
        (svm.SVC(kernel=kernel), "SVC calls a function of others (kernel)"),
        (preprocessing.FunctionTransformer(np.sort), "FunctionTransformer"),
        (
            pipeline.make_pipeline(preprocessing.FunctionTransformer(), svm.SVC()),
            "FunctionTransformer",
        ),
        (Mine(), "Mine"),
    ],
)
def test_estimators_that_may_look_at_several_rows_are_not_merged(estimator, text):
    assert text in why_not_row_wise(estimator)


def test_a_class_of_another_package_is_not_merged_whatever_its_name():
    other = type("Ridge", (linear_model.Ridge,), {"__module__": "other.models"})
    assert "Ridge is not known" in why_not_row_wise(other().fit(X, Y))


def test_the_table_has_classes_of_scikit_learn_only():
    from sklearn.utils import all_estimators

    known = {name for name, _ in all_estimators()}
    assert (row_wise._LEAVES | row_wise._PARTS.keys()) - known <= {"FeatureUnion"}


def test_calls_are_not_merged_where_the_options_forbid_it(tmp_path):
    servable = load(tmp_path, linear_model.LinearRegression().fit(X, Y), merging="never")
    assert servable.rows_worth_merging("predict") == 0


def test_forests_use_no_threads_of_their_own(tmp_path):
    servable = load(tmp_path, MERGED["forest"]().fit(X, Y))
    assert servable._methods["predict"].call.__self__.n_jobs == 1


def test_a_file_that_is_no_estimator_is_an_error_of_the_load(tmp_path):
    with pytest.raises(ServingError, match="has none of predict"):
        load(tmp_path, {"a": 1})
