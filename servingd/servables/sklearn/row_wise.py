"""Which fitted estimators work row by row, so that calls may run together.

scikit-learn says what `predict` and `transform` return for each sample, but proves nothing. So
these are the classes whose mathematics is a function of one row and of what was learnt: linear
models and kernel machines (products with learnt vectors), trees and ensembles of them (paths of one
row), naive Bayes and networks, and transformers that scale, encode, impute, project or select
columns.
Not here is what looks at neighbours among the rows, draws at random, or calls functions of others
(FunctionTransformer); and any class of another package, whatever its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

_LINEAR = (
    "LinearRegression Ridge RidgeCV Lasso LassoCV LassoLars ElasticNet ElasticNetCV BayesianRidge "
    "HuberRegressor PoissonRegressor GammaRegressor TweedieRegressor QuantileRegressor "
    "LogisticRegression LogisticRegressionCV RidgeClassifier RidgeClassifierCV SGDClassifier "
    "SGDRegressor Perceptron LinearSVC LinearSVR SVC SVR NuSVC NuSVR "
    "LinearDiscriminantAnalysis QuadraticDiscriminantAnalysis"
)
_TREES = (
    "DecisionTreeClassifier DecisionTreeRegressor ExtraTreeClassifier ExtraTreeRegressor "
    "RandomForestClassifier RandomForestRegressor ExtraTreesClassifier ExtraTreesRegressor "
    "GradientBoostingClassifier GradientBoostingRegressor "
    "HistGradientBoostingClassifier HistGradientBoostingRegressor"
)
_OTHERS = (
    "GaussianNB MultinomialNB ComplementNB BernoulliNB CategoricalNB MLPClassifier MLPRegressor"
)
_TRANSFORMERS = (
    "StandardScaler MinMaxScaler MaxAbsScaler RobustScaler Normalizer Binarizer PowerTransformer "
    "QuantileTransformer PolynomialFeatures SplineTransformer KBinsDiscretizer OneHotEncoder "
    "OrdinalEncoder TargetEncoder SimpleImputer MissingIndicator PCA TruncatedSVD SelectKBest "
    "SelectPercentile VarianceThreshold CountVectorizer TfidfVectorizer TfidfTransformer "
    "HashingVectorizer"
)
_LEAVES = frozenset(f"{_LINEAR} {_TREES} {_OTHERS} {_TRANSFORMERS}".split())
_BY_OTHERS = ("kernel", "init", "func", "analyzer", "tokenizer", "preprocessor")
"""Parameters by which a class of the table may call what others wrote, if they are no texts."""

_PARTS: Mapping[str, Callable[[Any], Iterable[Any]]] = {
    "Pipeline": lambda e: [step for _, step in e.steps],
    "ColumnTransformer": lambda e: [step for _, step, _ in e.transformers_],
    "FeatureUnion": lambda e: [step for _, step in e.transformer_list],
    "VotingClassifier": lambda e: e.estimators_,
    "VotingRegressor": lambda e: e.estimators_,
    "OneVsRestClassifier": lambda e: e.estimators_,
    "MultiOutputClassifier": lambda e: e.estimators_,
    "MultiOutputRegressor": lambda e: e.estimators_,
    "GridSearchCV": lambda e: [e.best_estimator_],
    "RandomizedSearchCV": lambda e: [e.best_estimator_],
}
"""Estimators that are made of others, and which: row-wise if all of these are."""


def why_not_row_wise(estimator: Any) -> str:
    """Return why calls of a fitted estimator may not be merged; empty if they may."""
    for part in leaves(estimator):
        kind = type(part)
        if kind.__name__ not in _LEAVES or not _is_sklearn(part):
            return f"{kind.__name__} is not known to treat each row by itself"
        for name in _BY_OTHERS:
            if not isinstance(getattr(part, name, None), str | None):
                return f"{kind.__name__} calls a function of others ({name})"
    return ""


def leaves(estimator: Any) -> Iterator[Any]:
    """Yield the estimators that an estimator is made of, or it; columns as they are are none."""
    if estimator is None or isinstance(estimator, str):  # "passthrough", "drop"
        return
    parts = _PARTS.get(type(estimator).__name__) if _is_sklearn(estimator) else None
    if parts is None:
        yield estimator
        return
    for part in parts(estimator):
        yield from leaves(part)


def _is_sklearn(estimator: Any) -> bool:
    return type(estimator).__module__.split(".")[0] == "sklearn"
