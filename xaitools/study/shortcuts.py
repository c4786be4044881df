"""What is published of the study of shortcuts, beside what a run finds."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from torch import Tensor

from xaitools.data import Volumes, brain_volumes
from xaitools.evaluation import paired_difference, verdict
from xaitools.models import log_odds, predict_values
from xaitools.study import words
from xaitools.study.baselines import PLAIN, Compared
from xaitools.study.cam_shares import MeanCams
from xaitools.study.contexts import Contexts
from xaitools.study.known_signal import KnownSignal
from xaitools.study.network import train_or_load
from xaitools.study.preprocessing import RESIZED, Judged, Preprocessing
from xaitools.study.run import Run
from xaitools.study.size_controls import score_against

SMOOTHGRAD, GRAD_CAM = "gradient+smoothgrad", "grad_cam"
WHOLE, STRIPPED, OPTIMAL = "none", "skull stripped", "skull stripped, optimal scaling"


def short_name(preprocessing: str) -> str:
    """The name of a preprocessing for a figure: "+ rotation" for "skull stripped, rotation"."""
    return preprocessing.replace(f"{STRIPPED}, ", "+ ")


def beside_slides(table: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """The slides' table beside that of this run, as texts: mean and, in brackets, standard deviation over the folds.

    Parameters
    ----------
    table
        As :func:`~xaitools.study.preprocessing_table` returns it.
    published
        As :func:`~xaitools.study.read_published` returns it.
    """
    printed = published.set_index("metric")
    rows = []
    for own in table.to_dict("records"):
        name = own["preprocessing"]
        row = {"preprocessing": name}
        for part in ("training", "validation", RESIZED):
            row[part] = _with_sd(own.get(part), own.get(f"{part}, sd"))
        for part in ("training", "validation"):
            metric = f"{part} accuracy, {name}"
            known = printed.loc[metric] if metric in printed.index else {"value": None, "sd": None}
            row[f"slides, {part}"] = _with_sd(known["value"], known["sd"])
        rows.append(row)
    return pd.DataFrame(rows)


def shares_view(shares: pd.DataFrame) -> pd.DataFrame:
    """Shares of the explanations by preprocessing as texts, "31 % (26 to 36)", the last row that of an even map.

    Parameters
    ----------
    shares
        As :func:`~xaitools.study.shares_table` returns it.
    """
    rows = []
    for name, own in shares.groupby("preprocessing", sort=False):
        cells = {
            row.part: f"{100 * row.share:.0f} % ({100 * row.low:.0f} to {100 * row.high:.0f})"
            for row in own.itertuples()
        }
        rows.append({"preprocessing": name, **cells})
    even = shares.groupby("part", sort=False)["volume"].mean()
    rows.append(
        {"preprocessing": "an even map", **{part: f"{100 * value:.0f} %" for part, value in even.items()}}
    )
    return pd.DataFrame(rows)


def controls_table(controls: pd.DataFrame) -> pd.DataFrame:
    """The controls of all preprocessings, one a row, with what each was measured on."""
    wide = controls.pivot(index="preprocessing", columns="control", values="value")
    order = [name for name in controls["control"].unique() if name in wide]
    return wide.loc[controls["preprocessing"].unique(), order].rename_axis(columns=None).reset_index()


def scores_beside_volume(
    run: Run,
    prepared: Mapping[str, Preprocessing],
    nets: Mapping[str, Contexts],
    *,
    network: str,
    device: str = "auto",
) -> pd.DataFrame:
    """How far the network's score follows the volume of the brain, by preprocessing: Spearman's correlation; recorded.

    Each head is judged by the network that was not trained with it, as it is.

    Parameters
    ----------
    run
        Where the correlations are recorded.
    prepared, nets
        By name of the preprocessing.
    network
        Name of the network.
    device
        Of `xaitools.models.predict_values`.

    Returns
    -------
    DataFrame
        A row a preprocessing: ``preprocessing``, ``all heads``, and a column for each class, among whose heads alone
        the correlation is; there the class itself cannot make it.
    """
    rows = []
    for name, own in prepared.items():
        scores = np.zeros(len(own.heads))
        for context, net in nets[name].items():
            fold = own.folds[context.fold - 1]
            place = next(net.model.parameters()).device
            odds = log_odds(net.model, fold.validation.images[[0]].to(place))
            scores[fold.shown] = predict_values(odds, fold.validation.images, device=device).numpy()
        sizes, labels = brain_volumes(own.heads), own.heads.labels.numpy()
        groups = {"all heads": np.ones(len(labels), dtype=bool)}
        groups |= {group: labels == number for number, group in enumerate(own.heads.class_names)}
        row: dict[str, Any] = {"preprocessing": name}
        for group, chosen in groups.items():
            found = score_against({"volume": sizes[chosen]}, scores[chosen]).set_index("measure")["score"]
            row[group] = float(found["Spearman"])
            run.record(
                metric=f"score against brain volume, Spearman, {group}",
                value=row[group],
                method=name,
                model=network,
                n=int(chosen.sum()),
            )
        rows.append(row)
    return pd.DataFrame(rows)


def others_beside_volume(
    run: Run, model: str, heads: Volumes, *, network: str = "", device: str = "auto"
) -> pd.DataFrame:
    """How the score of a network that somebody else trained goes with the class and the volume of the brain; recorded.

    Parameters
    ----------
    run
        Where it is recorded.
    model
        A weights file of `network`, or ``package.module:factory``; its classes in the order of those of the heads.
    heads
        All heads, as the network is to be asked, with label maps.
    network
        Name of the architecture, for a weights file.
    device
        Of `xaitools.models.predict_values`.

    Returns
    -------
    DataFrame
        ``what``, ``measure`` ("AUC", "Pearson", "Spearman"), ``value``, ``n``: the log-odds of the second class against
        the class and the volume, among all heads and among those of each class, and the AUC of the volume alone.
    """
    net = train_or_load(model, network, heads, heads, device=device)
    place = next(net.model.parameters()).device
    odds = log_odds(net.model, heads.images[[0]].to(place))
    scores = predict_values(odds, heads.images, device=device).numpy()
    sizes, labels = brain_volumes(heads), heads.labels.numpy()
    found = [score_against({f"its score, {heads.class_names[1]} or not": labels}, scores)]
    found.append(score_against({f"the volume alone, {heads.class_names[1]} or not": labels}, sizes))
    found.append(score_against({"its score and the volume, all heads": sizes}, scores))
    for number, name in enumerate(heads.class_names):
        own = labels == number
        found.append(score_against({f"its score and the volume, {name} alone": sizes[own]}, scores[own]))
    table = pd.concat(found, ignore_index=True).rename(columns={"value": "what", "score": "value"})
    for row in table.itertuples():
        run.record(metric=f"{row.what}, {row.measure}", value=row.value, model=net.name, n=row.n)
    return table


def shortcut_claims(
    run: Run,
    labels: Int[Tensor, " n"],
    judged: Mapping[str, Judged],
    cams: Mapping[str, MeanCams],
    compared: Compared,
    known: Sequence[KnownSignal] = (),
    *,
    seed: int = 0,
) -> list[dict[str, str]]:
    """Claim by claim, what is published, and whether this run bears it out.

    Accuracies are compared head by head, each judged by networks that were not trained with it; explanations head by
    head too.

    Parameters
    ----------
    run
        Where the differences and their bounds are recorded.
    labels
        The classes of all heads.
    judged, cams
        By name of the preprocessing, as :func:`~xaitools.study.preprocessing_accuracies` and
        :func:`~xaitools.study.mean_cams` return them.
    compared
        As :func:`~xaitools.study.compare_classifiers` returns it.
    known
        Tests of known signal, for the claims of Siegel et al. 2025.
    seed
        Of the bootstrap.
    """
    truth = labels.numpy()
    right = {name: 100.0 * (own.predicted == truth) for name, own in judged.items()}
    answers: dict[str, Any] = {"metric": "right answers", "unit": "points", "digits": 0}
    rows = [
        _row(
            run,
            f"{claim} (slides: {numbers})",
            f"{one} − {other}",
            right.get(one),
            right.get(other),
            seed,
            **answers,
        )
        for claim, numbers, one, other in (
            ("without the skull the network is worse", "0.976, 0.916", WHOLE, STRIPPED),
            ("turned heads make it better", "0.933, 0.916", f"{STRIPPED}, rotation", STRIPPED),
            (
                "turned and resized heads make it better",
                "0.964, 0.916",
                f"{STRIPPED}, rotation and scaling",
                STRIPPED,
            ),
            ("optimal scaling makes it better", "0.984, 0.916", OPTIMAL, STRIPPED),
        )
    ]
    svm = {name: 100.0 * own for name, own in compared.right.items()}
    linear = next((name for name in svm if "SVM" in name), "")
    rows.append(
        _row(
            run,
            "the network is ahead of an SVM on voxels (authors' paper: 91.9, 90.0 %)",
            "network − SVM",
            svm[PLAIN],
            svm.get(linear),
            seed,
            **answers,
        )
    )
    rows += _where(run, cams, seed)
    return rows + [row for own in known for row in _pointing(run, own, seed)]


def _where(run: Run, cams: Mapping[str, MeanCams], seed: int) -> list[dict[str, str]]:
    """The slides' three pictures, in shares of the explanations."""
    shares = {
        name: own.shares.pivot(index="sample", columns="part", values="share") for name, own in cams.items()
    }
    volumes = {
        name: own.shares.pivot(index="sample", columns="part", values="volume") for name, own in cams.items()
    }
    percent: dict[str, Any] = {"metric": "share of the explanation", "unit": "points", "digits": 0}

    def of(tables: Mapping[str, pd.DataFrame], name: str, part: str) -> pd.Series | None:
        return 100 * tables[name][part] if name in tables and len(tables[name]) else None

    return [
        _row(
            run, "on heads as they are, the network looks at the face (nasopharynx, larynx)",
            "share in the face − its share of the volume",
            of(shares, WHOLE, "face"), of(volumes, WHOLE, "face"), seed, **percent,
        ),
        _row(
            run, "without the skull, it looks at the size of the brain",
            "share at the rim − its share of the volume",
            of(shares, STRIPPED, "rim"), of(volumes, STRIPPED, "rim"), seed, **percent,
        ),
        _row(
            run, "with optimal scaling, it looks at brain structures only",
            "share inside, optimal scaling − skull stripped",
            of(shares, OPTIMAL, "inside"), of(shares, STRIPPED, "inside"), seed, **percent,
        ),
    ]  # fmt: skip


def _pointing(run: Run, known: KnownSignal, seed: int) -> list[dict[str, str]]:
    """Siegel et al. 2025, for each target that the network has learned."""
    rows = []
    for error in known.errors.to_dict("records"):
        auc = known.images[known.images["target"] == error["target"]].pivot(
            index="image", columns="method", values="auc"
        )
        names = [name for name in auc if name.startswith(GRAD_CAM) and "untrained" not in name]
        claim = f"SmoothGrad points at the place better than Grad-CAM (Siegel et al. 2025): {error['target']}"
        both = SMOOTHGRAD in auc and names and error["learned"]
        rows.append(
            _row(
                run,
                claim,
                "AUC, SmoothGrad − Grad-CAM",
                auc[SMOOTHGRAD] if both else None,
                auc[names[0]] if both else None,
                seed,
                metric=f"AUC, {error['target']}",
                unit="",
                digits=2,
                reason="" if error["learned"] else "the network has not learned this target",
            )
        )
    return rows


def _row(
    run: Run,
    claim: str,
    difference: str,
    larger: Float[np.ndarray, " n"] | pd.Series | None,
    smaller: Float[np.ndarray, " n"] | pd.Series | None,
    seed: int,
    *,
    metric: str,
    unit: str,
    digits: int,
    reason: str = "not measured in this run",
) -> dict[str, str]:
    """A row of the table of claims: the claim is that `larger` is the larger one."""
    if larger is None or smaller is None:
        return {
            "published": claim,
            "this run": "",
            "verdict": f"not tested: {reason}" if reason else words.MISSING,
        }
    if isinstance(larger, pd.Series) and isinstance(smaller, pd.Series):
        larger, smaller = (own.to_numpy() for own in larger.align(smaller, join="inner"))
    pairs = np.stack([np.asarray(larger, dtype=np.float64), np.asarray(smaller, dtype=np.float64)])
    pairs = pairs[:, np.isfinite(pairs).all(axis=0)]
    found = paired_difference(*pairs, seed=seed)
    run.record_interval(found, metric=f"difference: {metric}: {difference}", n=pairs.shape[1])
    size = words.interval(found.mean, found.low, found.high, f"+.{digits}f", unit)
    return {"published": claim, "this run": f"{difference}: {size}", "verdict": verdict(found)}


def _with_sd(value: float | None, sd: float | None) -> str:
    if value is None or not np.isfinite(value):
        return ""
    return f"{value:.3f}" if sd is None or not np.isfinite(sd) else f"{value:.3f} ({sd:.3f})"
