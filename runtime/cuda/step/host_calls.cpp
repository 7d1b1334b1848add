#include "runtime/cuda/step/host_calls.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "kernels/block/attention_half.hpp"
#include "kernels/check.hpp"
#include "models/vocab/quantile.hpp"
#include "models/workload/workload.hpp"
#include "runtime/cuda/ep_layer.hpp"
#include "runtime/cuda/hp_layer.hpp"
#include "runtime/cuda/own_stream.hpp"
#include "runtime/cuda/row_kernels.hpp"
#include "runtime/cuda/step/attention_phases.hpp"

namespace headway::runtime {
namespace {

using bf16 = __nv_bfloat16;

constexpr int kTokens = 512, kHeadWidth = 256, kLayers = 30, kWarmups = 2, kRepeats = 9;
constexpr std::int64_t kReduced = 1 << 18;  // elements of a layer's gradients

// Two heads, or one a rank; eight experts a rank.
Scenario small_layer(int ranks) {
    const int heads = std::max(2, ranks), width = heads * kHeadWidth;
    Scenario s{.name = "host_calls"};
    s.model = {.name = s.name, .hidden = width, .num_layers = 1};
    s.model.attention = {.num_heads = 2 * heads, .num_kv_heads = 2 * heads, .head_width = 128};
    s.model.moe = {
        .num_experts = 8 * ranks, .top_k = 2, .expert_width = 512, .activation = Activation::gelu};
    s.batch.sequence_length = kTokens;
    s.cluster.num_nodes = 1;
    s.cluster.gpus_per_node = ranks;
    s.plans = {{.name = "ep_naive", .layer = ExpertParallel{}, .group_size = ranks},
               {.name = "hp",
                .layer = HeadParallel{.num_heads = heads,
                                      .head_width = kHeadWidth,
                                      .num_experts = 8 * ranks,
                                      .top_k = 2,
                                      .expert_width = 512},
                .group_size = ranks}};
    return s;
}

// The host's time from one phase's begin to the next one's.
class HostClock {
  public:
    struct Lap {
        CallSite site;
        double seconds;
    };

    void enter(CallSite site) {
        leave();
        site_ = site;
        begin_ = std::chrono::steady_clock::now();
    }
    void leave() {
        if (!site_) return;
        const auto now = std::chrono::steady_clock::now();
        laps_.push_back({*site_, std::chrono::duration<double>(now - begin_).count()});
        site_.reset();
    }
    std::vector<Lap> take() { return std::exchange(laps_, {}); }

  private:
    std::optional<CallSite> site_;
    std::chrono::steady_clock::time_point begin_;
    std::vector<Lap> laps_;
};

// The laps of layer after layer, each as the rank had it that was last in that layer: ranks meet in
// every layer's exchanges, so that the later host is the one that counts. What is waited for there
// is no host's work.
std::vector<HostClock::Lap> of_the_last(DeviceCommunicator& communicator,
                                        std::vector<HostClock::Lap> laps) {
    std::vector<std::int64_t> own;  // ps
    for (const auto& lap : laps) own.push_back(static_cast<std::int64_t>(1e12 * lap.seconds));
    const auto all = communicator.all_gather_counts(own);
    const std::size_t count = laps.size() / kLayers;
    for (std::size_t first = 0; first < laps.size(); first += count) {
        std::int64_t most = -1;
        std::size_t last = 0;
        for (std::size_t rank = 0; rank < all.size(); rank += laps.size()) {
            std::int64_t sum = 0;
            for (std::size_t i = first; i < first + count; ++i)
                if (laps[i].site.phase != Phase::count_exchange) sum += all[rank + i];
            if (sum <= most) continue;
            most = sum;
            last = rank;
        }
        for (std::size_t i = first; i < first + count; ++i)
            laps[i].seconds = 1e-12 * static_cast<double>(all[last + i]);
    }
    return laps;
}

// A layer with the attention before it, and the reduction of its gradients behind it.
class Block {
  public:
    Block(DeviceContext& context, const Scenario& scenario, const Plan& plan)
        : context_(context),
          half_(context.blas, shape_of(scenario), scenario.model.hidden, attention(scenario)) {
        const LayerSetup setup = layer_setup(scenario, plan);
        const std::int64_t width = scenario.model.hidden, elements = kTokens * width;
        if (setup.head_parallel) {
            hp_ = std::make_unique<CudaHpLayer>(context, setup);
            const auto& w = hp_->weights();
            const auto sizes = hp_->sizes();
            fill({w.project, w.merge, w.w1, w.w2}, sizes);
            fill_normal(w.router, sizes[4], kSigma, 5, context.stream);
        } else {
            ep_ = std::make_unique<CudaEpLayer>(context, setup, kTokens);
            const auto& w = ep_->weights();
            fill({w.router, w.w1, w.w2}, ep_->sizes());
        }
        for (bf16** rows : {&x_, &h_, &y_, &dy_, &dx_}) *rows = taken<bf16>(elements);
        parameters_ = {taken<float>(width), taken<float>(width), taken<bf16>(3 * width * width),
                       taken<bf16>(width * width)};
        DeviceArena& arena = context.arena;
        gradients_ = {arena.take<float>(width), arena.take<float>(width),
                      arena.take<float>(3 * width * width), arena.take<float>(width * width)};
        saved_ = arena.take_bytes(half_.saved_bytes());
        workspace_ = arena.take_bytes(half_.workspace_bytes());
        reduced_ = taken<float>(kReduced);
    }

    void run() {
        std::optional<DevicePhase> phase;
        half_.forward(parameters_, x_, nullptr, h_, saved_, workspace_, context_.stream,
                      attention_phases(context_, Pass::forward, phase));
        phase.reset();
        bf16* normed = half_.normed(saved_);
        ep_ ? ep_->forward(normed, y_, nullptr) : hp_->forward(normed, y_, nullptr);
        ep_ ? ep_->backward(normed, dy_, dx_) : hp_->backward(normed, dy_, dx_);
        half_.backward(parameters_, h_, dx_, dy_, y_, gradients_, saved_, workspace_,
                       context_.stream, attention_phases(context_, Pass::backward, phase));
        phase.reset();
        if (context_.communicator.size() > 1) reduce();
    }
    void wait() {
        context_.communicator.wait(context_.stream);
        context_.communicator.wait(beside_.stream);
    }

  private:
    static constexpr float kSigma = 0.02F;

    static kernels::AttentionShape shape_of(const Scenario& s) {
        return {1, kTokens, s.model.attention.num_heads, s.model.attention.head_width};
    }
    std::unique_ptr<kernels::Attention> attention(const Scenario& s) {
        return make_step_attention(context_, shape_of(s));
    }
    template <class T>
    T* taken(std::int64_t count) {
        T* at = context_.arena.take<T>(count);
        fill_normal(at, count, kSigma, 7, context_.stream);
        return at;
    }
    void fill(std::initializer_list<bf16*> tensors, const std::vector<std::int64_t>& sizes) {
        auto size = sizes.begin();
        for (bf16* tensor : tensors) fill_normal(tensor, *size++, kSigma, 3, context_.stream);
    }
    // As CudaStep does it.
    void reduce() {
        const DevicePhase phase(context_, {Phase::grad_all_reduce, Pass::update});
        HEADWAY_CUDA_CHECK(cudaEventRecord(whole_.event, context_.stream));
        HEADWAY_CUDA_CHECK(cudaStreamWaitEvent(beside_.stream, whole_.event));
        context_.communicator.all_reduce_sum(reduced_, kReduced, beside_.stream);
    }

    DeviceContext& context_;
    kernels::AttentionHalf half_;
    std::unique_ptr<CudaEpLayer> ep_;
    std::unique_ptr<CudaHpLayer> hp_;
    bf16 *x_ = nullptr, *h_ = nullptr, *y_ = nullptr, *dy_ = nullptr, *dx_ = nullptr;
    kernels::AttentionHalfParameters parameters_;
    kernels::AttentionHalfGradients gradients_;
    void *saved_ = nullptr, *workspace_ = nullptr;
    float* reduced_ = nullptr;
    OwnStream beside_;
    OwnEvent whole_;
};

// The phase's only kind of call and how many there are; none: they are of several kinds, or the
// phase has the wait for counts in it.
std::optional<std::pair<std::size_t, double>> only_kind(const PerHostCall<double>& calls) {
    std::optional<std::pair<std::size_t, double>> only;
    for (std::size_t i = 0; i < kNumHostCalls; ++i) {
        if (calls.values[i] == 0.0) continue;
        if (only) return std::nullopt;
        only = {i, calls.values[i]};
    }
    return only;
}

PerHostCall<double> calls_of(const Plan& plan, CallSite site) {
    PhaseWork work{.phase = site.phase, .pass = site.pass};
    if (site.phase == Phase::grad_all_reduce) work.work = ReduceWork{};
    return own_host_calls(plan, work);
}

// The time of calls of one kind, or of the executions of one phase, and how many there are.
struct Mean {
    double seconds = 0.0, count = 0.0;

    void add(double time, double of) {
        seconds += time;
        count += of;
    }
    double value() const { return seconds / count; }
};

// One repeat.
struct Means {
    PerHostCall<Mean> kinds;
    std::map<std::string, Mean> phases;

    void add(const Plan& plan, const std::vector<HostClock::Lap>& laps) {
        for (const auto& [site, seconds] : laps) {
            phases[fmt::format("host {} {} {}", plan.name, name(site.phase), name(site.pass))].add(
                seconds, 1.0);
            if (const auto only = only_kind(calls_of(plan, site)))
                kinds.values[only->first].add(seconds, only->second);
        }
    }
};

std::vector<OverheadSample> samples_of(const std::vector<Means>& repeats) {
    std::vector<OverheadSample> samples;
    std::map<std::string, std::vector<double>> phases;
    for (const Means& repeat : repeats) {
        for (std::size_t i = 0; i < kNumHostCalls; ++i)
            if (repeat.kinds.values[i].count > 0.0)
                samples.push_back({fmt::format("host_{}", kHostCallNames[i]), 0.0,
                                   repeat.kinds.values[i].value()});
        for (const auto& [phase, mean] : repeat.phases) phases[phase].push_back(mean.value());
    }
    for (auto& [phase, times] : phases) samples.push_back({phase, 0.0, quantile(times, 0.5)});
    return samples;
}

}  // namespace

std::vector<OverheadSample> measure_host_calls(DeviceContext& context) {
    const Scenario scenario = small_layer(context.communicator.size());
    const ArenaScope scope(context.arena);
    HostClock clock;
    const auto entered = std::exchange(context.on_enter, [&](CallSite site) { clock.enter(site); });
    std::vector<std::unique_ptr<Block>> blocks;
    for (const Plan& plan : scenario.plans)
        blocks.push_back(std::make_unique<Block>(context, scenario, plan));
    std::vector<Means> repeats;
    for (int repeat = -kWarmups; repeat < kRepeats; ++repeat) {
        Means means;
        for (std::size_t p = 0; p < blocks.size(); ++p) {
            context.communicator.barrier();
            for (int layer = 0; layer < kLayers; ++layer) blocks[p]->run();
            clock.leave();
            blocks[p]->wait();
            means.add(scenario.plans[p], of_the_last(context.communicator, clock.take()));
        }
        if (repeat >= 0) repeats.push_back(std::move(means));
    }
    context.on_enter = entered;
    return samples_of(repeats);
}

}  // namespace headway::runtime
