#include "models/scenario/hugging_face_families.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <iterator>

namespace headway::inline scenario {
namespace {

constexpr std::string_view kLocalExperts =
    "experts=num_local_experts expert_width=intermediate_size";
constexpr std::string_view kRoutedExperts =
    "experts=n_routed_experts shared=n_shared_experts shared_width=moe_intermediate_size";
constexpr std::string_view kTwoShapes = "attention of another shape on some layers";

// Defaults are those of the configuration classes of transformers 5.24, and of the configuration
// files beside the checkpoints for families that are not in it.
constexpr std::array kFamilies = {
    HuggingFaceFamily{"mixtral", "", kLocalExperts,
                      "vocab_size=32000 hidden_size=4096 intermediate_size=14336 "
                      "num_hidden_layers=32 num_attention_heads=32 num_key_value_heads=8 "
                      "num_local_experts=8 num_experts_per_tok=2"},
    HuggingFaceFamily{"phimoe", "", kLocalExperts,
                      "vocab_size=32064 hidden_size=4096 intermediate_size=6400 "
                      "num_hidden_layers=32 num_attention_heads=32 num_key_value_heads=8 "
                      "num_local_experts=16 num_experts_per_tok=2"},
    HuggingFaceFamily{"minicpm", "", "expert_width=intermediate_size",
                      "vocab_size=32000 hidden_size=4096 intermediate_size=11008 "
                      "num_hidden_layers=32 num_attention_heads=32 tie_word_embeddings=true "
                      "num_experts=0"},
    HuggingFaceFamily{"minimax_m2", "",
                      "experts=num_local_experts expert_width=intermediate_size "
                      "shared_width=shared_intermediate_size",
                      "vocab_size=200064 hidden_size=3072 intermediate_size=1536 "
                      "num_hidden_layers=62 num_attention_heads=48 num_key_value_heads=8 "
                      "head_dim=128 num_local_experts=256 num_experts_per_tok=8 "
                      "shared_intermediate_size=0 use_routing_bias=true"},
    HuggingFaceFamily{"gpt_oss", "", kLocalExperts,
                      "vocab_size=201088 hidden_size=2880 intermediate_size=2880 "
                      "num_hidden_layers=36 num_attention_heads=64 num_key_value_heads=8 "
                      "head_dim=64 num_local_experts=128 num_experts_per_tok=4 sliding_window=128 "
                      "window_every=2"},
    HuggingFaceFamily{"olmoe", "", "expert_width=intermediate_size",
                      "vocab_size=50304 hidden_size=2048 intermediate_size=2048 "
                      "num_hidden_layers=16 num_attention_heads=16 num_experts=64 "
                      "num_experts_per_tok=8"},
    HuggingFaceFamily{"flex_olmo", "", "expert_width=intermediate_size",
                      "vocab_size=100352 hidden_size=4096 intermediate_size=11008 "
                      "num_hidden_layers=32 num_attention_heads=32 num_experts=7 "
                      "num_experts_per_tok=5"},
    HuggingFaceFamily{"qwen2_moe", "", "shared_width=shared_expert_intermediate_size",
                      "vocab_size=151936 hidden_size=2048 intermediate_size=5632 "
                      "moe_intermediate_size=1408 num_hidden_layers=24 num_attention_heads=16 "
                      "num_key_value_heads=16 num_experts=60 num_experts_per_tok=4 "
                      "shared_expert_intermediate_size=5632 decoder_sparse_step=1 "
                      "sliding_window=4096 use_sliding_window=false max_window_layers=28"},
    HuggingFaceFamily{"qwen3_moe", "", "",
                      "vocab_size=151936 hidden_size=2048 intermediate_size=6144 "
                      "moe_intermediate_size=768 num_hidden_layers=24 num_attention_heads=32 "
                      "num_key_value_heads=4 num_experts=128 num_experts_per_tok=8 "
                      "decoder_sparse_step=1 sliding_window=4096 use_sliding_window=false"},
    HuggingFaceFamily{"qwen3_vl_moe qwen3_vl_moe_text", "", "",
                      "vocab_size=151936 hidden_size=2048 intermediate_size=5632 "
                      "moe_intermediate_size=1408 num_hidden_layers=24 num_attention_heads=16 "
                      "num_key_value_heads=16 head_dim=128 num_experts=60 num_experts_per_tok=4 "
                      "decoder_sparse_step=1"},
    HuggingFaceFamily{"qwen3_omni_moe qwen3_omni_moe_text", "", "",
                      "vocab_size=3584 hidden_size=2048 intermediate_size=18944 "
                      "moe_intermediate_size=768 num_hidden_layers=28 num_attention_heads=28 "
                      "num_key_value_heads=4 num_experts=128 num_experts_per_tok=8 "
                      "decoder_sparse_step=1"},
    HuggingFaceFamily{"deepseek", "", kRoutedExperts,
                      "vocab_size=102400 hidden_size=4096 intermediate_size=11008 "
                      "moe_intermediate_size=1407 num_hidden_layers=30 num_attention_heads=32 "
                      "num_key_value_heads=32 n_shared_experts=0 first_k_dense_replace=0 "
                      "moe_layer_freq=1"},
    HuggingFaceFamily{"deepseek_v2", "", kRoutedExperts,
                      "latent=true vocab_size=102400 hidden_size=4096 intermediate_size=11008 "
                      "moe_intermediate_size=1407 num_hidden_layers=32 num_attention_heads=32 "
                      "n_routed_experts=64 n_shared_experts=2 first_k_dense_replace=0 "
                      "q_lora_rank=1536 kv_lora_rank=512 qk_nope_head_dim=128 qk_rope_head_dim=64 "
                      "v_head_dim=128 topk_method=greedy"},
    HuggingFaceFamily{"deepseek_v3 kimi_k2 kimi_k25 kimi_vl", "", kRoutedExperts,
                      "latent=true vocab_size=129280 hidden_size=7168 intermediate_size=18432 "
                      "moe_intermediate_size=2048 num_hidden_layers=61 num_attention_heads=128 "
                      "num_key_value_heads=128 n_routed_experts=256 num_experts_per_tok=8 "
                      "n_shared_experts=1 first_k_dense_replace=3 q_lora_rank=1536 "
                      "kv_lora_rank=512 qk_nope_head_dim=128 qk_rope_head_dim=64 v_head_dim=128 "
                      "n_group=8 topk_group=4 topk_method=noaux_tc"},
    HuggingFaceFamily{"axk1", "", kRoutedExperts,
                      "latent=true vocab_size=163840 hidden_size=7168 intermediate_size=18432 "
                      "moe_intermediate_size=2048 num_hidden_layers=61 num_attention_heads=64 "
                      "num_key_value_heads=64 n_routed_experts=192 num_experts_per_tok=8 "
                      "n_shared_experts=1 first_k_dense_replace=1 q_lora_rank=1536 "
                      "kv_lora_rank=512 qk_nope_head_dim=128 qk_rope_head_dim=64 v_head_dim=128 "
                      "n_group=8 topk_group=4 topk_method=noaux_tc"},
    HuggingFaceFamily{"mistral4", "", kRoutedExperts,
                      "latent=true vocab_size=131072 hidden_size=4096 intermediate_size=12288 "
                      "moe_intermediate_size=2048 num_hidden_layers=36 num_attention_heads=32 "
                      "num_key_value_heads=32 n_routed_experts=128 num_experts_per_tok=4 "
                      "n_shared_experts=1 first_k_dense_replace=0 q_lora_rank=1024 "
                      "kv_lora_rank=256 qk_nope_head_dim=64 qk_rope_head_dim=64 v_head_dim=128"},
    HuggingFaceFamily{"sarvam_mla", "", kRoutedExperts,
                      "latent=true vocab_size=262144 hidden_size=4096 intermediate_size=16384 "
                      "moe_intermediate_size=2048 num_hidden_layers=32 num_attention_heads=64 "
                      "num_key_value_heads=64 n_routed_experts=128 num_experts_per_tok=8 "
                      "n_shared_experts=1 first_k_dense_replace=1 q_lora_rank=0 kv_lora_rank=512 "
                      "qk_nope_head_dim=128 qk_rope_head_dim=64 v_head_dim=128"},
    HuggingFaceFamily{"sarvam_moe", "",
                      "experts=num_experts shared=num_shared_experts "
                      "shared_width=moe_intermediate_size",
                      "vocab_size=262144 hidden_size=4096 intermediate_size=8192 "
                      "moe_intermediate_size=1024 num_hidden_layers=19 num_attention_heads=64 "
                      "num_key_value_heads=4 num_experts=128 num_experts_per_tok=6 "
                      "num_shared_experts=1 first_k_dense_replace=1"},
    HuggingFaceFamily{"glm4_moe", "", kRoutedExperts,
                      "vocab_size=151552 hidden_size=4096 intermediate_size=10944 "
                      "moe_intermediate_size=1408 num_hidden_layers=46 num_attention_heads=96 "
                      "num_key_value_heads=8 n_routed_experts=128 num_experts_per_tok=8 "
                      "n_shared_experts=1 first_k_dense_replace=1 topk_method=noaux_tc"},
    HuggingFaceFamily{"glm4v_moe glm4v_moe_text", "", kRoutedExperts,
                      "vocab_size=151424 hidden_size=4096 intermediate_size=10944 "
                      "moe_intermediate_size=1408 num_hidden_layers=46 num_attention_heads=96 "
                      "num_key_value_heads=8 n_routed_experts=128 num_experts_per_tok=8 "
                      "n_shared_experts=1 first_k_dense_replace=1 topk_method=noaux_tc"},
    HuggingFaceFamily{"glm4_moe_lite", "", kRoutedExperts,
                      "latent=true vocab_size=154880 hidden_size=2048 intermediate_size=10240 "
                      "moe_intermediate_size=1536 num_hidden_layers=47 num_attention_heads=20 "
                      "num_key_value_heads=20 n_routed_experts=64 num_experts_per_tok=4 "
                      "n_shared_experts=1 first_k_dense_replace=1 q_lora_rank=768 "
                      "kv_lora_rank=512 qk_nope_head_dim=192 qk_rope_head_dim=64 v_head_dim=256 "
                      "topk_method=noaux_tc"},
    HuggingFaceFamily{"dots1", "", kRoutedExperts,
                      "vocab_size=152064 hidden_size=4608 intermediate_size=10944 "
                      "moe_intermediate_size=1408 num_hidden_layers=62 num_attention_heads=32 "
                      "num_key_value_heads=32 n_shared_experts=0 first_k_dense_replace=0 "
                      "sliding_window=4096 max_window_layers=62 topk_method=noaux_tc"},
    HuggingFaceFamily{"solar_open", "", kRoutedExperts,
                      "vocab_size=196608 hidden_size=4096 moe_intermediate_size=1280 "
                      "num_hidden_layers=48 num_attention_heads=64 num_key_value_heads=8 "
                      "head_dim=128 n_routed_experts=128 num_experts_per_tok=8 "
                      "n_shared_experts=1 first_k_dense_replace=0 topk_method=noaux_tc"},
    HuggingFaceFamily{"llama4 llama4_text", "",
                      "experts=num_local_experts expert_width=intermediate_size "
                      "dense_width=intermediate_size_mlp shared_width=intermediate_size",
                      "vocab_size=202048 hidden_size=5120 intermediate_size=8192 "
                      "intermediate_size_mlp=16384 num_hidden_layers=48 num_attention_heads=40 "
                      "num_key_value_heads=8 head_dim=128 num_local_experts=16 "
                      "num_experts_per_tok=1 interleave_moe_layer_step=1 "
                      "attention_chunk_size=8192 no_rope_layer_interval=4"},
    HuggingFaceFamily{"dbrx", "",
                      "hidden=d_model layers=n_layers heads=n_heads "
                      "kv_heads=attn_config.kv_n_heads experts=ffn_config.moe_num_experts "
                      "top_k=ffn_config.moe_top_k expert_width=ffn_config.ffn_hidden_size",
                      "vocab_size=32000 d_model=2048 n_layers=24 n_heads=16 "
                      "attn_config.kv_n_heads=1 ffn_config.moe_num_experts=4 "
                      "ffn_config.moe_top_k=1 ffn_config.ffn_hidden_size=3584"},
    HuggingFaceFamily{"hunyuan_v1_moe hunyuan", "",
                      "top_k=moe_topk expert_width=intermediate_size shared=num_shared_expert "
                      "shared_width=intermediate_size dense_layers=moe_layer_num_skipped",
                      "vocab_size=290943 hidden_size=4096 intermediate_size=11008 "
                      "num_hidden_layers=32 num_attention_heads=32 num_experts=1 moe_topk=1 "
                      "num_shared_expert=1 moe_layer_num_skipped=0"},
    HuggingFaceFamily{"ernie4_5_moe", "",
                      "experts=moe_num_experts top_k=moe_k shared=moe_num_shared_experts "
                      "shared_width=moe_intermediate_size",
                      "vocab_size=103424 hidden_size=2560 intermediate_size=12288 "
                      "num_hidden_layers=28 num_attention_heads=20 num_key_value_heads=4 "
                      "tie_word_embeddings=true moe_intermediate_size=1536 moe_num_experts=64 "
                      "moe_k=6 moe_num_shared_experts=2 moe_layer_start_index=1 "
                      "moe_layer_end_index=-1 moe_layer_interval=1 use_routing_bias=true"},
    HuggingFaceFamily{"granitemoe", "", kLocalExperts,
                      "vocab_size=32000 hidden_size=4096 intermediate_size=11008 "
                      "num_hidden_layers=32 num_attention_heads=32 num_local_experts=8 "
                      "num_experts_per_tok=2"},
    HuggingFaceFamily{"granitemoeshared", "",
                      "experts=num_local_experts expert_width=intermediate_size "
                      "shared_width=shared_intermediate_size",
                      "vocab_size=32000 hidden_size=4096 intermediate_size=11008 "
                      "num_hidden_layers=32 num_attention_heads=32 num_local_experts=8 "
                      "num_experts_per_tok=2 shared_intermediate_size=0"},
    HuggingFaceFamily{"bailing_moe", "",
                      "shared=num_shared_experts shared_width=moe_intermediate_size",
                      "vocab_size=30592 hidden_size=1024 num_hidden_layers=24 "
                      "num_attention_heads=16 num_experts=16 num_shared_experts=0 "
                      "num_experts_per_tok=2 first_k_dense_replace=0 use_sliding_window=false"},
    HuggingFaceFamily{"bailing_moe_v2", "",
                      "shared=num_shared_experts shared_width=moe_intermediate_size",
                      "vocab_size=157184 hidden_size=2048 intermediate_size=5120 "
                      "moe_intermediate_size=512 num_hidden_layers=20 num_attention_heads=16 "
                      "num_key_value_heads=4 head_dim=128 num_experts=256 num_shared_experts=1 "
                      "num_experts_per_tok=8 first_k_dense_replace=1 n_group=8 topk_group=4 "
                      "topk_method=noaux_tc"},
    HuggingFaceFamily{"aria aria_text", "",
                      "experts=moe_num_experts top_k=moe_topk expert_width=intermediate_size "
                      "shared=moe_num_shared_experts shared_width=intermediate_size",
                      "vocab_size=32000 hidden_size=4096 intermediate_size=4096 "
                      "num_hidden_layers=32 num_attention_heads=32 moe_num_experts=8 moe_topk=2 "
                      "moe_num_shared_experts=2"},
    HuggingFaceFamily{"arctic", "",
                      "experts=num_local_experts expert_width=intermediate_size "
                      "shared_width=hidden_size dense_width=intermediate_size",
                      "vocab_size=32000 hidden_size=4096 intermediate_size=14336 "
                      "num_hidden_layers=32 num_attention_heads=32 num_local_experts=8 "
                      "num_experts_per_tok=1 moe_layer_frequency=2 use_residual=false"},
    HuggingFaceFamily{"exaone_moe", "",
                      "shared=num_shared_experts shared_width=moe_intermediate_size",
                      "vocab_size=102400 hidden_size=4096 intermediate_size=16384 "
                      "moe_intermediate_size=1024 num_hidden_layers=32 num_attention_heads=32 "
                      "num_key_value_heads=32 num_experts=64 num_experts_per_tok=8 "
                      "num_shared_experts=1 first_k_dense_replace=1 sliding_window=4096 "
                      "sliding_window_pattern=4 topk_method=noaux_tc"},
    HuggingFaceFamily{"afmoe", "",
                      "shared=num_shared_experts shared_width=moe_intermediate_size "
                      "dense_layers=num_dense_layers",
                      "vocab_size=200192 hidden_size=2048 intermediate_size=6144 "
                      "moe_intermediate_size=1408 num_hidden_layers=32 num_attention_heads=16 "
                      "head_dim=128 num_experts=64 num_experts_per_tok=6 num_shared_experts=2 "
                      "num_dense_layers=1 sliding_window=1024 global_attn_every_n_layers=4 "
                      "output_gate=true topk_method=noaux_tc"},
    HuggingFaceFamily{"hy_v3", "", "shared=num_shared_experts shared_width=moe_intermediate_size",
                      "vocab_size=120832 hidden_size=4096 intermediate_size=13312 "
                      "moe_intermediate_size=1536 num_hidden_layers=80 num_attention_heads=64 "
                      "num_key_value_heads=8 head_dim=128 num_experts=192 num_experts_per_tok=8 "
                      "num_shared_experts=1 first_k_dense_replace=1 topk_method=noaux_tc"},

    HuggingFaceFamily{"qwen3_next qwen3_5_moe qwen3_5_moe_text",
                      "linear attention (gated delta net)", "", ""},
    HuggingFaceFamily{"kimi_linear kimi_k3", "linear attention (Kimi delta attention)", "", ""},
    HuggingFaceFamily{"minimax minimax_text_01 minimax_m1",
                      "linear attention (lightning attention)", "", ""},
    HuggingFaceFamily{"bailing_moe_linear bailing_moe_linear_v2 bailing_hybrid",
                      "linear attention (lightning attention)", "", ""},
    HuggingFaceFamily{"deepseek_v32 glm_moe_dsa", "sparse attention (DSA with its indexer)", "",
                      ""},
    HuggingFaceFamily{"deepseek_v4 deepseek_ref", "sparse attention (over compressed keys)", "",
                      ""},
    HuggingFaceFamily{"minimax_m3 minimax_m3_vl", "sparse attention (by blocks of keys)", "", ""},
    HuggingFaceFamily{"nemotron_h granitemoehybrid bamba", "Mamba-2 layers", "", ""},
    HuggingFaceFamily{"jamba", "Mamba layers", "", ""},
    HuggingFaceFamily{"lfm2_moe", "short convolutions in place of attention", "", ""},
    HuggingFaceFamily{"mimo_v2_flash step3p5 step3p7 laguna", kTwoShapes, "", ""},
    HuggingFaceFamily{"gemma4 gemma4_text", kTwoShapes, "", ""},
    HuggingFaceFamily{"step3 step3_vl step3_text", "multi-matrix factorization attention", "", ""},
    HuggingFaceFamily{"cohere2_moe", "attention and experts beside each other in one layer", "",
                      ""},
    HuggingFaceFamily{"longcat_flash longcat_flash_ngram",
                      "experts without computation, two attentions a layer", "", ""},
    HuggingFaceFamily{"ernie4_5_vl_moe ernie4_5_vl_moe_text ernie4_5_moe_vl",
                      "experts of another width for each modality", "", ""},
    HuggingFaceFamily{"jetmoe", "a mixture of attention heads", "", ""},
    HuggingFaceFamily{"doge", "experts from product keys", "", ""},
    HuggingFaceFamily{"switch_transformers nllb-moe", "an encoder beside the decoder", "", ""},
    HuggingFaceFamily{"llada_moe llada2_moe", "bidirectional attention of a diffusion model", "",
                      ""},
};

}  // namespace

std::span<const HuggingFaceFamily> hugging_face_families() {
    return kFamilies;
}

const HuggingFaceFamily* find_hugging_face_family(std::string_view model_type) {
    for (const HuggingFaceFamily& family : kFamilies) {
        std::string_view rest = family.model_types;
        while (!rest.empty()) {
            const std::size_t end = std::min(rest.find(' '), rest.size());
            if (rest.substr(0, end) == model_type) return &family;
            rest.remove_prefix(std::min(end + 1, rest.size()));
        }
    }
    return nullptr;
}

std::string_view value_in(std::string_view pairs, std::string_view key) {
    while (!pairs.empty()) {
        const std::size_t end = std::min(pairs.find(' '), pairs.size());
        const std::string_view pair = pairs.substr(0, end);
        const std::size_t equal = pair.find('=');
        if (pair.substr(0, equal) == key) return pair.substr(equal + 1);
        pairs.remove_prefix(std::min(end + 1, pairs.size()));
    }
    return {};
}

std::string hugging_face_model_types() {
    std::string all;
    for (const HuggingFaceFamily& family : kFamilies) {
        if (!family.lacks.empty()) continue;
        for (const char c : family.model_types) {
            if (c == ' ')
                all += ", ";
            else
                all += c;
        }
        all += ", ";
    }
    all.resize(all.size() - 2);
    return all;
}

std::string hugging_face_markdown() {
    std::string text = "| model_type | read, or the layer kind that is missing |\n|---|---|\n";
    for (const HuggingFaceFamily& family : kFamilies) {
        std::string types;
        for (const char c : family.model_types) types += c == ' ' ? "`, `" : std::string(1, c);
        fmt::format_to(std::back_inserter(text), "| `{}` | {} |\n", types,
                       family.lacks.empty() ? "read" : family.lacks);
    }
    return text;
}

}  // namespace headway::inline scenario
