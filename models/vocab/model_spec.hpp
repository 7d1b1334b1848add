// ModelSpec: a decoder-only transformer whose feed-forward layers are dense or sparse (MoE). Plain
// values; shapes follow the field: hidden d, experts E, top-k k, expert width f.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace headway {

// fp8 has a scale a tensor, fp8_block one for 128 elements, mxfp8 one for 32, nvfp4 one for 16.
enum class Dtype { fp64, fp32, bf16, fp16, fp8, fp8_block, mxfp8, nvfp4 };
inline constexpr std::array kDtypeNames = {std::string_view("fp64"),  std::string_view("fp32"),
                                           std::string_view("bf16"),  std::string_view("fp16"),
                                           std::string_view("fp8"),   std::string_view("fp8_block"),
                                           std::string_view("mxfp8"), std::string_view("nvfp4")};
// Types that a tensor may be kept in whole: the first of them.
inline constexpr std::array kTensorDtypeNames = {kDtypeNames[0], kDtypeNames[1], kDtypeNames[2],
                                                 kDtypeNames[3], kDtypeNames[4]};

inline constexpr int kNumDtypes = static_cast<int>(kDtypeNames.size());

// fp16 and bf16 run at one rate: so they do on the tensor cores of every GPU that has both.
constexpr Dtype rate_type(Dtype dtype) {
    return dtype == Dtype::fp16 ? Dtype::bf16 : dtype;
}

constexpr bool is_narrow(Dtype dtype) {
    return dtype >= Dtype::fp8;
}

// The type whose peak a device states for this one: FP8 with scales runs on FP8's units.
constexpr Dtype peak_type(Dtype dtype) {
    return dtype == Dtype::fp8_block || dtype == Dtype::mxfp8 ? Dtype::fp8 : rate_type(dtype);
}

// With the scales.
constexpr double bytes_per_element(Dtype dtype) {
    switch (dtype) {
        case Dtype::fp64:
            return 8.0;
        case Dtype::fp32:
            return 4.0;
        case Dtype::fp8:
            return 1.0;
        case Dtype::fp8_block:
            return 1.0 + 4.0 / 128.0;
        case Dtype::mxfp8:
            return 1.0 + 1.0 / 32.0;
        case Dtype::nvfp4:
            return 0.5 + 1.0 / 16.0;
        default:
            return 2.0;
    }
}

// gelu is exact (erf), gelu_tanh the tanh approximation; swiglu is gated: two up projections, 3
// matrices.
// quick_geglu is GPT-OSS's: g sigmoid(1.702 g) (1 + u) of a gate g clamped from above and a linear
// half u clamped from both sides.
enum class Activation { gelu, gelu_tanh, swiglu, quick_geglu };
inline constexpr std::array kActivationNames = {
    std::string_view("gelu"), std::string_view("gelu_tanh"), std::string_view("swiglu"),
    std::string_view("quick_geglu")};
constexpr bool is_gated(Activation a) {
    return a == Activation::swiglu || a == Activation::quick_geglu;
}
// Weight matrices of one expert: up and down, and the gate when there is one.
constexpr int matrices_per_expert(Activation a) {
    return is_gated(a) ? 3 : 2;
}

// Multi-head latent attention (DeepSeek): low-rank query and key/value projections.
struct LatentAttention {
    int query_rank = 0;  // 0: queries are projected directly
    int kv_rank = 0;
    int nope_width = 0;  // per head, without rotary embedding
    int rope_width = 0;
    int value_width = 0;
};

// sliding: a query sees the last w tokens; chunked: those of its own chunk of w tokens.
enum class WindowKind { sliding, chunked };
inline constexpr std::array kWindowKindNames = {std::string_view("sliding"),
                                                std::string_view("chunked")};

struct Attention {
    int num_heads = 0;
    int num_kv_heads = 0;
    int head_width = 0;
    std::optional<LatentAttention> latent;
    bool output_gate = false;   // a gate of each head's output, from the layer's input
    std::optional<int> window;  // in tokens
    WindowKind window_kind = WindowKind::sliding;
    int window_every = 1;  // layers 0, n, 2n ... have the window
    int full_every = 0;    // > 0: of these, layers n-1, 2n-1 ... see all after all

    bool has_window(int layer) const {
        return window && layer % window_every == 0 &&
               (full_every == 0 || (layer + 1) % full_every != 0);
    }
    // The buffers of tp_comm_overlap: Megatron-LM turns it off where a layer has none of its own,
    // as latent attention's projections have none (core/extensions/transformer_engine.py).
    bool has_user_buffers() const { return !latent; }
};

// Group-limited routing: what a group of experts must be best in. top2_sum: the sum of its two best
// scores (DeepSeek-V3); max: its best score (DeepSeek-V2); random: groups are drawn by the
// popularity of their experts, whatever the scores of the token at hand.
enum class GroupScore { random, max, top2_sum };
inline constexpr std::array kGroupScoreNames = {std::string_view("random"), std::string_view("max"),
                                                std::string_view("top2_sum")};

struct Moe {
    int num_experts = 0;   // E, routed experts
    int top_k = 0;         // k
    int expert_width = 0;  // f
    Activation activation = Activation::swiglu;
    bool add_bias_linear = false;  // of a routed expert's products
    int num_shared_experts = 0;
    int shared_expert_width = 0;  // of one shared expert
    Dtype router_dtype = Dtype::fp32;
    std::optional<double> capacity_factor;  // absent: dropless
    bool aux_free_bias = false;             // selection bias per expert, no auxiliary loss
    int num_expert_groups = 1;              // group-limited routing: pick top_groups groups first
    int top_groups = 1;
    GroupScore group_score = GroupScore::top2_sum;  // also of nodes under a plan's node_limit
};

struct ModelSpec {
    std::string name;
    int vocab_size = 0;
    int hidden = 0;            // d
    int num_layers = 0;        // all of them, dense ones included
    int num_dense_layers = 0;  // first layers, with a dense feed-forward of dense_width
    int moe_every = 1;         // n: each n-th layer after them is MoE, the others are dense
    // Layers that predict further tokens, behind the others and of the last one's kind.
    int mtp_num_layers = 0;
    int dense_width = 0;
    Activation dense_activation = Activation::swiglu;
    Attention attention;
    Moe moe;
    bool tied_embeddings = false;
    Dtype dtype = Dtype::bf16;  // of parameters in compute, activations and traffic
    std::string source;         // where the numbers come from

    // With those of multi-token prediction, which have the numbers from num_layers on.
    int all_layers() const { return num_layers + mtp_num_layers; }
    bool is_mtp_layer(int layer) const { return layer >= num_layers; }
    bool is_moe_layer(int layer) const {
        const int own = std::min(layer, num_layers - 1);
        return own >= num_dense_layers && (own - num_dense_layers + 1) % moe_every == 0;
    }
    bool has_window(int layer) const {
        return attention.has_window(std::min(layer, num_layers - 1));
    }
    int num_moe_layers() const {
        return num_own_moe_layers() + (is_moe_layer(num_layers) ? mtp_num_layers : 0);
    }
    bool has_dense_layers() const { return num_moe_layers() < all_layers(); }
    // The layer that is the i-th MoE layer, from 0.
    int moe_layer(int i) const {
        const int own = num_own_moe_layers();
        return i < own ? num_dense_layers + (i + 1) * moe_every - 1 : num_layers + i - own;
    }

  private:
    int num_own_moe_layers() const { return (num_layers - num_dense_layers) / moe_every; }
};

}  // namespace headway
