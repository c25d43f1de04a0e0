"""Writes the golden values beside it: inputs, learned statistics and outputs of scikit-learn, NumPy and exact rational arithmetic.

    python tests/golden/make.py

Needs numpy and scikit-learn. In the JSON, null stands for a missing value. Floats that are not whole are strings, so that every reader gets
exactly the same bits (many JSON readers do not round correctly); "NaN", "inf" and "-inf" are such strings too.
scikit-learn has no nulls: a null goes in as NaN and stays null in what is expected.
"""

import json
import math
import pathlib
import warnings
from fractions import Fraction

import numpy as np
import sklearn
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, OrdinalEncoder, RobustScaler, StandardScaler

HERE = pathlib.Path(__file__).parent
NAN = float("nan")


def plain(value):
    """A float as JSON can hold it."""
    if value is None:
        return None
    value = float(value)
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return value if value.is_integer() and abs(value) < 2**53 else repr(value)


def write(name, cases):
    made_by = {"numpy": np.__version__, "scikit-learn": sklearn.__version__}
    # One line a list: short, and a change shows what changed.
    lines = [",\n".join(f"  {json.dumps(k)}: {json.dumps(v, allow_nan=False)}" for k, v in case.items()) for case in cases]
    body = "\n },\n {\n".join(lines)
    (HERE / f"{name}.json").write_text(f'{{"made_by": {json.dumps(made_by)}, "cases": [\n {{\n{body}\n }}\n]}}\n')


def moments(values):
    """Exact mean and population variance, rounded once."""
    seen = [Fraction(v) for v in values if v is not None and not math.isnan(v)]
    n = len(seen)
    mean = sum(seen) / n if n else Fraction(0)
    variance = sum((v - mean) ** 2 for v in seen) / n if n else Fraction(0)
    return {
        "count": n,
        "nulls": sum(v is None for v in values),
        "nans": sum(v is not None and math.isnan(v) for v in values),
        "mean": plain(mean),
        "variance": plain(variance),
        "min": plain(min(seen) if n else math.inf),
        "max": plain(max(seen) if n else -math.inf),
    }


def quantiles(values, at):
    seen = [v for v in values if v is not None and not math.isnan(v)]
    return [plain(q) for q in (np.quantile(seen, at) if seen else [NAN] * len(at))]


def column(values):
    return np.array([[NAN if v is None else v] for v in values], dtype=float)


def like(values, made):
    """A null where a null went in, otherwise what was made."""
    return [None if v is None else plain(m) for v, m in zip(values, np.asarray(made, dtype=float).ravel(), strict=True)]


def exact_minmax(values):
    seen = [Fraction(v) for v in values if v is not None and not math.isnan(v)]
    span = (max(seen) - min(seen)) or 1
    return [None if v is None else "NaN" if math.isnan(v) else plain((Fraction(v) - min(seen)) / span) for v in values]


def inputs():
    random = np.random.default_rng(7)
    delays = np.round(random.exponential(30, 200) - 15).tolist()
    return {
        "small": [1.0, 2.0, 4.0, 8.0, 16.0],
        "nulls_and_nan": [None, 3.5, NAN, -1.25, 0.0, None, 7.75, 2.0],
        "constant": [3.0, 3.0, 3.0, None],
        "constant_fraction": [0.1] * 10,
        "one_value": [42.0],
        "huge_offset": (1e9 + random.normal(0, 1, 500)).tolist(),
        "huge_offset_constant": [1e9 + 0.1] * 50,
        "delays": [None if i % 17 == 0 else v for i, v in enumerate(delays)],
        "tiny": (random.normal(0, 1e-8, 100)).tolist(),
        "wide": [-1e12, -1.0, 0.0, 1e-9, 1e12],
    }


AT = [0.0, 0.25, 0.5, 0.75, 1.0]


def scalers():
    cases = []
    for name, values in inputs().items():
        x = column(values)
        standard = StandardScaler().fit(x)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            log = np.log1p(x)
        cases.append({
            "name": name,
            "input": [plain(v) for v in values],
            "moments": moments(values),
            "sklearn": {"mean": plain(standard.mean_[0]), "variance": plain(standard.var_[0]), "scale": plain(standard.scale_[0])},
            "quantiles": {"at": AT, "values": quantiles(values, AT)},
            "standard": like(values, standard.transform(x)),
            "minmax": like(values, MinMaxScaler().fit_transform(x)),
            "minmax_exact": exact_minmax(values),
            "minmax_symmetric": like(values, MinMaxScaler((-1, 1)).fit_transform(x)),
            "robust": like(values, RobustScaler().fit_transform(x)),
            "log1p": like(values, log),
        })
    return cases


def imputers():
    cases = []
    for name, values in inputs().items():
        x = column(values)
        case = {"name": name, "input": [plain(v) for v in values], "moments": moments(values), "quantiles": {"at": AT, "values": quantiles(values, AT)}}
        for strategy in ["mean", "median", "most_frequent"]:
            made = SimpleImputer(strategy=strategy).fit_transform(x)
            case[strategy] = [plain(v) for v in made.ravel()]
        cases.append(case)
    texts = ["b", "a", None, "b", "a", "c", None]
    made = SimpleImputer(missing_values=None, strategy="most_frequent").fit_transform(np.array(texts, dtype=object).reshape(-1, 1))
    cases.append({"name": "texts", "input": texts, "most_frequent": made.ravel().tolist()})
    return cases


def outliers():
    cases = []
    for name, values in inputs().items():
        x = np.array([NAN if v is None else v for v in values])
        with np.errstate(invalid="ignore", divide="ignore"):
            z = (x - np.nanmean(x)) / np.nanstd(x)  # scipy.stats.zscore with ddof=0, nan_policy="omit"
            if np.nanmin(x) == np.nanmax(x):
                z = np.full_like(x, NAN)  # as SciPy does for constant input
            q1, q3 = np.nanquantile(x, [0.25, 0.75])
            fence = 1.5 * (q3 - q1)
            cases.append({
                "name": name,
                "input": [plain(v) for v in values],
                "moments": moments(values),
                "quantiles": {"at": AT, "values": quantiles(values, AT)},
                "zscore_2": [bool(b) for b in np.abs(z) > 2],
                "iqr": [bool(b) for b in (x < q1 - fence) | (x > q3 + fence)],
                "bounds_0_10": [bool(b) for b in (x < 0) | (x > 10)],
                "iqr_clipped": like(values, np.clip(x, q1 - fence, q3 + fence)),
            })
    return cases


def encoders():
    learned = ["UA", "AA", "DL", "AA", None, "B6"]
    new = ["AA", "B6", "DL", "UA", "XX", None]
    # scikit-learn sorts the categories by value; missing ones get no code here.
    fit = np.array([v for v in learned if v is not None], dtype=object).reshape(-1, 1)
    ordinal = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1).fit(fit)
    codes = [None if v is None else int(ordinal.transform(np.array([[v]], dtype=object))[0, 0]) for v in new]
    one_hot = OneHotEncoder(handle_unknown="ignore", sparse_output=False, dtype=np.uint8).fit(fit)
    hot = one_hot.transform(np.array(new, dtype=object).reshape(-1, 1))
    numbers = [10, 9, None, 100, 9]
    by_value = OrdinalEncoder().fit(np.array([v for v in numbers if v is not None]).reshape(-1, 1))
    return [{
        "name": "carriers",
        "learned": learned,
        "input": new,
        "ordinal": codes,
        "categories": ordinal.categories_[0].tolist(),
        "one_hot_names": one_hot.get_feature_names_out(["carrier"]).tolist(),
        "one_hot": hot.T.tolist(),
    }, {
        "name": "numbers",
        "input": numbers,
        "ordinal": [None if v is None else int(by_value.transform([[v]])[0, 0]) for v in numbers],
    }]


if __name__ == "__main__":
    write("scalers", scalers())
    write("imputers", imputers())
    write("outliers", outliers())
    write("encoders", encoders())
