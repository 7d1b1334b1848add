#include "models/workload/pair_order.hpp"

#include <algorithm>
#include <utility>

#include "models/vocab/error.hpp"

namespace headway::inline workload {
namespace {

bool is_outer_exchange(Phase phase, bool heads) {
    return heads ? phase == Phase::head_scatter || phase == Phase::head_gather
                 : phase == Phase::dispatch || phase == Phase::combine;
}

// A layer's pass cut at its outer exchanges, phases `in` and `out`; without them all is before.
struct LayerCut {
    int layer = -1, in = -1, out = -1, end = 0;
    int counts = -1;  // of a forward, the exchange of counts right before dispatch; else `in`

    bool exchanges() const { return in >= 0; }
    PairPiece piece(Pass pass, int begin, int until, GradientPart part = GradientPart::all) const {
        return {BlockKind::layer, pass, layer, begin, until, part};
    }
};

LayerCut cut(const std::vector<PhaseWork>& phases, int layer) {
    LayerCut result{.layer = layer, .end = static_cast<int>(phases.size())};
    const bool heads = std::any_of(phases.begin(), phases.end(), [](const PhaseWork& p) {
        return p.phase == Phase::head_scatter;
    });
    int found = 0;
    for (int i = 0; i < result.end; ++i) {
        if (!is_outer_exchange(phases[static_cast<std::size_t>(i)].phase, heads)) continue;
        (found++ == 0 ? result.in : result.out) = i;
    }
    result.counts = result.in;
    while (result.counts > 0 && phases[static_cast<std::size_t>(result.in)].pass == Pass::forward &&
           phases[static_cast<std::size_t>(result.counts - 1)].phase == Phase::count_exchange)
        --result.counts;
    if (found != 0 && found != 2)
        throw InputError({.where = "overlap_moe_expert_parallel_comm",
                          .found = "a backward that repeats its exchanges (full recomputation)",
                          .accepted = "other recomputation"});
    return result;
}

std::vector<LayerCut> cut_stage(const Workload& workload, const PipelineStage& stage, Pass pass) {
    std::vector<LayerCut> layers;
    for (int i = 0; i < stage.num_layers; ++i) {
        const int layer =
            stage.first_layer + (pass == Pass::forward ? i : stage.num_layers - 1 - i);
        const LayerWork& work = workload.layers[static_cast<std::size_t>(
            workload.entry_of_layer[static_cast<std::size_t>(layer)])];
        layers.push_back(cut(pass == Pass::forward ? work.forward : work.backward, layer));
    }
    return layers;
}

class PairWriter {
  public:
    PairWriter(std::vector<LayerCut> forward, std::vector<LayerCut> backward, bool delay)
        : f_(std::move(forward)), b_(std::move(backward)), delay_(delay) {}

    std::vector<PairTask> write(const PipelineStage& forward, const PipelineStage& backward) {
        // What of the first layers comes before their exchanges, and what is around them.
        if (forward.embedding) outer(BlockKind::before, Pass::forward);
        if (backward.head_and_loss) outer(BlockKind::after, Pass::backward);
        before_exchange(b_, 0, Pass::backward);
        last_b_ = last_f_ = end_task(Stream::compute, -1);
        for (std::size_t i = 0; i < std::max(f_.size(), b_.size()); ++i) layer_pair(i);
        if (!f_.empty()) after_exchange(f_, f_.size() - 1);
        if (forward.head_and_loss) outer(BlockKind::after, Pass::forward);
        end_task(Stream::compute, last_f_);
        if (backward.embedding) outer(BlockKind::before, Pass::backward);
        end_task(Stream::compute, last_b_);
        return std::move(tasks_);
    }

  private:
    static bool has(const std::vector<LayerCut>& layers, std::size_t i) {
        return i < layers.size();
    }
    static bool exchanges(const std::vector<LayerCut>& layers, std::size_t i) {
        return has(layers, i) && layers[i].exchanges();
    }

    void outer(BlockKind kind, Pass pass) { pieces_.push_back({.kind = kind, .pass = pass}); }
    void add(const PairPiece& piece) {
        if (piece.begin < piece.end) pieces_.push_back(piece);
    }
    // All of a layer that exchanges nothing.
    void before_exchange(const std::vector<LayerCut>& layers, std::size_t i, Pass pass) {
        if (!has(layers, i)) return;
        const LayerCut& c = layers[i];
        add(c.piece(pass, 0, c.exchanges() ? c.counts : c.end));
    }
    void after_exchange(const std::vector<LayerCut>& layers, std::size_t i) {
        const LayerCut& c = layers[i];
        if (c.exchanges()) add(c.piece(Pass::forward, c.out + 1, c.end));
    }
    int end_task(Stream stream, int after) {
        tasks_.push_back({stream, after, std::exchange(pieces_, {})});
        return static_cast<int>(tasks_.size()) - 1;
    }
    int exchange(const LayerCut& c, Pass pass, int phase, int after) {
        add(c.piece(pass, phase, phase + 1));
        return end_task(Stream::communication, after);
    }
    // The host waits for the counts when it comes to dispatch, what it has enqueued since in work
    // (Megatron-LM, token_dispatcher.py, cuda_sync_point before_ep_alltoall).
    int dispatch(const LayerCut& c, int after) {
        if (c.counts < c.in) {
            add(c.piece(Pass::forward, c.counts, c.in));
            after = end_task(Stream::communication, after);
        }
        return exchange(c, Pass::forward, c.in, after);
    }
    // Backward phases; delayed weight gradients are left for delayed().
    void gradients(const LayerCut& c, int begin, int end) {
        add(c.piece(Pass::backward, begin, end, delay_ ? GradientPart::input : GradientPart::all));
    }
    void delayed(const LayerCut& c, int begin, int end) {
        if (!delay_) return;
        add(c.piece(Pass::backward, begin, end, GradientPart::weight));
        end_task(Stream::compute, -1);
    }

    void layer_pair(std::size_t i) {
        const bool moves_f = exchanges(f_, i), moves_b = exchanges(b_, i);
        if (moves_b) last_b_ = exchange(b_[i], Pass::backward, b_[i].in, last_b_);
        if (has(f_, i)) {
            if (i > 0) after_exchange(f_, i - 1);
            before_exchange(f_, i, Pass::forward);
            last_f_ = end_task(Stream::compute, last_f_);
        }
        if (moves_b) {
            gradients(b_[i], b_[i].in + 1, b_[i].out);
            last_b_ = end_task(Stream::compute, last_b_);
        }
        if (moves_f) last_f_ = dispatch(f_[i], last_f_);
        if (moves_b) {
            last_b_ = exchange(b_[i], Pass::backward, b_[i].out, last_b_);
            delayed(b_[i], b_[i].in + 1, b_[i].out);
        }
        if (moves_f) {
            add(f_[i].piece(Pass::forward, f_[i].in + 1, f_[i].out));
            last_f_ = end_task(Stream::compute, last_f_);
            last_f_ = exchange(f_[i], Pass::forward, f_[i].out, last_f_);
        }
        if (!has(b_, i)) return;
        if (moves_b) gradients(b_[i], b_[i].out + 1, b_[i].end);
        before_exchange(b_, i + 1, Pass::backward);
        last_b_ = end_task(Stream::compute, last_b_);
        if (moves_b) delayed(b_[i], b_[i].out + 1, b_[i].end);
    }

    std::vector<LayerCut> f_, b_;
    bool delay_;
    std::vector<PairPiece> pieces_;
    std::vector<PairTask> tasks_;
    int last_f_ = -1, last_b_ = -1;
};

}  // namespace

std::vector<PairTask> pair_tasks(const Workload& workload, const PipelineStage& forward,
                                 const PipelineStage& backward) {
    PairWriter writer(cut_stage(workload, forward, Pass::forward),
                      cut_stage(workload, backward, Pass::backward),
                      workload.pipeline->delay_wgrad);
    return writer.write(forward, backward);
}

}  // namespace headway::inline workload
