#include "models/workload/schedule.hpp"

#include <algorithm>
#include <array>
#include <stdexcept>
#include <variant>

namespace headway::inline workload {
namespace {

Stream stream_of_host(HostPart part) {
    switch (part) {
        case HostPart::down:
            return Stream::offload;
        case HostPart::up:
            return Stream::reload;
        case HostPart::optimizer:
            break;
    }
    return Stream::host;
}

// Appends slots; knows the last one of each stream.
class SlotList {
  public:
    explicit SlotList(std::span<const PhaseWork> phases) : phases_(phases) {}

    Stream stream_of(int phase) const {
        const PhaseWork& work = phases_[static_cast<std::size_t>(phase)];
        if (std::holds_alternative<ComputeWork>(work.work)) return Stream::compute;
        if (const auto* host = std::get_if<HostWork>(&work.work)) return stream_of_host(host->part);
        return work.beside == Beside::pass ? Stream::gradient : Stream::communication;
    }
    int last_of(Stream stream) const { return last_[static_cast<std::size_t>(stream)]; }

    int add(int phase, int after, int chunk = 0, int num_chunks = 1, bool ring = false) {
        const Stream stream = stream_of(phase);
        slots_.push_back({phase, chunk, num_chunks, stream, after, ring});
        return last_[static_cast<std::size_t>(stream)] = static_cast<int>(slots_.size()) - 1;
    }

    // Chunks: the exchanges in run one chunk ahead, those out follow their chunk's compute.
    void add_pipeline(PhaseRange range, int num_chunks) {
        const int ready = last_of(Stream::compute);
        int in = range.begin + 1, out = range.end - 1;
        while (stream_of(in) != Stream::compute) ++in;
        while (stream_of(out - 1) != Stream::compute) --out;
        std::vector<int> arrived, computed;
        const auto bring = [&](int c) {
            for (int i = range.begin; i < in; ++i) add(i, ready, c, num_chunks);
            arrived.push_back(last_of(Stream::communication));
        };
        const auto send = [&](int c) {
            for (int i = out; i < range.end; ++i)
                add(i, computed[static_cast<std::size_t>(c)], c, num_chunks);
        };
        bring(0);
        for (int c = 0; c < num_chunks; ++c) {
            if (c + 1 < num_chunks) bring(c + 1);
            for (int i = in; i < out; ++i)
                add(i, arrived[static_cast<std::size_t>(c)], c, num_chunks);
            computed.push_back(last_of(Stream::compute));
            if (c > 0) send(c - 1);
        }
        send(num_chunks - 1);
    }

    // A ring of n ranks from phase `begin` on: gathers, the compute phase beside which they run,
    // and scatters of its result. The part at hand is worked on while the next one travels and the
    // sums of the last one do, n parts of which n-1 travel. Returns the phase behind the ring.
    int add_ring(int begin) {
        const int compute = after_all(begin, Beside::next_phase),
                  end = after_all(compute + 1, Beside::previous_phase);
        const PhaseWork& outer =
            phases_[static_cast<std::size_t>(begin < compute ? begin : compute + 1)];
        const int n = std::get<ReduceWork>(outer.work).group_size, ready = last_of(Stream::compute);
        int arrived = last_of(Stream::communication);
        for (int i = 0; i < n; ++i) {
            const bool travels = i + 1 < n;
            int next = arrived;
            for (int gather = begin; gather < compute && travels; ++gather)
                next = add(gather, ready, i, n - 1, true);
            const int part = add(compute, arrived, i, n, true);
            for (int scatter = compute + 1; scatter < end && travels; ++scatter)
                add(scatter, part, i, n - 1, true);
            arrived = next;
        }
        return end;
    }
    bool begins_ring(int phase) const {
        return phases_[static_cast<std::size_t>(phase)].beside == Beside::next_phase ||
               after_all(phase + 1, Beside::previous_phase) > phase + 1;
    }

    std::vector<Slot> take() { return std::move(slots_); }

  private:
    // The first phase from `phase` on that does not run beside that.
    int after_all(int phase, Beside beside) const {
        const int end = static_cast<int>(phases_.size());
        while (phase < end && phases_[static_cast<std::size_t>(phase)].beside == beside) ++phase;
        return phase;
    }

    std::span<const PhaseWork> phases_;
    std::vector<Slot> slots_;
    std::array<int, kNumStreams> last_ = [] {
        std::array<int, kNumStreams> last{};
        for (int s = 0; s < kNumStreams; ++s)
            last[static_cast<std::size_t>(s)] = before_list(static_cast<Stream>(s));
        return last;
    }();
};

}  // namespace

std::vector<Block> stage_blocks(const PipelineStage& stage, Pass pass, int micro_batch,
                                bool buckets) {
    std::vector<Block> blocks;
    const bool forward = pass == Pass::forward;
    if (forward ? stage.embedding : stage.head_and_loss)
        blocks.push_back({forward ? BlockKind::before : BlockKind::after, pass, -1, micro_batch});
    for (int i = 0; i < stage.num_layers; ++i) {
        const int layer = stage.first_layer + (forward ? i : stage.num_layers - 1 - i);
        blocks.push_back({BlockKind::layer, pass, layer, micro_batch});
        if (buckets) blocks.push_back({BlockKind::bucket, Pass::update, layer, micro_batch});
    }
    if (forward ? stage.head_and_loss : stage.embedding)
        blocks.push_back({forward ? BlockKind::after : BlockKind::before, pass, -1, micro_batch});
    return blocks;
}

PipelineStage whole_model(int num_layers) {
    return {.embedding = true, .head_and_loss = true, .first_layer = 0, .num_layers = num_layers};
}

std::vector<Block> step_blocks(int num_layers, int num_micro_batches) {
    const PipelineStage all = whole_model(num_layers);
    std::vector<Block> blocks;
    for (int m = 0; m < num_micro_batches; ++m) {
        for (const Pass pass : {Pass::forward, Pass::backward}) {
            const bool buckets = pass == Pass::backward && m + 1 == num_micro_batches;
            for (const Block& block : stage_blocks(all, pass, m, buckets)) blocks.push_back(block);
        }
    }
    blocks.push_back({BlockKind::update, Pass::update, -1, num_micro_batches - 1});
    return blocks;
}

std::vector<Slot> pass_slots(std::span<const PhaseWork> phases,
                             const std::vector<PhaseRange>& pipelines, int num_chunks) {
    SlotList slots(phases);
    auto pipeline = pipelines.begin();
    for (int i = 0; i < static_cast<int>(phases.size()); ++i) {
        if (num_chunks > 1 && pipeline != pipelines.end() && i == pipeline->begin) {
            slots.add_pipeline(*pipeline, num_chunks);
            i = pipeline->end - 1;
            ++pipeline;
            continue;
        }
        const PhaseWork& phase = phases[static_cast<std::size_t>(i)];
        if (phase.beside == Beside::pass) {
            slots.add(i, before_list(Stream::compute));
            continue;
        }
        if (slots.begins_ring(i)) {
            i = slots.add_ring(i) - 1;
            continue;
        }
        const bool compute = slots.stream_of(i) == Stream::compute;
        slots.add(i, slots.last_of(compute ? Stream::communication : Stream::compute));
    }
    return slots.take();
}

PhaseRange host_update(std::span<const PhaseWork> update) {
    const auto is_host = [](const PhaseWork& phase) {
        return std::holds_alternative<HostWork>(phase.work);
    };
    const auto first = std::ranges::find_if(update, is_host);
    if (first == update.end()) return {};
    const auto last = std::find_if(update.rbegin(), update.rend(), is_host);
    return {static_cast<int>(first - update.begin()), static_cast<int>(update.rend() - last)};
}

std::vector<Slot> host_update_slots(std::span<const PhaseWork> phases) {
    const int n = std::get<HostWork>(phases.front().work).pieces;
    std::vector<Slot> slots;
    const auto add = [&](int phase, int piece, Stream stream, int after,
                         std::optional<int> also_after = {}) {
        const bool whole = stream == Stream::compute;
        slots.push_back({.phase = phase,
                         .chunk = piece,
                         .num_chunks = whole ? 1 : n,
                         .stream = stream,
                         .after = after,
                         .also_after = also_after});
        return static_cast<int>(slots.size()) - 1;
    };
    std::vector<int> ready(static_cast<std::size_t>(n), before_list(Stream::compute));
    std::optional<int> own;
    for (int phase = 0; phase < static_cast<int>(phases.size()); ++phase) {
        const auto* host = std::get_if<HostWork>(&phases[static_cast<std::size_t>(phase)].work);
        if (host == nullptr) {
            own = add(phase, 0, Stream::compute, n == 1 ? 0 : before_list(Stream::compute));
            continue;
        }
        const bool waits = host->part == HostPart::up;
        for (int i = 0; i < n; ++i) {
            int& at = ready[static_cast<std::size_t>(i)];
            at = add(phase, i, stream_of_host(host->part), at, waits ? own : std::optional<int>());
        }
    }
    return slots;
}

}  // namespace headway::inline workload
