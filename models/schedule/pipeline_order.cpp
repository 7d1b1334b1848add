#include "models/schedule/pipeline_order.hpp"

#include <algorithm>
#include <array>
#include <cassert>
#include <deque>

namespace headway::inline schedule {
namespace {

using Part = PipelinePart;

// Appends items of one rank, counting micro-batches by (part, slot). A slot is what a rank holds: a
// chunk, or under DualPipe a direction.
class RankWriter {
  public:
    RankWriter(std::vector<PipelineStep>& out, int micro_batches)
        : out_(out), micro_batches_(micro_batches) {}

    struct Slot {
        int direction = 0;
        int stage = 0;
    };
    std::array<Slot, 2> slots{};

    void forward(int slot) { out_.push_back({next_forward(slot), {}}); }
    void backward(int slot) { out_.push_back({next_backward(slot, Part::backward), {}}); }
    // The weight gradient waits in a queue for weight_gradient().
    void backward_input(int slot) {
        const PipelineItem item = next_backward(slot, Part::backward_input);
        queued_.push_back(item);
        out_.push_back({item, {}});
    }
    void forward_with_backward(int forward_slot, int backward_slot) {
        const PipelineItem f = next_forward(forward_slot);
        out_.push_back({f, next_backward(backward_slot, Part::backward)});
    }
    void weight_gradient() {
        assert(!queued_.empty());
        PipelineItem item = queued_.front();
        queued_.pop_front();
        item.part = Part::backward_weight;
        out_.push_back({item, {}});
    }
    void all_weight_gradients() {
        while (!queued_.empty()) weight_gradient();
    }

    bool forward_left(int slot) const { return forwards_[at(slot)] < micro_batches_; }
    bool backward_left(int slot) const { return backwards_[at(slot)] < micro_batches_; }
    int forwards(int slot) const { return forwards_[at(slot)]; }
    int queued() const { return static_cast<int>(queued_.size()); }

  private:
    static std::size_t at(int slot) { return static_cast<std::size_t>(slot); }
    PipelineItem next_forward(int slot) {
        return {Part::forward, slots[at(slot)].direction, slots[at(slot)].stage,
                forwards_[at(slot)]++};
    }
    PipelineItem next_backward(int slot, Part part) {
        return {part, slots[at(slot)].direction, slots[at(slot)].stage, backwards_[at(slot)]++};
    }

    std::vector<PipelineStep>& out_;
    int micro_batches_;
    std::array<int, 2> forwards_{}, backwards_{};
    std::deque<PipelineItem> queued_;
};

void gpipe(std::vector<PipelineStep>& out, int rank, int m) {
    for (int i = 0; i < m; ++i) out.push_back({{Part::forward, 0, rank, i}, {}});
    for (int i = m; i-- > 0;) out.push_back({{Part::backward, 0, rank, i}, {}});
}

// p - 1 - rank forwards, then pairs, then the rest (Narayanan et al. 2021, arXiv 2104.04473).
void one_f_one_b(RankWriter& w, int rank, int p, int m) {
    w.slots[0].stage = rank;
    for (int i = std::min(m, p - 1 - rank); i > 0; --i) w.forward(0);
    while (w.backward_left(0)) {
        if (w.forward_left(0)) w.forward(0);
        w.backward(0);
    }
}

// Megatron-LM's table of virtual micro-batches: groups of g micro-batches pass through the chunks
// in turn; 2 (p - 1 - rank) + (v - 1) g forwards warm up, one more when pairs run as one step,
// because the pair's forward may not need the pair's backward.
void interleaved(std::vector<PipelineStep>& out, int rank, const PipelineShape& shape, bool pairs) {
    const int p = shape.ranks, v = shape.chunks, m = shape.micro_batches;
    const int g = shape.group > 0 ? shape.group : p;
    struct Virtual {
        int chunk, micro_batch;
    };
    std::vector<Virtual> table;
    table.reserve(static_cast<std::size_t>(m * v));
    for (int low = 0; low < m; low += g)
        for (int chunk = 0; chunk < v; ++chunk)
            for (int i = low; i < std::min(m, low + g); ++i) table.push_back({chunk, i});
    const auto forward = [&](int k) {
        const Virtual& at = table[static_cast<std::size_t>(k)];
        return PipelineItem{Part::forward, 0, at.chunk * p + rank, at.micro_batch};
    };
    const auto backward = [&](int k) {
        const Virtual& at = table[static_cast<std::size_t>(k)];
        return PipelineItem{Part::backward, 0, (v - 1 - at.chunk) * p + rank, at.micro_batch};
    };
    const int total = m * v;
    const int warm_up = std::min(total, 2 * (p - 1 - rank) + (v - 1) * g + (pairs ? 1 : 0));
    for (int k = 0; k < warm_up; ++k) out.push_back({forward(k), {}});
    for (int k = 0; k < total; ++k) {
        const bool has_forward = k + warm_up < total;
        if (has_forward && pairs) {
            out.push_back({forward(k + warm_up), backward(k)});
            continue;
        }
        if (has_forward) out.push_back({forward(k + warm_up), {}});
        out.push_back({backward(k), {}});
    }
}

// ZB-H1 keeps `rank` weight gradients back for the tail, ZB-H2 twice as many after a warm-up that
// is twice as long (Qi et al. 2024, arXiv 2401.10241).
void zero_bubble_h(RankWriter& w, int rank, int p, int m, int h) {
    w.slots[0].stage = rank;
    for (int i = std::min(m, h * (p - 1 - rank)); i > 0; --i) w.forward(0);
    while (w.backward_left(0)) {
        if (w.forward_left(0)) w.forward(0);
        w.backward_input(0);
        if (w.queued() > h * rank) w.weight_gradient();
    }
    w.all_weight_gradients();
}

// Stages rank and 2p - 1 - rank: the first loss comes back to the rank that will use it first. The
// warm-up fills 2p chunks, the steady state replaces each as it is released (Qi et al. 2024, arXiv
// 2405.15362); the tail splits backward so that weight gradients fill it.
void zero_bubble_v(RankWriter& w, int rank, int p) {
    w.slots = {{{0, rank}, {0, 2 * p - 1 - rank}}};
    const auto forward = [&](int slot) {
        if (w.forward_left(slot)) w.forward(slot);
    };
    const auto backward = [&](int slot) {
        if (!w.backward_left(slot)) return;
        w.backward_input(slot);
        w.weight_gradient();
    };
    const auto input_only = [&](int slot) {
        if (w.backward_left(slot)) w.backward_input(slot);
    };
    for (int i = 2 * (p - rank) - 1; i > 0; --i) forward(0);
    for (int i = 0; i < rank; ++i) forward(1), forward(0);
    for (int i = p - rank; i > 0; --i) forward(1), backward(1);
    while (w.forward_left(0) || w.forwards(1) < w.forwards(0)) {
        forward(0), backward(0);
        forward(1), backward(1);
    }
    for (int i = 0; i < rank; ++i) input_only(0), input_only(1);
    for (int i = p - rank; i > 0; --i) {
        input_only(0);
        if (w.queued() > 0) w.weight_gradient();
    }
    w.all_weight_gradients();
}

// The eight steps of deepseek-ai/DualPipe (DeepSeek-V3, arXiv 2412.19437): `far` is how many ranks
// lie between this one and the middle, where the two directions meet. Slot 0 is the direction (or
// chunk) that starts here. DualPipeV is half of it, with `pairs` for its own number of
// micro-batches.
void dualpipe_steps(RankWriter& w, int near, int far, int pairs) {
    for (int i = 0; i < 2 * far; ++i) w.forward(0);
    for (int i = 0; i <= near; ++i) w.forward(0), w.forward(1);
    for (int i = 0; i < far; ++i) w.backward_input(1), w.weight_gradient(), w.forward(1);
    for (int i = 0; i < pairs; ++i) {
        if (i == 0 && far == 0) {  // nothing comes between the loss and its backward here
            w.forward(0);
            w.backward(1);
        } else {
            w.forward_with_backward(0, 1);
        }
        w.forward_with_backward(1, 0);
    }
    for (int i = 0; i < far; ++i) w.backward(1), w.forward_with_backward(1, 0);
    // The second half of these runs without its weight gradients.
    const auto backward = [&](int slot, int done) {
        done > near ? w.backward_input(slot) : w.backward(slot);
    };
    for (int i = 0; i <= near; ++i) backward(1, 2 * i), backward(0, 2 * i + 1);
    for (int i = 0; i < far; ++i) w.weight_gradient(), w.backward_input(0);
    w.all_weight_gradients();
}

void dualpipe(RankWriter& w, int rank, int p, int m) {
    const int near = std::min(rank, p - 1 - rank), far = p / 2 - near - 1;
    const RankWriter::Slot first{0, rank}, second{1, p - 1 - rank};
    w.slots = rank < p / 2 ? std::array{first, second} : std::array{second, first};
    dualpipe_steps(w, near, far, m / 2 - p + near + 1);
}

void dualpipe_v(RankWriter& w, int rank, int p, int m) {
    w.slots = {{{0, rank}, {0, 2 * p - 1 - rank}}};
    dualpipe_steps(w, rank, p - 1 - rank, m - 2 * p + rank + 1);
}

bool has_virtual_stages(PipelineSchedule s) {
    return s == PipelineSchedule::interleaved || s == PipelineSchedule::combined_1f1b;
}

bool is_v(PipelineSchedule s) {
    return s == PipelineSchedule::zb_v || s == PipelineSchedule::dualpipe_v;
}

}  // namespace

std::string pipeline_rule_broken(PipelineSchedule schedule, const PipelineShape& shape) {
    const int p = shape.ranks, v = shape.chunks, m = shape.micro_batches;
    const int g = shape.group > 0 ? shape.group : p;
    const std::string who(name(schedule));
    const auto text = [](int n) { return std::to_string(n); };
    if (p < 1 || v < 1 || m < 1) return "ranks, chunks and micro-batches are at least 1";
    if (is_v(schedule) && v != 2) return who + " has 2 chunks on every rank, not " + text(v);
    if (!is_v(schedule) && !has_virtual_stages(schedule) && v != 1)
        return who + " has 1 chunk on every rank, not " + text(v) +
               "; interleaved and combined_1f1b have more";
    if (schedule == PipelineSchedule::combined_1f1b && p > 1 && v < 2)
        return who + " needs at least 2 chunks on every rank of a pipeline of " + text(p);
    if (has_virtual_stages(schedule) && p > 1) {
        if (g < p)
            return who + ": groups of " + text(g) + " micro-batches, fewer than " + text(p) +
                   " ranks";
        if (const int rest = m % g; rest > 0 && rest < p)
            return who + " leaves " + text(rest) + " of " + text(m) +
                   " micro-batches to a last group that is smaller than " + text(p) +
                   " ranks; nearest: " + (m > rest ? text(m - rest) + " or " : "") +
                   text(m - rest + g) + " micro-batches";
    }
    if (schedule == PipelineSchedule::dualpipe) {
        if (p % 2 != 0)
            return who + " needs an even number of ranks, not " + text(p) +
                   "; nearest: " + text(p + 1);
        if (m % 2 != 0 || m < 2 * p)
            return who + " needs an even number of at least " + text(2 * p) +
                   " micro-batches, not " + text(m) +
                   "; nearest: " + text(std::max(2 * p, m + m % 2));
    }
    if (schedule == PipelineSchedule::dualpipe_v && m < 2 * p)
        return who + " needs at least " + text(2 * p) + " micro-batches, not " + text(m);
    return {};
}

bool has_pairs(PipelineSchedule schedule) {
    return schedule == PipelineSchedule::combined_1f1b || schedule == PipelineSchedule::dualpipe ||
           schedule == PipelineSchedule::dualpipe_v;
}

PipelineOrder pipeline_places(PipelineSchedule schedule, const PipelineShape& shape) {
    const bool dual = schedule == PipelineSchedule::dualpipe;
    return {.ranks = shape.ranks,
            .stages = shape.ranks * shape.chunks,
            .directions = dual ? 2 : 1,
            .micro_batches = dual ? shape.micro_batches / 2 : shape.micro_batches,
            .v_shaped = is_v(schedule),
            .steps = {}};
}

PipelineOrder pipeline_order(PipelineSchedule schedule, const PipelineShape& shape) {
    assert(pipeline_rule_broken(schedule, shape).empty());
    PipelineOrder order = pipeline_places(schedule, shape);
    const int p = shape.ranks, m = order.micro_batches;
    order.steps.resize(static_cast<std::size_t>(p));
    for (int rank = 0; rank < p; ++rank) {
        std::vector<PipelineStep>& out = order.steps[static_cast<std::size_t>(rank)];
        // At most forward, input gradient and weight gradient of every micro-batch and chunk.
        const int parts = splits_backward(schedule) ? 3 : 2;
        out.reserve(static_cast<std::size_t>(parts * m * order.stages / p * order.directions));
        RankWriter writer(out, m);
        switch (schedule) {
            case PipelineSchedule::gpipe:
                gpipe(out, rank, m);
                break;
            case PipelineSchedule::one_f_one_b:
                one_f_one_b(writer, rank, p, m);
                break;
            case PipelineSchedule::interleaved:
            case PipelineSchedule::combined_1f1b:
                interleaved(out, rank, shape, schedule == PipelineSchedule::combined_1f1b);
                break;
            case PipelineSchedule::zb_h1:
                zero_bubble_h(writer, rank, p, m, 1);
                break;
            case PipelineSchedule::zb_h2:
                zero_bubble_h(writer, rank, p, m, 2);
                break;
            case PipelineSchedule::zb_v:
                zero_bubble_v(writer, rank, p);
                break;
            case PipelineSchedule::dualpipe:
                dualpipe(writer, rank, p, shape.micro_batches);
                break;
            case PipelineSchedule::dualpipe_v:
                dualpipe_v(writer, rank, p, m);
                break;
        }
    }
    return order;
}

std::vector<FirstForward> first_forwards(const std::vector<PipelineStep>& steps) {
    std::vector<FirstForward> first;
    const auto look = [&](const PipelineItem& item, std::size_t step) {
        if (item.part == PipelinePart::forward && item.micro_batch == 0)
            first.push_back({step, item.stage});
    };
    for (std::size_t i = 0; i < steps.size(); ++i) {
        look(steps[i].item, i);
        if (steps[i].beside) look(*steps[i].beside, i);
    }
    return first;
}

}  // namespace headway::inline schedule
