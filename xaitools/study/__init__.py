"""What the notebooks of the studies share; each name is loaded when it is first used."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["words"],
    submod_attrs={
        "claims": ["judge", "margin_verdict", "matched"],
        "leaders": ["Leader", "leader"],
        "explaining": ["explain", "explain_each"],
        "labels": ["method_table", "unique_labels"],
        "manifest": ["read_manifest"],
        "network": ["Trained", "train_or_load", "training_figure"],
        "notebooks": ["notebooks_dir"],
        "promises": ["completeness", "conservation", "correlation_of_maps"],
        "published": ["published_text", "published_values", "read_published"],
        "regression": ["error_and_score", "error_table", "prediction_errors"],
        "run": ["Run"],
        "scores": ["mean_curves", "mean_scores", "per_image", "without_least"],
        "sets": ["sets_table"],
        "show": ["panel_rows", "plain_table", "saved", "say"],
    },
)
