"""TensorFlow Serving's surface: for each part of it, the test that shows it, or the decision.

A proof is `file::test` below `tests/`, or `DESIGN nnn`: where we differ, and why.
"""

from __future__ import annotations

PREDICTION, MODEL = "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"

RPCS = {
    f"{PREDICTION}.Predict": "e2e/test_predict.py::test_half_plus_two",
    f"{PREDICTION}.Classify": "e2e/test_examples.py::test_classify_gives_labels_and_scores",
    f"{PREDICTION}.Regress": "e2e/test_examples.py::test_regress_takes_either_shape",
    f"{PREDICTION}.MultiInference": (
        "e2e/test_examples.py::test_multi_inference_answers_every_task_in_order"
    ),
    f"{PREDICTION}.GetModelMetadata": "e2e/test_surface.py::test_metadata_and_labels",
    f"{MODEL}.GetModelStatus": (
        "e2e/test_bad_input.py::test_status_and_metadata_of_what_is_not_there"
    ),
    f"{MODEL}.HandleReloadConfigRequest": (
        "e2e/test_reload.py::test_a_reload_returns_when_its_new_models_answer"
    ),
    "tensorflow.serving.SessionService.SessionRun": (
        "e2e/test_surface.py::test_session_run_is_unimplemented"
    ),
    "tensorflow.ProfilerService.Profile": (
        "e2e/test_surface.py::test_a_trace_comes_back_in_the_form_that_tensorflows_client_saves"
    ),
    "tensorflow.ProfilerService.Terminate": (
        "tensorflow/test_profiler.py::test_a_trace_can_be_ended_early"
    ),
}

ROUTES = {
    "POST :predict": "e2e/test_rest.py::test_rows_and_columns_look_as_they_always_did",
    "POST :classify": "e2e/test_rest.py::test_classify_and_regress",
    "POST :regress": "e2e/test_rest.py::test_classify_and_regress",
    "POST /versions/N:predict": "e2e/test_rest.py::test_rows_and_columns_look_as_they_always_did",
    "POST /labels/L:predict": "e2e/test_rest.py::test_a_wrong_request_is_told_what_is_wrong",
    "GET /v1/models": "e2e/test_rest.py::test_status_of_a_model_and_of_all",
    "GET /v1/models/M": "e2e/test_rest.py::test_status_of_a_model_and_of_all",
    "GET /v1/models/M/metadata": "e2e/test_rest.py::test_metadata_is_protobufs_json",
    "GET /labels/L/metadata": "e2e/test_surface.py::test_metadata_and_labels",
    "OPTIONS": "e2e/test_rest.py::test_cors",
    "PUT, DELETE, PATCH, HEAD": "e2e/test_rest.py::test_a_wrong_verb_is_malformed",
    "monitoring path": "e2e/test_rest.py::test_the_monitoring_path_has_tensorflow_servings_page",
    "gzip": "e2e/test_rest.py::test_gzip_both_ways",
    "application/x-protobuf": "e2e/test_rest.py::test_bodies_may_be_the_messages_of_grpc",
    "time-out": "e2e/test_rest.py::test_a_call_that_takes_too_long_is_told_so",
}

_NOTED = "unit/config/test_flags.py::test_notes_tell_what_was_set_and_has_no_effect"
_OPTIONS = "unit/config/test_saved_model.py::test_flags_become_options"
_LIFE = "e2e/test_life_cycle.py"
_SURFACE = "e2e/test_surface.py"
_BATCHING = "e2e/test_batching.py"

FLAGS = {
    "port": "e2e/test_operations.py::test_a_busy_port_is_named",
    "grpc_socket_path": f"{_SURFACE}::test_a_unix_socket_beside_the_port",
    "rest_api_port": "e2e/test_operations.py::test_a_busy_port_is_named",
    "rest_api_num_threads": "e2e/test_rest.py::test_large_bodies_are_read_elsewhere",
    "rest_api_timeout_in_ms": "e2e/test_rest.py::test_a_call_that_takes_too_long_is_told_so",
    "rest_api_enable_cors_support": "e2e/test_rest.py::test_cors",
    "enable_batching": f"{_BATCHING}::test_a_batch_waits_for_its_timer_or_until_it_is_full",
    "allow_version_labels_for_unavailable_models": (
        "e2e/test_reload.py::test_a_new_label_may_wait_for_its_version_where_that_is_allowed"
    ),
    "batching_parameters_file": f"{_BATCHING}::test_batches_are_filled_up_to_allowed_sizes",
    "enable_per_model_batching_parameters": (
        f"{_BATCHING}::test_a_model_may_have_parameters_of_its_own_and_without_is_not_batched"
    ),
    "model_config_file": "e2e/test_reload.py::test_labels_follow_the_matrix",
    "model_config_file_poll_wait_seconds": (
        "e2e/test_reload.py::test_a_polled_file_is_applied_and_a_broken_one_is_not"
    ),
    "model_name": f"{_LIFE}::test_a_new_version_takes_over_without_a_failed_call",
    "model_base_path": f"{_LIFE}::test_a_new_version_takes_over_without_a_failed_call",
    "num_load_threads": "threads/runtime/test_manager.py::test_of_one_thread_loads_take_turns",
    "num_unload_threads": "unit/config/test_flags.py::test_flag",
    "max_num_load_retries": (
        f"{_LIFE}::test_a_version_that_cannot_load_leaves_the_old_one_and_is_tried_again"
    ),
    "load_retry_interval_micros": (
        f"{_LIFE}::test_a_model_that_never_loads_is_unavailable_with_its_error"
    ),
    "file_system_poll_wait_seconds": (
        "threads/sources/test_file_system.py::test_polling_finds_what_no_event_told"
    ),
    "flush_filesystem_caches": _NOTED,
    "tensorflow_session_parallelism": _OPTIONS,
    "tensorflow_session_config_file": (
        "tensorflow/test_saved_model_sessions.py::"
        "test_what_an_operator_says_of_sessions_is_in_their_config"
    ),
    "tensorflow_intra_op_parallelism": (
        "tensorflow/test_saved_model_sessions.py::"
        "test_a_session_has_the_threads_that_were_asked_for"
    ),
    "tensorflow_inter_op_parallelism": _OPTIONS,
    "use_alts_credentials": "unit/config/test_flags.py::test_flags_that_do_not_go_together",
    "ssl_config_file": f"{_SURFACE}::test_both_ports_can_be_encrypted",
    "platform_config_file": (
        "unit/config/test_saved_model.py::"
        "test_a_platform_file_replaces_the_flags_that_it_stands_for"
    ),
    "per_process_gpu_memory_fraction": (
        "tensorflow/test_saved_model_sessions.py::"
        "test_what_an_operator_says_of_sessions_is_in_their_config"
    ),
    "saved_model_tags": _OPTIONS,
    "grpc_channel_arguments": f"{_SURFACE}::test_channel_arguments_are_grpcios",
    "grpc_max_threads": "unit/config/test_flags.py::test_flag",
    "enable_model_warmup": "e2e/test_warm_up_and_logs.py::test_it_can_be_switched_off",
    "num_request_iterations_for_warmup": (
        "threads/runtime/test_recorded.py::test_each_record_is_run_as_often_as_asked"
    ),
    "version": "e2e/test_image.py::test_the_image_is_small_and_owned_as_it_should_be",
    "monitoring_config_file": (
        "e2e/test_rest.py::test_the_monitoring_path_has_tensorflow_servings_page"
    ),
    "remove_unused_fields_from_bundle_metagraph": _NOTED,
    "prefer_tflite_model": (
        "e2e/test_warm_up_and_logs.py::"
        "test_a_tf_lite_model_is_served_and_warmed_up_where_it_is_preferred"
    ),
    "num_tflite_pools": (
        "tensorflow/test_tflite.py::test_num_tflite_pools_times_interpreters_of_each"
    ),
    "num_tflite_interpreters_per_pool": (
        "tensorflow/test_tflite.py::test_num_tflite_pools_times_interpreters_of_each"
    ),
    "enable_signature_method_name_check": (
        f"{_SURFACE}::test_the_method_of_a_signature_is_checked_where_that_is_asked_for"
    ),
    "xla_cpu_compilation_enabled": _NOTED,
    "xla_gpu_compilation_enabled": _NOTED,
    "enable_profiler": f"{_SURFACE}::test_without_the_profiler_its_service_is_not_there",
    "thread_pool_factory_config_file": (
        "unit/config/test_flags.py::test_flags_that_do_not_go_together"
    ),
    "mixed_precision": _NOTED,
    "skip_initialize_tpu": _NOTED,
    "enable_grpc_healthcheck_service": "e2e/test_operations.py::test_health",
    "enable_serialization_as_tensor_content": (
        f"{_SURFACE}::test_answers_as_content_over_grpc_and_as_ever_over_rest"
    ),
}

_MODELS = "unit/config/test_models.py::test_model_fields"
_WRONG_MODELS = "unit/config/test_models.py::test_wrong_models"
_PLATFORM = "unit/config/test_saved_model.py::test_platform_fields"
_NO_EFFECT = "unit/config/test_saved_model.py::test_fields_without_effect_are_logged"
_BATCH_FIELDS = "unit/wire/test_config_messages.py::test_batching_fields"
_TLS = "unit/wire/test_config_messages.py::test_tls"

FIELDS = {
    "ModelServerConfig.model_config_list": _MODELS,
    "ModelServerConfig.custom_model_config": _WRONG_MODELS,
    "ModelConfigList.config": _MODELS,
    "ModelConfig.name": _WRONG_MODELS,
    "ModelConfig.base_path": _WRONG_MODELS,
    "ModelConfig.model_type": _WRONG_MODELS,
    "ModelConfig.model_platform": _WRONG_MODELS,
    "ModelConfig.model_version_policy": _MODELS,
    "ModelConfig.version_labels": "e2e/test_reload.py::test_labels_follow_the_matrix",
    "ModelConfig.logging_config": (
        "e2e/test_warm_up_and_logs.py::test_every_call_is_a_record_that_warms_up_the_next_version"
    ),
    "LoggingConfig.log_collector_config": _MODELS,
    "LoggingConfig.sampling_config": _MODELS,
    "LoggingConfig.custom_logging_config": _WRONG_MODELS,
    "SSLConfig.server_key": _TLS,
    "SSLConfig.server_cert": _TLS,
    "SSLConfig.custom_ca": f"{_SURFACE}::test_clients_can_be_made_to_show_a_certificate",
    "SSLConfig.client_verify": f"{_SURFACE}::test_clients_can_be_made_to_show_a_certificate",
    "MonitoringConfig.prometheus_config": "unit/wire/test_config_messages.py::test_monitoring",
    "PrometheusConfig.enable": "unit/wire/test_config_messages.py::test_monitoring",
    "PrometheusConfig.path": "unit/wire/test_config_messages.py::test_monitoring",
    "PlatformConfigMap.platform_configs": "unit/config/test_saved_model.py::test_wrong_platform",
    "PlatformConfig.source_adapter_config": "unit/config/test_saved_model.py::test_wrong_platform",
    "ThreadPoolFactoryConfig.thread_pool_factory_config": (
        "unit/config/test_flags.py::test_flags_that_do_not_go_together"
    ),
    "BatchingParameters.max_batch_size": (
        f"{_BATCHING}::test_a_request_may_be_too_large_or_be_split"
    ),
    "BatchingParameters.batch_timeout_micros": (
        f"{_BATCHING}::test_a_batch_waits_for_its_timer_or_until_it_is_full"
    ),
    "BatchingParameters.max_enqueued_batches": (
        "unit/core/test_queue.py::test_tensorflow_servings_texts"
    ),
    "BatchingParameters.num_batch_threads": (
        f"{_BATCHING}::test_a_batch_waits_for_its_timer_or_until_it_is_full"
    ),
    "BatchingParameters.thread_pool_name": _BATCH_FIELDS,
    "BatchingParameters.enable_large_batch_splitting": (
        f"{_BATCHING}::test_a_request_may_be_too_large_or_be_split"
    ),
    "BatchingParameters.max_execution_batch_size": (
        f"{_BATCHING}::test_a_request_may_be_too_large_or_be_split"
    ),
    "BatchingParameters.allowed_batch_sizes": (
        f"{_BATCHING}::test_batches_are_filled_up_to_allowed_sizes"
    ),
    "BatchingParameters.pad_variable_length_inputs": (
        f"{_BATCHING}::test_variable_lengths_are_padded_and_stay_so"
    ),
    "ModelWarmupOptions.num_request_iterations": _PLATFORM,
    "ModelWarmupOptions.num_model_warmup_threads": _PLATFORM,
    "ModelWarmupOptions.model_name": _NO_EFFECT,
    "ModelWarmupOptions.model_version": _NO_EFFECT,
    "ModelWarmupOptions.enable_all_batch_sizes_warmup": _NO_EFFECT,
    "SavedModelBundleSourceAdapterConfig.legacy_config": _PLATFORM,
    **{
        f"SessionBundleConfig.{name}": _PLATFORM
        for name in (
            "session_config",
            "batching_parameters",
            "saved_model_tags",
            "enable_model_warmup",
            "model_warmup_options",
            "prefer_tflite_model",
            "num_tflite_interpreters_per_pool",
            "num_tflite_pools",
            "enable_per_model_batching_params",
        )
    },
    **{
        f"SessionBundleConfig.{name}": _NO_EFFECT
        for name in (
            "in_graph_batching_parameters",
            "session_run_load_threadpool_index",
            "experimental_transient_ram_bytes_during_load",
            "experimental_fixed_input_tensors",
            "enable_session_metadata",
            "remove_unused_fields_from_bundle_metagraph",
            "resource_estimation_uses_validation_result",
            "num_tflite_interpreters",
            "wrap_session_with_no_threading_params",
            "mixed_precision",
        )
    },
    "SessionBundleConfig.session_target": "unit/config/test_saved_model.py::test_wrong_platform",
    "SessionBundleConfig.enable_saved_model_config": (
        "unit/config/test_saved_model.py::test_what_tensorflow_serving_lacks_as_well"
    ),
}

_TENSORS = "unit/wire/test_json_tensors.py"
_RESULTS = "unit/wire/test_json_results.py"
_BAD = "e2e/test_bad_input.py::test_a_wrong_request_is_told_what_is_wrong"
_REST = "e2e/test_rest.py"
_EXAMPLES = "e2e/test_examples.py"
_RELOAD = "e2e/test_reload.py"
_WARM = "threads/runtime/test_recorded.py"

EDGES = {
    "1": "DESIGN 019",
    "2": f"{_REST}::test_numbers_that_json_lacks_travel_bare",
    "3": f"{_TENSORS}::test_which_type_takes_which_value",
    "4": f"{_TENSORS}::test_values",
    "5": "unit/wire/test_json_text.py::test_depth_has_no_limit",
    "6": f"{_TENSORS}::test_depth_elsewhere_does_not_matter",
    "7": f"{_TENSORS}::test_base64_counts_as_a_value",
    "8": f"{_RESULTS}::test_the_suffix_alone_does_not_make_bytes",
    "9": f"{_TENSORS}::test_errors_of_one_input",
    "10": f"{_TENSORS}::test_errors_of_two_inputs",
    "11": f"{_TENSORS}::test_formats_of_one_input",
    "12": f"{_RESULTS}::test_rows_need_a_dimension",
    "13": f"{_RESULTS}::test_rows_must_be_as_many",
    "14": "unit/wire/test_json_examples.py::test_errors_of_a_feature",
    "15": f"{_REST}::test_classify_and_regress",
    "16": f"{_RESULTS}::test_error",
    "17": f"{_REST}::test_a_wrong_request_is_told_what_is_wrong",
    "18": f"{_REST}::test_rows_and_columns_look_as_they_always_did",
    "19": f"{_REST}::test_a_version_that_is_no_number_of_64_bits_has_no_document",
    "20": f"{_REST}::test_a_wrong_request_is_told_what_is_wrong",
    "21": f"{_REST}::test_status_of_a_model_and_of_all",
    "22": f"{_REST}::test_metadata_is_protobufs_json",
    "23": "e2e/test_predict.py::test_the_answer_says_who_answered",
    "24": f"{_SURFACE}::test_the_method_of_a_signature_is_checked_where_that_is_asked_for",
    "25": "tensorflow/test_saved_model_sessions.py::test_a_signature_without_inputs_can_be_called",
    "26": _BAD,
    "27": _BAD,
    "28": _BAD,
    "29": f"{_SURFACE}::test_the_method_of_a_signature_is_checked_where_that_is_asked_for",
    "30": f"{_EXAMPLES}::test_an_examples_own_features_win_over_the_contexts",
    "31": f"{_EXAMPLES}::test_a_wrong_classification_is_told_what_is_wrong",
    "32": f"{_EXAMPLES}::test_a_model_may_have_scores_or_labels_alone",
    "33": f"{_EXAMPLES}::test_a_wrong_regression_is_told_what_is_wrong",
    "34": f"{_EXAMPLES}::test_a_wrong_multi_inference_is_told_what_is_wrong",
    "35": "e2e/test_bad_input.py::test_status_and_metadata_of_what_is_not_there",
    "36": "unit/core/test_history.py::"
    "test_of_model_has_the_last_state_of_each_version_newest_version_first",
    "37": f"{_RELOAD}::test_a_reload_returns_when_its_new_models_answer",
    "38": f"{_RELOAD}::test_a_reload_returns_when_its_new_models_answer",
    "39": f"{_RELOAD}::test_a_reload_returns_when_its_new_models_answer",
    "40": "DESIGN 028",
    "41": "unit/core/test_history.py::"
    "test_a_waiter_fires_once_iff_every_model_reached_the_goal_or_has_ended",
    "42": f"{_RELOAD}::test_a_new_label_may_wait_for_its_version_where_that_is_allowed",
    "43": "unit/core/test_lookup_errors.py::test_not_found_keeps_a_version_of_zero",
    "44": f"{_RELOAD}::test_a_wrong_reload_changes_nothing",
    "45": "unit/core/test_versions.py::test_every_version_reads_back_whatever_its_leading_zeros",
    "46": "threads/sources/test_file_system.py::"
    "test_a_base_path_that_becomes_empty_is_a_statement_without_versions",
    "47": f"{_LIFE}::test_a_version_that_cannot_load_leaves_the_old_one_and_is_tried_again",
    "48": f"{_LIFE}::test_removing_the_newest_version_brings_the_older_one_back",
    "49": f"{_LIFE}::test_a_model_that_never_loads_is_unavailable_with_its_error",
    "50": f"{_WARM}::test_a_record_too_many_is_run_and_fails_the_load",
    "51": "e2e/test_warm_up_and_logs.py::test_a_warm_up_that_fails_fails_the_load",
    "52": f"{_BATCHING}::test_a_model_may_have_parameters_of_its_own_and_without_is_not_batched",
    "53": f"{_BATCHING}::test_sizes_that_do_not_end_in_the_largest_are_refused",
    "54": f"{_BATCHING}::test_variable_lengths_are_padded_and_stay_so",
    "55": "DESIGN 030",
    "56": f"{_BATCHING}::test_a_request_may_be_too_large_or_be_split",
    "57": "DESIGN 030",
    "58": "unit/observability/test_serving_families.py::test_a_page",
    "59": f"{_REST}::test_gzip_both_ways",
    "60": f"{_REST}::test_the_monitoring_path_has_tensorflow_servings_page",
    "61": f"{_RELOAD}::test_a_polled_file_is_applied_and_a_broken_one_is_not",
    "62": "e2e/test_operations.py::test_a_bad_configuration_file_is_named",
    "63": f"{_SURFACE}::test_channel_arguments_are_grpcios",
    "64": f"{_SURFACE}::test_a_unix_socket_beside_the_port",
    "65": "unit/wire/test_config_files.py::test_white_space_is_an_empty_message",
    "66": "DESIGN 028",
    "67": "DESIGN 028",
    "68": f"{_SURFACE}::test_a_trace_comes_back_in_the_form_that_tensorflows_client_saves",
    "a": "unit/frontends/test_status_codes.py::test_texts_are_cut_as_tensorflow_serving_cuts_them",
    "b": f"{_REST}::test_a_wrong_request_is_told_what_is_wrong",
    "c": f"{_REST}::test_status_of_a_model_and_of_all",
    "d": f"{_REST}::test_a_wrong_request_is_told_what_is_wrong",
    "e": f"{_REST}::test_a_wrong_request_is_told_what_is_wrong",
    "f": f"{_REST}::test_a_version_that_is_no_number_of_64_bits_has_no_document",
    "g": f"{_REST}::test_cors",
    "h": f"{_TENSORS}::test_formats_of_two_inputs",
    "i": f"{_TENSORS}::test_values",
    "j": f"{_TENSORS}::test_types_that_json_does_not_have",
    "k": f"{_TENSORS}::test_errors_of_two_inputs",
    "l": "DESIGN 028",
    "m": "DESIGN 021",
    "n": "DESIGN 022",
    "o": "DESIGN 003",
    "p": "DESIGN 028",
    "q": "DESIGN 028",
    "r": "DESIGN 028",
    "s": "DESIGN 028",
    "t": f"{_SURFACE}::test_answers_as_content_over_grpc_and_as_ever_over_rest",
    "u": "e2e/test_operations.py::test_health",
    "v": "unit/observability/test_serving_families.py::test_a_page",
    "w": "unit/observability/test_serving_families.py::test_a_page",
    "x": "e2e/test_operations.py::test_reflection",
    "y": f"{_RELOAD}::test_a_reload_returns_when_its_new_models_answer",
    "z": "e2e/test_predict.py::test_metadata_shows_tensorflows_own_signature_too",
}
"""Section 7 of the reference: pinned by tests there (numbers), and read from code (letters)."""
