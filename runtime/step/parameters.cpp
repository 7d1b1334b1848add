#include "runtime/step/parameters.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "runtime/step/normal_draw.hpp"

namespace headway::runtime {
namespace {

constexpr std::int64_t kAlignment = 64;  // elements, so that rows begin at 128 bytes

// Appends tensors to sections.
class Layout {
  public:
    void begin_section(std::uint64_t number) {
        number_ = number;
        sections_.push_back({.begin = place_, .own = place_, .end = place_});
    }
    void begin_own() {
        own_ = true;
        sections_.back().own = place_;
    }
    // `parts` of the tensor, the first of them number `first` of the model.
    void add(const std::string& name, std::int64_t rows, std::int64_t columns, double sigma,
             bool is_fp32 = false, int parts = 1, int first = 0) {
        Section& section = sections_.back();
        WeightTensor tensor{.name = name,
                            .place = place_,
                            .rows = rows,
                            .columns = columns,
                            .is_fp32 = is_fp32,
                            .sigma = sigma};
        const std::uint64_t key = mixed(number_ << 8 | section.tensors.size());
        for (int i = 0; i < parts; ++i)
            tensor.seeds.push_back(key + static_cast<std::uint64_t>(first + i));
        place_ += (tensor.count() + kAlignment - 1) / kAlignment * kAlignment;
        section.tensors.push_back(std::move(tensor));
    }
    void end_section() {
        if (!own_) sections_.back().own = place_;
        own_ = false;
        sections_.back().end = place_;
    }
    StepParameters take() { return {std::move(sections_)}; }

  private:
    std::vector<Section> sections_;
    std::uint64_t number_ = 0;
    std::int64_t place_ = 0;
    bool own_ = false;
};

double inverse_root(double fan_in) {
    return 1.0 / std::sqrt(fan_in);
}

void add_ep(Layout& layout, const LayerSetup& moe, int rank, double residual) {
    const std::int64_t d = moe.dims.hidden, f = moe.dims.expert_width;
    const int experts = moe.ep.sparse.num_experts, own = experts / moe.num_ranks;
    const std::int64_t gates = is_gated(moe.ep.sparse.activation) ? 2 : 1;
    layout.add("router", experts, d, inverse_root(double(d)));
    layout.begin_own();
    layout.add("w1", own * gates * f, d, inverse_root(double(d)), false, own, rank * own);
    layout.add("w2", own * d, f, residual * inverse_root(double(f)), false, own, rank * own);
}

void add_hp(Layout& layout, const LayerSetup& moe, int rank, double residual) {
    const HpShape& hp = moe.hp;
    const std::int64_t d = moe.dims.hidden, width = hp.head_width, f = moe.dims.expert_width;
    const std::int64_t columns = hp.num_heads * width;
    const int experts = hp.sparse.num_experts, heads = hp.heads_per_rank(),
              first = hp.first_head(rank), own = heads * experts;
    const std::int64_t gates = is_gated(hp.sparse.activation) ? 2 : 1;
    layout.add("project", columns, d, inverse_root(double(d)));
    layout.add("merge", d, columns, residual * inverse_root(double(columns)));
    layout.begin_own();
    layout.add("router", own, width, inverse_root(double(width)), true, heads, first);
    layout.add("w1", own * gates * f, width, inverse_root(double(width)), false, own,
               first * experts);
    layout.add("w2", own * f, width, inverse_root(double(f)), false, own, first * experts);
}

void add_dense(Layout& layout, const ModelSpec& model, double residual) {
    const std::int64_t d = model.hidden, f = model.dense_width;
    layout.add("w1", (is_gated(model.dense_activation) ? 2 : 1) * f, d, inverse_root(double(d)));
    layout.add("w2", d, f, residual * inverse_root(double(f)));
}

}  // namespace

const WeightTensor& Section::operator[](std::string_view name) const {
    const auto it = std::ranges::find(tensors, name, &WeightTensor::name);
    if (it == tensors.end()) throw std::logic_error("no parameters " + std::string(name));
    return *it;
}

StepParameters step_parameters(const StepSetup& setup, int rank) {
    const ModelSpec& model = setup.model;
    const std::int64_t d = model.hidden, vocabulary = model.vocab_size;
    const double scale = inverse_root(double(d));
    const Attention& a = model.attention;
    const std::int64_t queries = std::int64_t{a.num_heads} * a.head_width,
                       keys = std::int64_t{a.num_kv_heads} * a.head_width;
    // What each of the 2 L branches adds to the residual stream is scaled down, as in GPT-2.
    const double residual = inverse_root(2.0 * model.num_layers);
    Layout layout;
    layout.begin_section(0);
    layout.add("embedding", vocabulary, d, 1.0);
    layout.end_section();
    for (int l = 0; l < model.num_layers; ++l) {
        layout.begin_section(static_cast<std::uint64_t>(l) + 1);
        layout.add("norm1", 1, d, 0.0, true);
        layout.add("norm2", 1, d, 0.0, true);
        layout.add("qkv", queries + 2 * keys, d, scale);
        layout.add("output", d, queries, residual * inverse_root(double(queries)));
        if (!model.is_moe_layer(l))
            add_dense(layout, model, residual);
        else if (setup.moe.head_parallel)
            add_hp(layout, setup.moe, rank, residual);
        else
            add_ep(layout, setup.moe, rank, residual);
        layout.end_section();
    }
    layout.begin_section(static_cast<std::uint64_t>(model.num_layers) + 1);
    layout.add("final_norm", 1, d, 0.0, true);
    layout.add("head", vocabulary, d, scale);
    layout.end_section();
    return layout.take();
}

template <class S>
std::vector<S> draw_parameters(const StepParameters& parameters) {
    std::vector<S> flat(static_cast<std::size_t>(parameters.total()));
    for (const Section& section : parameters.sections) {
        for (const WeightTensor& t : section.tensors) {
            S* at = flat.data() + t.place;
            for (const std::uint64_t seed : t.seeds) {
                for (std::int64_t i = 0; i < t.part(); ++i)
                    *at++ = t.sigma > 0.0
                                ? static_cast<S>(static_cast<float>(t.sigma) * normal_at(seed, i))
                                : S(1);
            }
        }
    }
    return flat;
}

template std::vector<float> draw_parameters<float>(const StepParameters&);
template std::vector<double> draw_parameters<double>(const StepParameters&);

}  // namespace headway::runtime
