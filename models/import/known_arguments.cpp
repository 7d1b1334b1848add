#include "models/import/known_arguments.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <vector>

#include "models/vocab/error.hpp"

namespace headway::inline importing {
namespace {

// Names as in Megatron-LM's megatron/training/arguments.py and the dataclasses that it is generated
// from (TransformerConfig, ModelParallelConfig), read 2026-11; apart by blanks.

constexpr std::string_view kRead =
    " num_layers mtp_num_layers hidden_size ffn_hidden_size num_attention_heads "
    "group_query_attention "
    "num_query_groups kv_channels seq_length vocab_size padded_vocab_size "
    "make_vocab_size_divisible_by tokenizer_type untie_embeddings_and_output_weights swiglu "
    "quick_geglu squared_relu add_bias_linear use_transformer_engine_op_fuser bf16 fp16 "
    "window_size window_attn_skip_freq attention_output_gate "
    "multi_latent_attention q_lora_rank kv_lora_rank qk_head_dim qk_pos_emb_head_dim v_head_dim "
    "num_experts moe_ffn_hidden_size moe_shared_expert_intermediate_size moe_layer_freq "
    "moe_router_topk moe_router_num_groups moe_router_group_topk moe_router_dtype "
    "moe_router_enable_expert_bias moe_router_load_balancing_type moe_router_force_load_balancing "
    "moe_expert_capacity_factor moe_token_dispatcher_type moe_enable_deepep "
    "fp8_dot_product_attention cuda_graph_impl enable_cuda_graph external_cuda_graph "
    "cuda_graph_scope cuda_graph_modules "
    "moe_flex_dispatcher_backend moe_latent_size moe_layer_recompute tensor_model_parallel_size "
    "model_parallel_size pipeline_model_parallel_size context_parallel_size cp_comm_type "
    "hierarchical_context_parallel_sizes "
    "expert_model_parallel_size expert_tensor_parallel_size sequence_parallel tp_comm_overlap "
    "num_layers_per_virtual_pipeline_stage num_virtual_stages_per_pipeline_rank "
    "virtual_pipeline_model_parallel_size pipeline_model_parallel_layout "
    "decoder_first_pipeline_num_layers decoder_last_pipeline_num_layers "
    "account_for_embedding_in_pipeline_split account_for_loss_in_pipeline_split "
    "microbatch_group_size_per_vp_stage overlap_moe_expert_parallel_comm use_distributed_optimizer "
    "data_parallel_sharding_strategy num_distributed_optimizer_instances use_megatron_fsdp "
    "use_custom_fsdp use_torch_fsdp2 overlap_grad_reduce micro_batch_size global_batch_size "
    "recompute_activations recompute_granularity recompute_method recompute_num_layers "
    "recompute_modules overlap_param_gather use_precision_aware_optimizer optimizer_cpu_offload "
    "optimizer_offload_fraction overlap_cpu_optimizer_d2h_h2d cpu_offloading "
    "cpu_offloading_num_layers fine_grained_activation_offloading offload_modules main_grads_dtype "
    "main_params_dtype "
    "exp_avg_dtype exp_avg_sq_dtype gradient_accumulation_fusion no_gradient_accumulation_fusion "
    "grad_reduce_in_bf16 accumulate_allreduce_grads_in_fp32 "
    "grad_reduce_in_fp32 megatron_fsdp_main_grads_dtype store_param_remainders optimizer "
    "world_size nnodes nproc_per_node gated_linear_unit activation_func mixed_precision "
    "hybrid_layer_pattern hybrid_override_pattern is_hybrid_model linear_attention_freq "
    "experimental_attention_variant heterogeneous_layers_config_path "
    "heterogeneous_layers_config_encoded_json heterogeneous_block_specs dataset_sequence_length "
    "params_dtype fp8 fp8_format fp8_recipe fp4 fp4_format "
    "fp4_recipe moe_dispatch_fwd_dtype moe_combine_bwd_dtype moe_router_padding_for_fp8 "
    "moe_router_padding_for_quantization delay_wgrad_compute "
    // MindSpeed-LLM, Megatron-DeepSpeed, MegaBlocks
    "noop_layers first_k_dense_replace n_shared_experts context_parallel_algo "
    "full_attention_interval enable_dsa_indexer mlp_type deepspeed expert_interval "
    "checkpoint_activations deepspeed_activation_checkpointing disable_moe_token_dropping "
    "moe_expert_model_parallelism gradient_accumulation_steps ";

struct Named {
    std::string_view names;
    std::string_view off;  // values, beside None and False, with which nothing happens
    std::string_view why;
};

constexpr std::array kNamed = std::to_array<Named>({
    {"fp8_param fp8_param_gather fp8_multi_head_attention "
     "fp8_output_proj keep_fp8_transpose_cache fp4_param fp4_param_gather",
     "", "parameters and attention stay in the model's dtype"},
    {"first_last_layers_bf16 reuse_grad_buf_for_mxfp8_param_ag", "",
     "every layer has the recipe, and every buffer is its own"},
    {"moe_pad_expert_input_to_capacity", "", "rows that padding adds are not counted"},
    {"mtp_use_repeated_layer", "", "every layer of multi-token prediction has its own parameters"},
    {"mtp_detach_heads mtp_hsm", "", "multi-token prediction is trained with the whole model"},
    {"overlap_param_gather_with_optimizer_step", "",
     "parameters are gathered behind the optimizer, before the next forward pass"},
    {"overlap_dispatch_backward_with_experts_wgrad "
     "ep_overlap_early_attn_memory_release defer_embedding_wgrad_compute",
     "", "weight gradients are computed with those of their input"},
    {"moe_shared_expert_overlap", "", "shared experts run before or after the exchanges"},
    {"high_priority_a2a_comm_stream", "", "streams have no priority"},
    {"optimizer_cuda_graph", "", "launches of the optimizer are not priced"},
    {"offload_optimizer_states swap_optimizer swap_optimizer_times", "0",
     "states of the optimizer stay on the GPU between updates"},
    {"cpu_offloading_weights", "", "weights stay on the GPU"},
    {"activation_offload_fraction delta_offload_bytes_across_pp_ranks min_offloaded_tensor_size",
     "1.0 1 0 1048576", "all inputs of offload_modules go to the host"},
    {"offload_activation swap_attention", "0", "activations stay on the GPU"},
    {"moe_paged_stash", "", "rows are kept as they arrived"},
    {"moe_flex_dispatcher_num_sms moe_deepep_num_sms moe_hybridep_num_sms", "20 16",
     "multiprocessors that the dispatcher takes are not taken from the products"},
    {"moe_permute_fusion_into_hybridep", "", "permute is a pass of its own"},
    {"moe_router_topk_limited_devices", "", "a token reaches any rank"},
    {"moe_expert_rank_capacity_factor", "", "ranks take all rows that routing sends them"},
    {"moe_use_legacy_grouped_gemm moe_extended_tp", "", "experts are one grouped product"},
    {"moe_router_force_biased", "", "routing is balanced but for sampling"},
    {"moe_apply_probs_on_input moe_use_upcycling moe_enable_routing_replay", "",
     "not among the phases"},
    {"no_masked_softmax_fusion no_bias_gelu_fusion no_bias_swiglu_fusion no_bias_dropout_fusion "
     "no_rope_fusion no_persist_layer_norm",
     "", "kernels are priced fused"},
    {"no_gradient_reduce_div_fusion no_overlap_p2p_communication "
     "overlap_p2p_comm_warmup_flush no_align_param_gather",
     "", "not modelled"},
    {"rampup_batch_size", "", "every step has the global batch"},
    {"reset_attention_mask sft_sequence_packing variable_seq_lengths "
     "use_dynamic_batch_size max_tokens_per_gpu "
     "dataloader_inter_document_masking packed_sequence packing hybrid_context_parallel",
     "", "every sequence is whole: attention over seq_length"},
    {"freeze_all_layers freeze_llm freeze_vit freeze_aligner peft", "",
     "all parameters are trained"},
    {"outer_dp_sharding_strategy", "no_shard", "replicas of the shards keep whole states"},
    {"torch_fsdp2_no_reshard_after_forward enable_full_sharding_in_hsdp fsdp_double_buffer "
     "megatron_fsdp_grad_comm_dtype megatron_fsdp_main_params_dtype",
     "auto fp32", "sharding is as data_parallel_sharding_strategy says"},
    {"use_sharp", "", "the network reduces nothing by itself"},
    {"order use_tp_pp_dp_mapping", "tp-cp-ep-dp-pp", "ranks lie in the order tp-cp-ep-dp-pp"},
    {"mlp_chunks_for_training enable_mhc_connections", "1", "not modelled"},
    {"tensor_parallel_num_weight_shards expert_tensor_parallel_num_weight_shards", "1",
     "weights are sharded by tensor and data parallelism alone"},
    {"fp32_residual_connection", "", "activations are of the model's dtype"},
    {"distribute_saved_activations", "", "recomputed layers keep their whole input"},
    {"attention_backend",
     "auto flash fused AttnBackend.auto AttnBackend.flash AttnBackend.fused "
     "megatron.core.transformer.enums.AttnBackend",
     "attention is priced as a fused kernel"},
    {"transformer_impl", "transformer_engine", "layers are priced as fused ones"},
    {"encoder_num_layers", "", "the model is a decoder alone"},
    {"cross_entropy_fusion_impl", "native te linear", "the loss is priced as a pass of its own"},
    {"recipe", "", "what the recipe sets besides is not read: --model and more overrides give it"},
    // MindSpeed-LLM
    {"moe_fb_overlap schedules_method", "", "every pass runs by itself, its exchanges in the open"},
    {"moe_alltoall_overlap_comm", "", "exchanges do not hide behind the experts of their layer"},
    {"use_ascend_coc coc_fused_kernel coc_parallel_num", "",
     "products do not hide the exchanges of tensor parallelism"},
    {"reuse_fp32_param mtp_mem_efficient_logits loss_compute_mode loss_chunk_size", "default",
     "memory is as without it"},
    // torchtitan
    {"enable_cpu_offload early_step_in_backward", "", "the optimizer runs on the GPU, at the end"},
    {"converters", "", "float8 and MX are computed as the model's dtype"},
    {"module_fqns_per_model_part pipeline_parallel_first_stage_less_layers "
     "pipeline_parallel_last_stage_less_layers pipeline_parallel_schedule_csv",
     "1", "layers are cut evenly"},
    {"per_op_sac_force_recompute_mm_shapes_by_fqns memory_budget", "0.5",
     "activations are kept but for what `mode` says"},
});

// Numerics, data, tokenizers, schedules of learning rates, checkpoints, logs, initial values,
// names, positions, time-outs; fusions that are on, as the kernels are priced fused; biases and
// norms, which are below 0.1 % of any model.
constexpr std::string_view kNone =
    " accumulate_grads adlr_autoresume align_grad_reduce align_param_gather "
    "apply_wd_to_qk_layernorm "
    "add_qkv_bias add_position_embedding allow_ambiguous_pad_tokens "
    "apply_layernorm_1p apply_query_key_layer_scaling apply_residual_connection_post_layernorm "
    "apply_rope_fusion async_save async_tensor_model_parallel_allreduce attention_softmax_in_fp32 "
    "attention_dropout auto_detect_ckpt_format autocast_dtype autocast_enabled "
    "average_in_collective barrier_with_L1_time batch_p2p_comm batch_p2p_sync batch_size "
    "bias_activation_fusion bias_dropout_fusion bias_gelu_fusion bias_swiglu_fusion bucket_size "
    "calculate_per_token_loss check_for_large_grads check_for_nan_in_grad "
    "check_for_nan_in_loss_and_grad check_weight_hash_across_dp_replicas_interval clip_grad "
    "clone_scatter_output_in_embedding consumed_train_samples consumed_valid_samples "
    "config_logger_dir create_attention_mask create_attention_mask_in_dataloader "
    "create_all_gather_group cross_entropy_loss_fusion dataloader_type deallocate_pipeline_outputs "
    "decoder_seq_length decrease_batch_size_if_needed deprecated_use_mcore_models "
    "deterministic_mode "
    "disable_bf16_reduced_precision_matmul disable_bias_linear disable_jit_fuser "
    "disable_parameter_transpose_cache disable_symmetric_registration dist_url "
    "distributed_backend distributed_timeout_minutes distributed_timeout_seconds_after_init "
    "dp_reduce_scatter embedding_init_method embedding_init_method_std empty_unused_memory_level "
    "enable_autocast enable_experimental enable_gloo_process_groups enable_gpt_oss "
    "enable_megatron_core_experimental enable_msc encoder_seq_length end_weight_decay "
    "eod_mask_loss "
    "exit_duration_in_mins exit_interval exit_signal_handler external_gpu_device_mapping "
    "export_force_local_attention finalize_model_grads_func finetune flash_attention_version "
    "flash_decode fp16_lm_cross_entropy fp32 fp8_amax_compute_algo fp8_amax_history_len "
    "fp8_interval fp8_margin fp8_wgrad fused_residual_rmsnorm fused_single_qkv_rope "
    "glu_linear_offset grad_scale_func grad_sync_func "
    "gradient_reduce_div_fusion head_lr_mult hidden_dropout high_freq_factor "
    "high_priority_stream_groups hysteresis init_method init_model_with_meta_device "
    "initial_loss_scale iteration iterations_to_skip kitchen_attention_backend "
    "layernorm_epsilon layernorm_zero_centered_gamma lazy_init lazy_mpu_init lion_beta1 local_rank "
    "logging_level loss_scale loss_scale_window low_freq_factor manual_gc manual_gc_eval "
    "manual_gc_interval masked_softmax_fusion master_addr master_port max_norm "
    "max_padding_length max_position_embeddings memory_efficient_layer_norm merge_file "
    "microbatches min_loss_scale mmap_bin_files mock_data moe_aux_loss_coeff moe_grouped_gemm "
    "moe_hybridep_num_blocks_permute moe_hybridep_num_blocks_unpermute "
    "moe_hybridep_num_sms_preprocessing moe_input_jitter_eps moe_per_layer_logging "
    "moe_permute_fusion moe_router_bias_update_rate moe_router_fusion moe_router_pre_softmax "
    "moe_router_quantile_balancing_ema moe_router_score_function moe_router_topk_scaling_factor "
    "moe_shared_expert_gate moe_token_drop_policy moe_token_dropping moe_upcycling_granularity "
    "moe_z_loss_coeff mrope_section mscale mscale_all_dim mtp_enabled mtp_loss_scaling_factor "
    "multiprocessing_context nccl_communicator_config_path nccl_ub next_iters "
    "no_check_for_nan_in_loss_and_grad "
    "no_create_attention_mask_in_dataloader no_mmap_bin_files no_position_embedding no_rope_freq "
    "no_sync_func "
    "no_weight_decay_cond_type node_rank norm_epsilon normalization num_channels num_classes "
    "num_dataset_builder_threads num_floating_point_operations_so_far num_layers_at_end_in_bf16 "
    "num_layers_at_start_in_bf16 num_microbatches_with_partial_activation_checkpoints num_workers "
    "object_storage_cache_path old_context_len on_job_end onnx_safe openai_gelu "
    "original_max_position_embeddings output_layer_init_method overlap_p2p_comm "
    "override_opt_param_scheduler pad_buckets_for_high_nccl_busbw parallel_output param_sync_func "
    "patch_dim patch_tokenizer_type perform_initialization persist_layer_norm "
    "pipeline_dtype pipeline_model_parallel_comm_backend "
    "position_embedding_type preserve_fp32_weights pretrained_checkpoint qk_clip qk_l2_norm "
    "qk_layernorm rank rdzv_backend rdzv_endpoint rdzv_id replication_factor "
    "rerun_mode reset_position_ids restore_modelopt_state role rope_scaling_factor rope_type "
    "rotary_base rotary_interleaved rotary_percent rotary_scaling_factor "
    "rotary_seq_len_interpolation_factor sample_rate scale_factor "
    "scatter_embedding_sequence_parallel seed sgd_momentum sharp_enabled_group short_seq_prob "
    "should_pad_vocab skip_train skipped_train_samples softmax_scale softmax_type spec split "
    "split_matrix standalone start_weight_decay suggested_communication_unit_size "
    "symmetric_ar_type "
    "te_precision_config_file te_rng_tracker test_mode timers timing_log_level timing_log_option "
    "titles_data_path tp_comm_atomic_ag tp_comm_atomic_rs tp_comm_bootstrap_backend "
    "tp_comm_bulk_dgrad tp_comm_bulk_wgrad tp_comm_overlap_ag tp_comm_overlap_cfg "
    "tp_comm_overlap_disable_fc1 tp_comm_overlap_disable_qkv tp_comm_overlap_rs "
    "tp_comm_overlap_rs_dgrad tp_comm_split_ag tp_comm_split_rs tp_only_amax_red train_iters "
    "train_mode train_samples train_sync_interval transformer_layer_spec trust_remote_code "
    "use_checkpoint_args use_cpu_initialization use_dist_ckpt use_flash_attn "
    "use_fused_weighted_squared_relu use_gloo_process_groups use_kitchen use_legacy_models "
    "use_mamba_mem_eff_path use_mcore_models use_nccl_ub use_persistent_ckpt_worker "
    "use_pytorch_profiler use_ring_exchange_p2p use_rope_scaling use_rotary_position_embeddings "
    "use_te_activation_func use_te_rng_tracker use_tokenizer_model_from_checkpoint_args "
    "vocab_extra_ids vocab_file "
    "weight_decay weight_decay_incr_style window_attn variable_seq_length_in_bytes "
    "activation_func_clamp_value activation_func_fp8_input_store attention_dropout_rate "
    "beta_fast beta_slow data_parallel_random_init data_parallel_size dino_bottleneck_size "
    "ddp_average_in_collective ddp_bucket_size ddp_num_buckets ddp_pad_buckets_for_high_nccl_busbw "
    "decoupled_lr decoupled_min_lr delay_offload_until_cuda_graph "
    "transformer_pipeline_model_parallel_size "
    "encoder_pipeline_model_parallel_size encoder_tensor_model_parallel_size "
    "hetereogenous_dist_checkpoint "
    "heterogeneous_dist_checkpoint eval_global_batch_size eval_micro_batch_size "
    "moe_router_padding record_memory_history nvtx_ranges profile nccl_all_reduce_for_prefill "
    "dataset "
    "cuda_graph_warmup_steps cuda_graph_retain_backward_graph cuda_graph_use_single_mempool "
    "moe_ncclep_zero_copy wgrad_deferral_limit use_joint_attn_scaling "
    "cpu_offloading_activations cpu_offloading_double_buffering "
    "fine_grained_offloading_max_inflight_offloads dynamic_context_parallel "
    "no_pin_cpu_grads "
    "no_pin_cpu_params pin_cpu_grads pin_cpu_params use_torch_optimizer_for_cpu_offload "
    "fp8_quantizer_factory fp4_quantizer_factory quant_recipe generation_config "
    "seq_len_interpolation_factor share_embeddings_and_output_weights mmap bert_binary_head "
    "max_epochs num_train_epochs split_dataset_ratio hidden_dropout_rate log_interval "
    "tiktoken_pattern null_tokenizer_eod_id "
    "moe_permutation_async_comm norm_topk_prob topk_softmax_in_fp32 seq_aux router_gating_in_fp32 "
    "handler_name enable_hf2mg_convert model_type_hf shape_order partial_rotary_factor "
    "rmsnorm_weight_in_fp32 add_rmsnorm_offset no_enable_linear_qkv shared_expert_gate "
    "init_norm_weight_in_fp32 shared_storage mla_fa_without_pad mla_mm_split fix_router "
    "moe_loss_coeff moe_eval_capacity_factor moe_min_capacity create_moe_param_group "
    "num_nodes num_gpus_per_node pretrain model_name enabled exp_name workspace user_name "
    "work_group actor_num_nodes actor_num_gpus_per_node colocate "
    "deepspeed_config pipeline_parallel train_tokens moe_loss_weight DDP_impl ";

constexpr std::array<std::string_view, 43> kNoneStarts = {
    "adam_",      "adlr_",      "app_tag_",   "async_ckpt",   "bert_",          "biencoder_",
    "check_for_", "ckpt_",      "data_",      "dataloader_",  "dino_",          "dist_ckpt_",
    "error_inj",  "eval_",      "exit_on",    "fim_",         "flight_rec",     "ft_",
    "ict_",       "img_",       "inference_", "init_method_", "inprocess_",     "kitchen_",
    "load",       "log_",       "logits_",    "lr",           "mamba_",         "mask_",
    "memory_",    "min_lr",     "no_load",    "no_save",      "non_persistent", "one_logger",
    "profile_",   "retriever_", "save",       "straggler",    "swin_",          "tensorboard_",
    "tokenizer_"};
// Sections of Megatron-Bridge that say nothing of a step's work.
// Models of reinforcement learning that do not train are others.
constexpr auto kNoneSections = std::to_array<std::string_view>({"actor_rollout_ref.",
                                                                "algorithm.",
                                                                "critic.",
                                                                "reward",
                                                                "trainer.",
                                                                "data.",
                                                                "ray_kwargs.",
                                                                "global_profiler.",
                                                                "checkpoint.",
                                                                "logger.",
                                                                "scheduler.",
                                                                "tokenizer.",
                                                                "rng.",
                                                                "profiling.",
                                                                "ft.",
                                                                "straggler.",
                                                                "validation.",
                                                                "rerun_state_machine.",
                                                                "nvrx_straggler.",
                                                                "inprocess_restart."});
constexpr std::array<std::string_view, 25> kMoreNoneStarts = {
    "use_fused_", "rope_scaling_", "dataset_",  "wandb_",   "wsd_",  "wd_",   "vision_",
    "train_data", "valid_data",    "test_data", "yarn_",    "rl_",   "grpo_", "langrl_",
    "dsa_",       "linear_",       "mup_",      "qk_clip_", "otel_", "muon_", "nsys_",
    "use_mp_arg", "mhc_",          "gtp_",      "ckpt"};
constexpr std::array<std::string_view, 8> kNoneEnds = {
    "_path", "_dir", "_init_method", "_logging", "_file", "_seed", "_log_level", "_decay_iters"};

// Sections and keys of torchtitan that are read; all others of these sections are named or known.
constexpr std::string_view kTitanRead =
    " model.name model.flavor module config training.local_batch_size training.global_batch_size "
    "training.batch_size training.seq_len training.num_tokens_per_microbatch_per_dp_rank "
    "training.num_tokens_per_train_step training.max_context_length training.dtype "
    "training.mixed_precision_param training.mixed_precision_reduce "
    "training.tensor_parallel_degree training.data_parallel_shard_degree "
    "training.data_parallel_replicate_degree experimental.pipeline_parallel_degree "
    "experimental.context_parallel_degree "
    "parallelism.data_parallel_replicate_degree parallelism.data_parallel_shard_degree "
    "parallelism.fsdp_reshard_after_forward parallelism.tensor_parallel_degree "
    "parallelism.enable_sequence_parallel parallelism.pipeline_parallel_degree "
    "parallelism.pipeline_parallel_schedule parallelism.pipeline_parallel_layers_per_stage "
    "parallelism.pipeline_parallel_microbatch_size parallelism.num_pp_microbatches "
    "parallelism.context_parallel_degree parallelism.context_parallel_rotate_method "
    "parallelism.context_parallel_load_balancer parallelism.expert_parallel_degree "
    "parallelism.expert_tensor_parallel_degree parallelism.expert_parallel_comm_backend "
    "parallelism.pipeline_parallel_expert_parallel_overlap "
    "activation_checkpoint.mode optimizer.name debug.moe_force_load_balance ";
constexpr std::array<std::string_view, 17> kTitanSections = {"job.",
                                                             "profiling.",
                                                             "profiler.",
                                                             "metrics.",
                                                             "lr_scheduler.",
                                                             "checkpoint.",
                                                             "compile.",
                                                             "comm.",
                                                             "validation.",
                                                             "fault_tolerance.",
                                                             "dataloader.",
                                                             "experimental.",
                                                             "memory_estimation.",
                                                             "debug.",
                                                             "optimizer.",
                                                             "loss.",
                                                             "quantize."};
constexpr std::string_view kTitanNone =
    " training.max_norm training.steps training.dataset training.dataset_path training.gc_freq "
    "training.gc_debug training.warmup_steps training.compile training.deterministic training.seed "
    "training.dataloader.num_workers training.dataloader.persistent_workers "
    "training.dataloader.pin_memory training.dataloader.prefetch_factor "
    "training.disable_cuda_graphs "
    "model.hf_assets_path model.tokenizer_path model.norm_type model.print_after_conversion "
    "hf_assets_path dump_folder "
    "parallelism.disable_loss_parallel parallelism.spmd_backend parallelism.enable_fsdp_symm_mem "
    "parallelism.context_parallel_ptrr_mask_key activation_checkpoint.early_stop "
    "activation_checkpoint.visualize_memory_budget_pareto activation_checkpoint.preserve_rng_state "
    "activation_checkpoint.selective_ac_option activation_checkpoint.determinism_check "
    "activation_checkpoint.debug "
    "float8.enable_float8_linear parallelism.pipeline_parallel_split_points nnodes nproc_per_node "
    "rdzv_backend rdzv_endpoint rdzv_id local_ranks_filter role tee ";

bool holds(std::string_view list, std::string_view name) {
    return list.find(fmt::format(" {} ", name)) != std::string_view::npos;
}

template <class List>
bool begins_with_one(const List& starts, std::string_view name) {
    return std::any_of(starts.begin(), starts.end(),
                       [&](std::string_view start) { return name.starts_with(start); });
}

std::string_view last_part(std::string_view name) {
    const std::size_t dot = name.rfind('.');
    return dot == std::string_view::npos ? name : name.substr(dot + 1);
}

bool changes_nothing(std::string_view name) {
    return holds(kNone, name) || begins_with_one(kNoneStarts, name) ||
           begins_with_one(kMoreNoneStarts, name) || begins_with_one(kNoneSections, name) ||
           std::any_of(kNoneEnds.begin(), kNoneEnds.end(),
                       [&](std::string_view end) { return name.ends_with(end); });
}

std::optional<Knowledge> named(std::string_view name, const Setting& setting) {
    for (const Named& row : kNamed) {
        if (!holds(fmt::format(" {} ", row.names), name)) continue;
        const bool is_off =
            !setting.values.empty() && holds(fmt::format(" {} ", row.off), setting.text());
        if (is_off) return Knowledge{Concern::none, ""};
        return Knowledge{Concern::named, row.why};
    }
    return std::nullopt;
}

Knowledge titan_knowledge(std::string_view name, const Setting& setting) {
    if (holds(kTitanRead, name)) return {Concern::read, ""};
    if (const auto row = named(last_part(name), setting)) return *row;
    const bool is_none = holds(kTitanNone, name) || begins_with_one(kTitanSections, name);
    return {is_none ? Concern::none : Concern::unknown, ""};
}

}  // namespace

Knowledge knowledge_of(std::string_view name, const Setting& setting, Dialect dialect) {
    if (dialect == Dialect::torchtitan) return titan_knowledge(name, setting);
    if (holds(kRead, name)) return {Concern::read, ""};
    if (const auto row = named(name, setting)) return *row;
    // --no-x turns off what changes nothing.
    const std::string_view rest = name.starts_with("no_") ? name.substr(3) : name;
    const bool is_none = changes_nothing(name) || changes_nothing(rest);
    return {is_none ? Concern::none : Concern::unknown, ""};
}

bool is_training_argument(std::string_view name) {
    constexpr std::string_view launcher = " nnodes nproc_per_node optimizer config module ";
    if (holds(launcher, name)) return false;
    return holds(kRead, canonical_name(name)) || holds(kTitanRead, name);
}

std::string canonical_name(std::string_view name) {
    constexpr auto renamed = std::to_array<std::array<std::string_view, 2>>(
        {{"num_moe_experts", "num_experts"},
         {"moe_num_experts", "num_experts"},
         {"moe_top_k", "moe_router_topk"},
         {"topk", "moe_router_topk"},
         {"moe_intermediate_size", "moe_ffn_hidden_size"},
         {"moe_capacity_factor", "moe_expert_capacity_factor"},
         {"moe_train_capacity_factor", "moe_expert_capacity_factor"},
         {"moe_expert_parallel_size", "expert_model_parallel_size"},
         {"qk_nope_head_dim", "qk_head_dim"},
         {"qk_rope_head_dim", "qk_pos_emb_head_dim"},
         {"tensor_parallel_size", "tensor_model_parallel_size"},
         {"pipeline_parallel_size", "pipeline_model_parallel_size"},
         {"virtual_pipeline_parallel_size", "virtual_pipeline_model_parallel_size"},
         {"gbs", "global_batch_size"},
         {"mbs", "micro_batch_size"},
         {"sequence_length", "seq_length"},
         {"max_total_sequence_length", "seq_length"},
         {"ppo_micro_batch_size_per_gpu", "micro_batch_size"},
         {"per_device_train_batch_size", "micro_batch_size"},
         {"train_micro_batch_size", "micro_batch_size"},
         {"train_global_batch_size", "global_batch_size"},
         {"gemm_gradient_accumulation_fusion", "gradient_accumulation_fusion"},
         {"num_layers_in_first_pipeline_stage", "decoder_first_pipeline_num_layers"},
         {"num_layers_in_last_pipeline_stage", "decoder_last_pipeline_num_layers"},
         {"nproc-per-node", "nproc_per_node"},
         {"max_length", "seq_length"},
         {"ntasks_per_node", "nproc_per_node"},
         {"moe_flex_dispatcher", "moe_flex_dispatcher_backend"},
         {"context_parallel_comm_type", "cp_comm_type"},
         {"use_custom_fsdp", "use_megatron_fsdp"},
         {"fp8_param_gather", "fp8_param"},
         {"external_cuda_graph", "enable_cuda_graph"}});
    constexpr auto sections = std::to_array<std::string_view>(
        {"actor_rollout_ref.actor.megatron.override_transformer_config.",
         "actor_rollout_ref.actor.megatron.", "actor_rollout_ref.actor.",
         "actor_train.strategy_args.strategy_config.", "actor_train.training_args.",
         "policy.megatron_cfg.distributed_data_parallel_config.", "policy.megatron_cfg.optimizer.",
         "policy.megatron_cfg.", "policy.", "trainer.strategy.", "model.config.", "model.",
         "train.", "ddp.", "optimizer.", "comm_overlap.", "mixed_precision.", "dist.", "dataset."});
    std::string_view rest = name;
    bool is_dataset = false;
    for (const std::string_view section : sections) {
        if (!name.starts_with(section)) continue;
        rest = name.substr(section.size());
        is_dataset = section == "dataset.";
        break;
    }
    if (is_dataset) {
        const bool is_length = rest == "sequence_length" || rest == "seq_length";
        return is_length ? "dataset_sequence_length" : fmt::format("data_{}", rest);
    }
    if (name == "optimizer.optimizer") return "optimizer";
    for (const auto& [from, to] : renamed) {
        if (rest == from) return std::string(to);
    }
    return std::string(rest);
}

std::string near_argument(const std::string& name) {
    std::vector<std::string> known;
    std::size_t begin = 0;
    while (begin < kRead.size()) {
        const std::size_t end = std::min(kRead.find(' ', begin), kRead.size());
        if (end > begin) known.emplace_back(kRead.substr(begin, end - begin));
        begin = end + 1;
    }
    return did_you_mean(name, known);
}

std::string known_arguments_markdown() {
    std::string text = "| argument | what headway does instead |\n|---|---|\n";
    for (const Named& row : kNamed) {
        std::string names = "`";
        for (const char c : row.names) names += c == ' ' ? "`, `" : std::string(1, c);
        text += fmt::format("| {}` | {} |\n", names, row.why);
    }
    return text;
}

}  // namespace headway::inline importing
