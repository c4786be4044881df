"""What the notebooks of the studies share; each name is loaded when it is first used."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["words"],
    submod_attrs={
        "beside": ["beside_published", "counterparts"],
        "claims": ["judge", "margin_verdict", "matched"],
        "leaders": ["Leader", "leader"],
        "coherence": ["between_runs", "coherence_of_runs", "coherence_of_noise", "steadiest"],
        "explaining": ["explain", "explain_each"],
        "labels": ["method_table", "unique_labels"],
        "network": ["Trained", "train_or_load", "training_figure"],
        "order": ["ahead_in_every_run", "judge_lead"],
        "promises": ["completeness", "conservation", "correlation_of_maps"],
        "published": ["published_text", "published_values", "read_published"],
        "regression": ["error_and_score", "error_table", "prediction_errors"],
        "regions": [
            "Regions",
            "brain_regions",
            "check_top",
            "known_regions",
            "recovered",
            "recovered_table",
            "region_shares",
            "region_sizes",
            "tables_by_anatomy",
            "tables_by_atlas",
        ],
        "run_maps": ["distances", "explain_runs", "run_means", "run_tiles"],
        "runs": [
            "check_runs",
            "in_turn",
            "predicted_classes",
            "predictions_table",
            "repeated_trainings",
            "run_accuracies",
            "runs_to_explain",
        ],
        "scores": ["mean_curves", "mean_scores", "per_image", "without_least"],
        "sets": ["sets_table"],
        "shipped": ["notebooks_dir"],
        "show": ["panel_rows", "plain_table", "saved", "say"],
        "volumes": ["check_methods", "coarser", "coarser_affine", "coronal"],
    },
)
