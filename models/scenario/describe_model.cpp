#include "models/scenario/describe.hpp"

namespace headway::inline scenario {
namespace {

constexpr Range kWidth = {1, 1 << 20};
constexpr Range kWidthOrNone = {0, 1 << 20};

void describe_latent(Fields& f, LatentAttention& latent) {
    f.integer("query_rank", latent.query_rank, kWidthOrNone,
              "rank of the query projection; 0: queries are projected directly", optional);
    f.integer("kv_rank", latent.kv_rank, kWidth, "rank of the shared key and value projection");
    f.integer("nope_width", latent.nope_width, kWidth,
              "query and key width per head without rotary embedding");
    f.integer("rope_width", latent.rope_width, kWidthOrNone,
              "query and key width per head with rotary embedding");
    f.integer("value_width", latent.value_width, kWidth, "value width per head");
}

void describe_attention(Fields& f, Attention& attention) {
    f.integer("num_heads", attention.num_heads, {1, 65536}, "query heads");
    f.integer("num_kv_heads", attention.num_kv_heads, {1, 65536},
              "key and value heads; divides num_heads");
    f.integer("head_width", attention.head_width, kWidth, "width of one head");
    f.map("latent", attention.latent,
          "multi-head latent attention: low-rank query, key and value projections",
          describe_latent);
    f.flag("output_gate", attention.output_gate,
           "each head's output is multiplied by a gate from the layer's input", optional);
    f.integer("window", attention.window, {1, 1 << 24}, "window of attention in tokens");
    f.choice("window_kind", attention.window_kind, kWindowKindNames,
             "sliding: a query sees the last tokens; chunked: those of its own chunk", optional);
    f.integer("window_every", attention.window_every, {1, 1024},
              "the window is on every n-th layer from the first; 1: on every layer", optional);
    f.integer("full_every", attention.full_every, {0, 1024},
              "every n-th layer, the n-th the first, is without the window; 0: none is", optional);
}

void describe_moe(Fields& f, Moe& moe) {
    f.integer("num_experts", moe.num_experts, {1, 65536}, "routed experts E");
    f.integer("top_k", moe.top_k, {1, 1024}, "experts per token k, at most num_experts");
    f.integer("expert_width", moe.expert_width, kWidth, "hidden width of one expert f");
    f.choice(
        "activation", moe.activation, kActivationNames,
        "swiglu and quick_geglu (clamped, as in GPT-OSS) are gated, with three matrices an expert; "
        "the others have two",
        optional);
    f.flag("add_bias_linear", moe.add_bias_linear,
           "the products of a routed expert add a bias (experts of heads have none)", optional);
    f.integer("num_shared_experts", moe.num_shared_experts, {0, 1024},
              "experts that every token passes", optional);
    f.integer("shared_expert_width", moe.shared_expert_width, kWidthOrNone,
              "hidden width of one shared expert", optional);
    f.choice("router_dtype", moe.router_dtype, kTensorDtypeNames, "type the logits are computed in",
             optional);
    f.number("capacity_factor", moe.capacity_factor, {.low = 0.1, .high = 1024},
             "tokens an expert takes over the mean, the rest is dropped; left out: dropless");
    f.flag("aux_free_bias", moe.aux_free_bias,
           "balancing by a selection bias per expert instead of an auxiliary loss", optional);
    f.integer("num_expert_groups", moe.num_expert_groups, {1, 65536},
              "group-limited routing: groups of experts; divides num_experts", optional);
    f.integer("top_groups", moe.top_groups, {1, 65536},
              "group-limited routing: groups a token may use", optional);
    f.choice(
        "group_score", moe.group_score, kGroupScoreNames,
        "what the groups of a token (nodes, under node_limit) are best in: the sum of their two "
        "best scores (DeepSeek-V3), their best score (DeepSeek-V2), or random: drawn by their "
        "popularity",
        optional);
}

}  // namespace

void describe(Fields& f, ModelSpec& model) {
    f.text("name", model.name, "name in tables and messages");
    f.integer("vocab_size", model.vocab_size, {1, 1 << 24}, "tokens of the vocabulary");
    f.integer("hidden", model.hidden, kWidth, "hidden width d");
    f.integer("num_layers", model.num_layers, {1, 10000},
              "transformer layers, dense ones included");
    f.integer("num_dense_layers", model.num_dense_layers, {0, 10000},
              "first layers, with a dense feed-forward instead of experts", optional);
    f.integer("moe_every", model.moe_every, {1, 1024},
              "after the first dense layers every n-th layer has experts, the others are dense",
              optional);
    f.integer(
        "mtp_num_layers", model.mtp_num_layers, {0, 64},
        "layers of multi-token prediction (MTP) behind the others, of the last one's kind, each "
        "with the shared head and a loss of its own",
        optional);
    f.integer("dense_width", model.dense_width, kWidthOrNone,
              "hidden width of the dense feed-forward", optional);
    f.choice("dense_activation", model.dense_activation, kActivationNames,
             "activation of the dense feed-forward", optional);
    f.map("attention", model.attention, "attention shape", describe_attention);
    f.map("moe", model.moe, "Mixture-of-Experts layer", describe_moe);
    f.flag("tied_embeddings", model.tied_embeddings, "the output head shares the embedding matrix",
           optional);
    f.choice("dtype", model.dtype, kTensorDtypeNames,
             "type of parameters in compute, activations and traffic", optional);
    f.text("source", model.source, "where the numbers come from", optional);
}

}  // namespace headway::inline scenario
