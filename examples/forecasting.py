"""
Forecast a day of hourly measurements: all columns, 24 hours ahead, from the days before.

The data are an electricity transformer's, ETTh1.csv of https://github.com/zhouhaoyi/ETDataset,
split into 12, 4 and 4 months as its authors do. Run it on the folder that holds the file:

    python examples/forecasting.py ETDataset/ETT-small
"""

import argparse
from pathlib import Path

import numpy as np
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

import rnncore

MONTH = 30 * 24
AHEAD = 24


def windows(series: np.ndarray, first: int, end: int, past: int) -> tuple[np.ndarray, np.ndarray]:
    """Return all (past, k) windows whose next 24 hours lie in first..end, and those (24 k,)."""
    views = np.lib.stride_tricks.sliding_window_view(series, past + AHEAD, axis=0)
    views = views[first - past : end - past - AHEAD + 1].transpose(0, 2, 1)
    return views[:, :past].copy(), views[:, past:].reshape(len(views), -1).copy()


def mean_day(X: np.ndarray) -> np.ndarray:
    """Return the mean of the days in each window, hour by hour, (n, 24 k)."""
    return X.reshape(len(X), -1, AHEAD * X.shape[2]).mean(axis=1)


def centred(X: np.ndarray) -> np.ndarray:
    """Return each window without its level."""
    return X - X.mean(axis=1, keepdims=True)


def main() -> None:
    """Compare with repeating yesterday and with ridge regression on the same window."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where ETTh1.csv lies")
    parser.add_argument("--past", type=int, default=96, help="hours that are looked at, whole days")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--every", type=int, default=1, help="train on each so-many-th window")
    arguments = parser.parse_args()

    table = np.genfromtxt(arguments.folder / "ETTh1.csv", delimiter=",", skip_header=1)[:, 1:]
    scaler = StandardScaler().fit(table[: 12 * MONTH])
    series = scaler.transform(table).astype(np.float32)
    past = arguments.past
    X_train, y_train = windows(series, past, 12 * MONTH, past)
    X_val, y_val = windows(series, 12 * MONTH, 16 * MONTH, past)
    X_test, y_test = windows(series, 16 * MONTH, 20 * MONTH, past)
    X_train, y_train = X_train[:: arguments.every], y_train[:: arguments.every]

    # What is learned is how the next day differs from the mean of the days before.
    model = rnncore.GRU(
        hidden_size=64,
        output="last",
        loss="absolute_error",
        output_dropout=0.5,
        learning_rate=0.002,
        max_epochs=arguments.epochs,
        early_stopping=True,
        n_iter_no_change=4,
        random_state=0,
        verbose=2,
    )
    validation = centred(X_val), y_val - mean_day(X_val)
    model.fit(centred(X_train), y_train - mean_day(X_train), eval_set=validation)
    ridge = Ridge(100.0).fit(X_train.reshape(len(X_train), -1), y_train)

    forecasts = {
        "yesterday again": X_test[:, -AHEAD:].reshape(y_test.shape),
        "ridge regression": ridge.predict(X_test.reshape(len(X_test), -1)),
        "GRU": mean_day(X_test) + model.predict(centred(X_test)),
    }
    print(f"{'24 hours ahead, 7 columns':<26} {'MSE':>7} {'MAE':>7}   (standardised)")
    for name, forecast in forecasts.items():
        error = forecast - y_test
        print(f"{name:<26} {np.square(error).mean():7.4f} {np.abs(error).mean():7.4f}")


if __name__ == "__main__":
    main()
