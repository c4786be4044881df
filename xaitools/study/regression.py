"""How far a network that measures is off, and whether that shows in its maps."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import spearmanr

from xaitools.data import Samples
from xaitools.models import predict_values
from xaitools.study import words
from xaitools.study.network import Trained
from xaitools.study.published import published_text
from xaitools.study.run import Run
from xaitools.study.scores import Scores


def prediction_errors(
    net: Trained,
    samples: Samples,
    *,
    fold: int = 0,
    units: Mapping[str, str] | None = None,
    device: str = "auto",
) -> pd.DataFrame:
    """What a regression network says of each sample, and how far off that is.

    Parameters
    ----------
    net, device
        The network, and where it computes.
    samples
        With a measured quantity as labels.
    fold
        Which fold of a cross-validation this is.
    units
        More units of the error: for each the name of the sample's number that is its length of one unit of
        the labels, ``{"mm": "pixel size (mm)"}``.

    Returns
    -------
    DataFrame
        One row a sample: ``network``, ``fold``, ``sample``, ``truth``, ``predicted``, and the absolute error in
        each unit, as ``error (px)``.
    """
    predicted = predict_values(net.model, samples.images, device=device).numpy().astype(float)
    truth = samples.labels.numpy().astype(float)
    table = pd.DataFrame({"network": net.name, "fold": fold, "sample": samples.names})
    table = table.assign(truth=truth, predicted=predicted)
    table[f"error ({samples.unit})"] = np.abs(predicted - truth)
    for unit, length in (units or {}).items():
        table[f"error ({unit})"] = np.abs(predicted - truth) * samples.numbers[length].numpy().astype(float)
    return table


def error_table(
    run: Run,
    errors: pd.DataFrame,
    nets: Mapping[str, Trained],
    published: pd.DataFrame,
    stands_for: Mapping[str, str],
) -> pd.DataFrame:
    """Mean absolute error of each network in each unit beside the published one; recorded with its deviation.

    Parameters
    ----------
    run
        Where the means and standard deviations are recorded.
    errors
        As :func:`prediction_errors` returns it, of all networks and folds.
    nets
        The networks by name.
    published
        As :func:`~xaitools.study.read_published` returns it.
    stands_for
        The network of the paper for each network.
    """
    rows = []
    for name, own in errors.groupby("network", sort=False):
        row = {"network": name, "started from": nets[str(name)].start, "test images": len(own)}
        for column in errors.columns[errors.columns.str.startswith("error (")]:
            metric, mean, sd = column.replace("error", "MAE"), own[column].mean(), own[column].std()
            run.record(metric=metric, value=mean, model=str(name), n=len(own))
            run.record(metric=f"{metric}, standard deviation", value=sd, model=str(name), n=len(own))
            row[metric] = f"{mean:.1f} ± {sd:.1f}" if mean >= 10 else f"{mean:.2f} ± {sd:.2f}"
        row["published"] = published_text(published, metric="MAE", network=stands_for[str(name)])
        rows.append(row)
    return pd.DataFrame(rows)


def error_and_score(
    run: Run,
    errors: Float[np.ndarray, " n"],
    scores: Scores,
    named: pd.DataFrame,
    *,
    metric: str,
    network: str,
) -> pd.DataFrame:
    """Do maps of badly measured images have lower scores? Means of both halves, and the rank correlation.

    Parameters
    ----------
    run
        Where the correlations are recorded.
    errors
        How far the network is off on each image.
    scores
        ``(n,)`` by full name of the method.
    named
        As :func:`~xaitools.study.method_table` returns it.
    metric
        What the scores are.
    network
        Name of the network.
    """
    better = errors <= np.median(errors)
    rows = []
    for name, values in scores.items():
        found = spearmanr(errors, values)
        full_metric = f"rank correlation of error and {metric}"
        run.record(metric=full_metric, value=found.statistic, model=network, method=name, n=len(errors))
        rows.append(
            {
                "network": network,
                "method": named.at[name, "label"],
                "AUC, better half": f"{values[better].mean():.3f}",
                "AUC, worse half": f"{values[~better].mean():.3f}",
                "rank correlation with the error": f"{found.statistic:+.2f}",
                "p": words.p_value(found.pvalue),
            }
        )
    return pd.DataFrame(rows)
