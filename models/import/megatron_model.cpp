// The model that Megatron's arguments describe, with the defaults of megatron/training/arguments.py
// and core/transformer/transformer_config.py (Megatron-LM d98e8a6, 2026-08).
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "models/import/dialects.hpp"
#include "models/scenario/layer_rules.hpp"
#include "models/scenario/quantity_text.hpp"

namespace headway::inline importing {
namespace {

constexpr char kDescribed[] = "a job that describes its model, or --model NAME|FILE";
constexpr int kMaxLayers = 10000, kMaxMtpLayers = 64;
constexpr int kMaxWidth = 1 << 20;

bool is_bridge(const Job& job) {
    return job.file().format.find("Bridge") != std::string::npos;
}

// ---- Layers

// A flag a layer from N, one for N - 1 others beginning with the first, or from a list.
std::optional<std::vector<bool>> moe_flags(const Job& job, const Setting& setting, int layers) {
    const std::string text = setting.values.size() == 1
                                 ? setting.values.front()
                                 : fmt::format("[{}]", fmt::join(setting.values, ","));
    std::vector<bool> flags;
    if (const auto every = parse_integer(text); every && *every > 0) {
        for (int i = 0; i < layers; ++i) flags.push_back(i % *every == 0);
        return flags;
    }
    const auto list = layer_pattern(text);
    if (!list || static_cast<int>(list->size()) != layers) {
        job.refuse(&setting,
                   list ? fmt::format("a pattern of {} layers for {}", list->size(), layers)
                        : fmt::format("the pattern {}", in_quotes(shown(text))),
                   fmt::format("N, or a list of {} zeros and ones such as ([0]*3+[1]*58)", layers));
        return std::nullopt;
    }
    for (const int flag : *list) flags.push_back(flag != 0);
    return flags;
}

// Nothing where the job does not say, or says it wrongly, which is a problem of its own.
std::optional<std::vector<bool>> moe_layers(const Job& job, int layers) {
    const Setting* frequency = job.find("moe_layer_freq");
    // MindSpeed-LLM counts as DeepSeek's config does; -1 is neither.
    if (const auto dense = job.integer("first_k_dense_replace", -1, kMaxLayers)) {
        const int every = std::max(job.integer_or("moe_layer_freq", 1, -1, kMaxLayers), 1);
        std::vector<bool> flags;
        for (int i = 0; i < layers; ++i) flags.push_back(i >= *dense && i % every == 0);
        return flags;
    }
    if (frequency != nullptr) return moe_flags(job, *frequency, layers);
    // Megatron-DeepSpeed has experts on layers interval, 2 interval, ..., the first being 1.
    const int interval =
        job.integer_or("expert_interval", is_deepspeed(job) ? 2 : 1, 1, kMaxLayers);
    if (interval == 1) return std::nullopt;
    std::vector<bool> flags;
    for (int i = 1; i <= layers; ++i) flags.push_back(i % interval == 0);
    return flags;
}

void fill_layers(const Job& job, ModelSpec& model) {
    const std::vector<bool> skipped = noop_layers(job, 0);
    const int layers = static_cast<int>(skipped.size());
    model.num_layers = layers - static_cast<int>(std::count(skipped.begin(), skipped.end(), true));
    job.need("num_layers", kDescribed);
    const auto flags = layers > 0 ? moe_layers(job, layers) : std::nullopt;
    if (!flags) return;
    std::vector<bool> kept;
    for (std::size_t i = 0; i < flags->size(); ++i) {
        if (!skipped[i]) kept.push_back((*flags)[i]);
    }
    const auto rule = moe_rule(kept);
    if (!rule) {
        job.refuse(job.find("moe_layer_freq"), "MoE layers in no regular order, or none",
                   "dense layers first, then every n-th layer with experts");
        return;
    }
    model.num_dense_layers = (*rule)[0];
    model.moe_every = (*rule)[1];
}

// ---- Attention

void fill_window(const Job& job, int layers, Attention& attention) {
    const Setting* size = job.find("window_size");
    if (size == nullptr) return;
    std::string digits = size->text();  // "(127, 0)", "127,0", "127 0": tokens before and after
    const std::size_t first = digits.find_first_of("0123456789");
    const std::size_t last = digits.find_first_not_of("0123456789", first);
    const auto before = first == std::string::npos
                            ? std::nullopt
                            : parse_integer(digits.substr(first, last - first));
    if (!before || *before >= 1 << 24 || digits[first == 0 ? 0 : first - 1] == '-') {
        job.refuse(size, fmt::format("a window of {}", in_quotes(digits)), "tokens, as in 127,0");
        return;
    }
    attention.window = static_cast<int>(*before) + 1;
    const Setting* skip = job.find("window_attn_skip_freq");
    if (skip == nullptr) return;
    std::vector<bool> windowed;
    const auto every = parse_integer(skip->text());
    const auto list = every ? std::nullopt : layer_pattern(skip->text());
    for (int i = 0; i < layers; ++i) {
        if (every && *every > 0)
            windowed.push_back((i + 1) % *every != 0);
        else if (list && i < static_cast<int>(list->size()))
            windowed.push_back((*list)[static_cast<std::size_t>(i)] != 0);
    }
    if (std::find(windowed.begin(), windowed.end(), true) == windowed.end() && every == 1) {
        attention.window.reset();
        return;
    }
    const auto rule =
        static_cast<int>(windowed.size()) == layers ? window_rule(windowed) : std::nullopt;
    if (!rule) {
        job.refuse(skip, "windows on layers in no regular order", "N, or a list that repeats");
        return;
    }
    if (rule->key == "window_every") attention.window_every = rule->every;
    if (rule->key == "full_every") attention.full_every = rule->every;
}

void fill_attention(const Job& job, ModelSpec& model) {
    Attention& attention = model.attention;
    attention.num_heads = job.integer_or("num_attention_heads", 0, 1, 65536);
    job.need("num_attention_heads", kDescribed);
    const bool is_grouped =
        job.flag("group_query_attention", is_bridge(job) && job.has("num_query_groups"));
    const int groups = job.integer_or("num_query_groups", 1, 1, 65536);
    attention.num_kv_heads = is_grouped ? groups : attention.num_heads;
    if (!is_grouped && groups > 1 && groups != attention.num_heads)
        job.leave(*job.find("num_query_groups"), "without effect: no --group-query-attention");
    const int even = attention.num_heads > 0 ? model.hidden / attention.num_heads : 0;
    attention.head_width = job.integer_or("kv_channels", even, 1, kMaxWidth);
    attention.output_gate = job.flag("attention_output_gate");
    fill_window(job, model.num_layers, attention);
    if (!job.flag("multi_latent_attention")) return;
    LatentAttention latent;
    latent.query_rank = job.integer_or("q_lora_rank", 0, 0, kMaxWidth);
    latent.kv_rank = job.integer_or("kv_lora_rank", 32, 1, kMaxWidth);
    latent.nope_width = job.integer_or("qk_head_dim", 128, 1, kMaxWidth);
    latent.rope_width = job.integer_or("qk_pos_emb_head_dim", 64, 0, kMaxWidth);
    latent.value_width = job.integer_or("v_head_dim", 128, 1, kMaxWidth);
    attention.latent = latent;
    attention.num_kv_heads = attention.num_heads;
    attention.head_width = latent.nope_width + latent.rope_width;
}

// ---- Feed-forward and experts

Activation activation_of(const Job& job) {
    const std::string function = job.text("activation_func");
    const bool is_gelu = function.find("gelu") != std::string::npos;
    const bool is_gated = job.flag("swiglu") || job.flag("gated_linear_unit");
    if (job.flag("quick_geglu") || (is_gated && function.find("quick_gelu") != std::string::npos))
        return Activation::quick_geglu;
    if (is_gelu && is_gated)
        job.assume("gated GELU is priced as SwiGLU, which has the same matrices");
    if (job.flag("squared_relu")) job.assume("squared ReLU is priced as GELU");
    return is_gated ? Activation::swiglu : Activation::gelu;
}

Dtype dtype_named(const Job& job, std::string_view name, Dtype otherwise) {
    const Setting* setting = job.find(name);
    if (setting == nullptr) return otherwise;
    std::string word = setting->text();
    if (word.starts_with("torch.")) word.erase(0, 6);
    if (word == "fp32" || word == "float32") return Dtype::fp32;
    if (word == "bf16" || word == "bfloat16") return Dtype::bf16;
    if (word == "fp16" || word == "float16" || word == "half") return Dtype::fp16;
    if (word == "fp64" || word == "float64") return Dtype::fp64;
    if (word == "fp8" || word == "uint8") return Dtype::fp8;
    if (word != "auto")
        job.refuse(setting, fmt::format("{} {}", setting->spelling, in_quotes(word)),
                   "fp32, bf16, fp16 or fp8");
    return otherwise;
}

void fill_groups(const Job& job, Moe& moe) {
    const Setting* groups = job.find("moe_router_num_groups");
    if (groups == nullptr) return;
    moe.num_expert_groups = job.integer_or("moe_router_num_groups", 1, 1, 65536);
    moe.top_groups = job.integer_or("moe_router_group_topk", 1, 1, 65536);
    // group_limited_topk: a group's score is the sum of its best top_k / top_groups experts.
    const int best = moe.top_groups > 0 ? moe.top_k / moe.top_groups : 0;
    moe.group_score = best == 1 ? GroupScore::max : GroupScore::top2_sum;
    if (best > 2 && moe.num_expert_groups > 1)
        job.leave(*groups, fmt::format("a group's score is that of its best {} experts: taken as "
                                       "the best two",
                                       best));
}

void fill_moe(const Job& job, ModelSpec& model, int ffn) {
    Moe& moe = model.moe;
    moe.num_experts = job.integer_or("num_experts", 0, 1, 65536);
    if (moe.num_experts == 0) {
        if (!job.has("num_experts")) job.ask("no experts: a dense model", "a job with num_experts");
        return;
    }
    // The defaults of Megatron-LM, and of Megatron-DeepSpeed and MegaBlocks.
    const bool is_switch = is_deepspeed(job) || job.has("moe_expert_model_parallelism");
    moe.top_k = job.integer_or("moe_router_topk", is_switch ? 1 : 2, 1, 1024);
    moe.expert_width = job.integer_or("moe_ffn_hidden_size", ffn, 1, kMaxWidth);
    moe.activation = model.dense_activation;
    moe.add_bias_linear = job.flag("add_bias_linear");
    if (const auto width = job.integer("moe_shared_expert_intermediate_size", 0, kMaxWidth);
        width.value_or(0) > 0) {
        moe.num_shared_experts = 1;
        moe.shared_expert_width = *width;
    } else if (const auto shared = job.integer("n_shared_experts", 0, 1024);
               shared.value_or(0) > 0) {
        moe.num_shared_experts = *shared;
        moe.shared_expert_width = moe.expert_width;
    }
    moe.router_dtype = dtype_named(job, "moe_router_dtype", model.dtype);
    moe.capacity_factor = job.number("moe_expert_capacity_factor");
    if (moe.capacity_factor && *moe.capacity_factor <= 0) moe.capacity_factor.reset();
    if (job.flag("disable_moe_token_dropping")) moe.capacity_factor.reset();
    moe.aux_free_bias = job.flag("moe_router_enable_expert_bias");
    fill_groups(job, moe);
    (void)job.has("moe_router_load_balancing_type");
}

// ---- The rest

// Megatron's vocabulary is padded to a multiple that tensor parallelism divides.
void fill_vocabulary(const Job& job, const Given& given, int tensor_parallel, ModelSpec& model) {
    const int multiple = job.integer_or("make_vocab_size_divisible_by", 128) * tensor_parallel;
    std::optional<int> size = given.vocab_size ? given.vocab_size : job.integer("vocab_size");
    const std::string tokenizer = job.text("tokenizer_type");
    if (const auto padded = job.integer("padded_vocab_size"); padded && !given.vocab_size) {
        model.vocab_size = *padded;
        return;
    }
    if (!size && tokenizer == "GPT2BPETokenizer") size = 50257;
    if (!size && tokenizer == "Llama2Tokenizer") size = 32000;
    if (!size) {
        job.ask(fmt::format("no vocabulary size: {} is not read",
                            tokenizer.empty() ? "the tokenizer" : tokenizer),
                "--vocab-size N");
        return;
    }
    const std::int64_t padded = (std::int64_t{*size} + multiple - 1) / multiple * multiple;
    if (padded > 1 << 24) return job.ask("a padded vocabulary above 2^24", "a smaller one");
    model.vocab_size = static_cast<int>(padded);
    if (model.vocab_size != *size)
        job.assume(fmt::format("the vocabulary of {} is padded to {}, a multiple of {}", *size,
                               model.vocab_size, multiple));
}

// Layers of kinds that headway lacks.
void refuse_other_layers(const Job& job) {
    constexpr std::array<std::array<std::string_view, 2>, 11> kinds = {
        {{"hybrid_layer_pattern", "layers of several kinds (Mamba-2, linear attention)"},
         {"hybrid_override_pattern", "layers of several kinds (Mamba-2, linear attention)"},
         {"is_hybrid_model", "Mamba-2 layers"},
         {"linear_attention_freq", "linear attention"},
         {"full_attention_interval", "linear attention"},
         {"enable_dsa_indexer", "sparse attention (DSA with its indexer)"},
         {"mlp_type", "residual experts"},
         {"experimental_attention_variant", "attention of another kind"},
         {"heterogeneous_layers_config_path", "layers of different shapes"},
         {"heterogeneous_layers_config_encoded_json", "layers of different shapes"},
         {"heterogeneous_block_specs", "layers of different shapes"}}};
    for (const auto& [name, what] : kinds) {
        if (name == "mlp_type" && job.text(name) != "residual") continue;
        if (job.flag(name) || job.has(name))
            job.refuse(job.find(name), fmt::format("a model with {}, which headway lacks", what),
                       "layers of attention and experts");
    }
}

Dtype model_dtype(const Job& job) {
    const std::string mixed = job.text("mixed_precision");  // "bf16_mixed", "bf16_with_fp8_..."
    const std::string params = job.text("params_dtype");
    if (job.flag("bf16") || mixed.starts_with("bf16") || params == "torch.bfloat16")
        return Dtype::bf16;
    if (job.flag("fp16") || mixed.starts_with("fp16")) return Dtype::fp16;
    if (mixed.find("fp8") != std::string::npos || mixed.find("mxfp") != std::string::npos)
        return Dtype::bf16;
    job.assume("neither bf16 nor fp16 is given: the model is of fp32");
    return Dtype::fp32;
}

// What names a model that is described elsewhere.
std::string model_name(const Job& job) {
    for (const char* key :
         {"model", "hf_checkpoint", "pretrain", "model_name", "model_name_or_path",
          "actor_rollout_ref.model.path", "pretrained_checkpoint", "recipe"}) {
        const Setting* setting = job.find(key);
        if (setting != nullptr && !setting->values.empty() && !first_gap(setting->values.front()))
            return setting->text();
    }
    return "";
}

}  // namespace

void fill_model(const Job& job, const Given& given, int tensor_parallel, ModelSpec& model) {
    // A job that says None trains without them, whatever its model has.
    const auto mtp_layers = [&](int otherwise) {
        return job.flag("mtp_num_layers", true)
                   ? job.integer_or("mtp_num_layers", otherwise, 0, kMaxMtpLayers)
                   : 0;
    };
    if (given.model != nullptr) {
        model = *given.model;
        model.mtp_num_layers = mtp_layers(model.mtp_num_layers);
        fill_vocabulary(job, {nullptr, given.vocab_size.value_or(model.vocab_size)},
                        tensor_parallel, model);
        return;
    }
    refuse_other_layers(job);
    constexpr std::array<std::string_view, 4> shape = {"hidden_size", "num_layers",
                                                       "num_attention_heads", "num_experts"};
    if (std::none_of(shape.begin(), shape.end(), [&](auto name) { return job.has(name); })) {
        const std::string name = model_name(job);
        job.ask(name.empty() ? "the job does not describe its model"
                             : "of its model the job has the name alone: " + in_quotes(name),
                "--model NAME|FILE",
                "headway list models has the shipped ones; else the model's config.json");
        return;
    }
    model.dtype = model_dtype(job);
    model.hidden = job.integer_or("hidden_size", 0, 1, kMaxWidth);
    job.need("hidden_size", kDescribed);
    fill_layers(job, model);
    model.mtp_num_layers = mtp_layers(0);
    fill_attention(job, model);
    model.dense_activation = activation_of(job);
    const bool is_swiglu = model.dense_activation == Activation::swiglu;
    const int ffn =
        job.integer_or("ffn_hidden_size",
                       is_swiglu ? model.hidden * 8 / 3 / 64 * 64 : 4 * model.hidden, 1, kMaxWidth);
    model.dense_width = model.num_dense_layers > 0 || model.moe_every > 1 ? ffn : 0;
    fill_moe(job, model, ffn);
    const bool shares = job.flag("share_embeddings_and_output_weights",
                                 !job.flag("untie_embeddings_and_output_weights"));
    model.tied_embeddings = shares;
    fill_vocabulary(job, given, tensor_parallel, model);
    for (const auto& [key, name] : std::initializer_list<std::array<std::string_view, 2>>{
             {"model.hidden", "hidden_size"},
             {"model.num_layers", "num_layers"},
             {"model.mtp_num_layers", "mtp_num_layers"},
             {"model.num_dense_layers", "moe_layer_freq"},
             {"model.attention", "num_attention_heads"},
             {"model.attention.num_kv_heads", "num_query_groups"},
             {"model.moe", "num_experts"},
             {"model.moe.top_k", "moe_router_topk"},
             {"model.moe.num_expert_groups", "moe_router_num_groups"},
             {"model.moe.top_groups", "moe_router_group_topk"}})
        job.gives(key, name);
}

}  // namespace headway::inline importing
