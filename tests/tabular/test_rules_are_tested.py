"""What naive implementations of tables get wrong, and the tests that hold it here.

Each rule of the list of known mistakes names its tests; a test that is renamed has to be renamed
here too.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

RULES: dict[str, dict[str, tuple[str, ...]]] = {
    "splits keep the class proportions; a single row of a class is in train": {
        "core/data/test_split.py": (
            "test_stratified_keeps_class_proportions_within_one_row",
            "test_a_single_row_of_a_class_stays_in_train_and_is_noted",
        ),
        "core/data/test_targets.py": ("test_a_class_without_train_rows_is_named",),
    },
    "copies of rows, and groups, over the parts; dated rows with a random split": {
        "core/doctor/test_target_and_leak_checks.py": (
            "test_copies_of_train_rows_in_valid",
            "test_patients_in_train_and_valid",
        ),
        "tabular/test_doctor.py": (
            "test_groups_in_train_and_valid",
            "test_dated_rows_with_a_random_split",
        ),
    },
    "imbalance: its figure, other scores than accuracy, balanced weights": {
        "core/doctor/test_target_and_leak_checks.py": (
            "test_accuracy_as_the_only_metric_of_a_large_class",
        ),
        "core/task/test_metrics.py": ("test_label_metrics_against_scikit_learn",),
    },
    "no overflow of small integers, codes or units of time": {
        "core/data/test_split.py": ("test_counted_codes_are_those_of_sorting",),
        "tabular/test_category_column.py": (
            "test_the_smallest_type_holds_all_codes",
            "test_large_integers_are_exact",
        ),
        "tabular/test_date_column.py": ("test_every_type_and_unit_gives_the_same_numbers",),
        "core/data/test_targets.py": ("test_large_regression_targets_stay_distinct",),
    },
    "categories are matched by value: 1, 1.0 and '1'; order of ordered ones": {
        "tabular/test_category_column.py": (
            "test_categories_are_compared_by_value_and_not_by_position",
            "test_one_is_the_same_category_in_every_type",
            "test_booleans_in_every_form",
            "test_ordered_categories_keep_their_order",
        ),
        "tabular/test_table_spec.py": (
            "test_every_library_and_type_gives_the_same_spec_and_tensors",
            "test_polars_and_duckdb_give_the_same_spec",
        ),
    },
    "missing and infinite cells, columns without a value or with one": {
        "tabular/test_scaling.py": (
            "test_missing_numbers_are_filled_with_the_median_and_flagged",
            "test_missing_only_at_prediction_is_filled_with_one_warning",
            "test_a_constant_column_is_zero",
        ),
        "tabular/test_bad_tables.py": (
            "test_what_is_read_has_a_kind_and_trains",
            "test_guesses_are_made_with_a_warning",
        ),
    },
    "scaling, filling, codes and edges are those of scikit-learn and numpy": {
        "tabular/test_scaling.py": (
            "test_standard_scaling",
            "test_robust_scaling_and_smooth_clip",
            "test_quantile_scaling",
            "test_edges_are_quantiles_of_the_train_rows",
        ),
        "tabular/test_category_column.py": (
            "test_codes_are_those_of_the_ordinal_encoder_plus_two",
        ),
        "tabular/test_number_embedding.py": ("test_edges_equal_those_of_kbinsdiscretizer",),
    },
    "one-hot inputs are those of scikit-learn": {
        "tabular/test_category_embedding.py": ("test_one_hot_equals_scikit_learns",),
    },
    "targets: standardised inside, scored in their units; missing and infinite ones": {
        "core/task/test_regression.py": ("test_metrics_and_predictions_use_the_target_units",),
        "tabular/test_data.py": (
            "test_rows_without_a_target_are_left_out_and_counted",
            "test_bad_targets_are_refused",
        ),
        "tabular/test_bad_tables.py": (
            "test_the_same_cells_in_another_form_give_the_same_predictions",
        ),
    },
    "columns that give the target away, that name rows, or are missing at prediction": {
        "tabular/test_doctor.py": (
            "test_columns_that_predict_the_target_alone",
            "test_columns_that_number_or_name_rows",
            "test_inputs_named_like_the_target",
            "test_columns_that_are_missing_in_another_part",
            "test_clean_tables_have_no_findings",
        ),
    },
    "parts of dates are those of pandas, for every unit, zone and missing date": {
        "tabular/test_date_column.py": (
            "test_parts_are_those_of_pandas",
            "test_time_zones_are_converted_to_utc",
            "test_cycles_and_elapsed_time",
            "test_missing_dates_are_filled_and_flagged",
        ),
    },
    "batches of one row, seeds of workers, runs that are resumed": {
        "tabular/test_table_models.py": ("test_any_columns_and_batch_sizes",),
        "core/data/test_worker_loader.py": (
            "test_seeds_depend_on_epoch_and_step_and_are_restored",
        ),
        "core/survival/test_kill.py": ("test_a_killed_and_resumed_run_equals",),
    },
    "the best epoch is kept, and probabilities are calibrated": {
        "core/training/test_best_epoch.py": (
            "test_a_run_ends_with_the_weights_of_the_best_evaluation",
        ),
        "core/task/test_refined_log_loss.py": ("test_the_plan_keeps_the_best_epoch",),
        "core/task/test_probability_calibration.py": ("test_temperature_of_classes_equals_scipy",),
    },
    "order and types of the input do not matter; valid rows change nothing; no frame changes": {
        "tabular/test_table_spec.py": (
            "test_the_order_of_the_rows_changes_nothing",
            "test_rows_that_are_not_for_training_change_nothing",
            "test_frames_are_not_changed",
        ),
        "tabular/test_data.py": ("test_valid_rows_do_not_change_what_is_fitted",),
        "tabular/test_bad_tables.py": (
            "test_data_in_another_order_and_other_types_are_fitted_alike",
        ),
        "tabular/test_columns_properties.py": ("test_numbers_do_not_depend_on_their_order",),
    },
    "unseen levels, missing batches, empty frames, single rows, other columns": {
        "tabular/test_table_spec.py": ("test_unseen_and_missing_cells_at_prediction",),
        "tabular/test_bad_tables.py": (
            "test_empty_frames_single_rows_and_missing_categories",
            "test_rows_that_cannot_be_used_are_refused_by_name",
        ),
    },
    "scores are those of scikit-learn": {
        "core/task/test_metrics.py": ("test_numbers_against_scikit_learn",),
        "core/task/test_probability_metrics.py": ("test_classes_equal_scikit_learn",),
    },
    "TabM, PLR and PLE are the published equations and the authors' modules": {
        "tabular/test_tabm.py": (
            "test_equal_members_are_one_mlp",
            "test_member_layers_are_separate_linear_layers",
            "test_the_loss_is_the_mean_of_the_members_losses",
            "test_classes_average_probabilities",
            "test_outputs_equal_those_of_the_authors",
        ),
        "tabular/test_number_embedding.py": (
            "test_plr_equals_the_published_equation",
            "test_ple_equals_the_authors_module",
        ),
    },
    "an epoch is a permutation, the same for a seed, also from its middle": {
        "core/data/test_memory_loader.py": (
            "test_the_loader_contract_holds",
            "test_shuffled_order_is_randperm_of_the_key",
            "test_more_batches_than_a_chunk_of_index_views",
        ),
    },
    "the models learn XOR, a checkerboard, spirals and a linear function": {
        "tabular/test_model_learning.py": (
            "test_the_mlp_learns_xor",
            "test_the_mlp_learns_a_checkerboard",
            "test_periodic_embeddings_learn_spirals_that_plain_numbers_do_not",
            "test_without_hidden_layers_the_mlp_recovers_a_linear_function",
        ),
    },
}


@cache
def names_of_tests(file: Path) -> list[str]:
    return re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE)


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_has_its_tests(rule: str) -> None:
    for path, wanted in RULES[rule].items():
        names = names_of_tests(TESTS / path)
        missing = [part for part in wanted if not any(part in name for name in names)]
        assert not missing, f"{path} has no test {missing}"
