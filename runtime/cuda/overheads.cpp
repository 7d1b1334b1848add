#include "runtime/cuda/overheads.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <functional>

#include "kernels/bench/device_info.hpp"
#include "kernels/check.hpp"
#include "kernels/dense/dense_gemm.hpp"
#include "kernels/grouped_gemm/ep_experts.hpp"
#include "models/text/csv_text.hpp"
#include "models/vocab/quantile.hpp"
#include "runtime/cuda/expert_exchange.hpp"
#include "runtime/cuda/own_stream.hpp"
#include "runtime/cuda/row_kernels.hpp"
#include "runtime/phase_samples.hpp"

namespace headway::runtime {
namespace {

using bf16 = __nv_bfloat16;

constexpr int kRepeats = 9;
constexpr std::int64_t kHeadStart = 1'000'000;  // ns that the host gets ahead of the stream
constexpr int kGemm = 2048;                     // m, n and k of the GEMM beside an exchange

struct Events {
    Events() {
        HEADWAY_CUDA_CHECK(cudaEventCreate(&begin));
        HEADWAY_CUDA_CHECK(cudaEventCreate(&end));
    }
    ~Events() {
        cudaEventDestroy(begin);
        cudaEventDestroy(end);
    }
    Events(const Events&) = delete;
    Events& operator=(const Events&) = delete;
    double seconds() const {
        float ms = 0.0F;
        HEADWAY_CUDA_CHECK(cudaEventElapsedTime(&ms, begin, end));
        return 1e-3 * static_cast<double>(ms);
    }
    cudaEvent_t begin = nullptr, end = nullptr;
};

double median_of(DeviceContext& context, const std::function<double()>& once) {
    std::vector<double> times;
    for (int i = -2; i < kRepeats; ++i) {
        context.communicator.wait(context.stream);
        context.communicator.barrier();
        const double time = slowest(context.communicator, once());
        if (i >= 0) times.push_back(time);
    }
    return quantile(times, 0.5);
}

// Time on the stream of `work`, which is enqueued while the stream is held.
double on_stream(DeviceContext& context, const Events& events, const std::function<void()>& work) {
    hold_stream(kHeadStart, context.stream);
    HEADWAY_CUDA_CHECK(cudaEventRecord(events.begin, context.stream));
    work();
    HEADWAY_CUDA_CHECK(cudaEventRecord(events.end, context.stream));
    context.communicator.wait(context.stream);
    return events.seconds();
}

// Between the starts of two kernels that do nothing.
double launch_seconds(DeviceContext& context, const Events& events) {
    constexpr int kLaunches = 100;
    return median_of(context,
                     [&] {
                         return on_stream(context, events, [&] {
                             for (int i = 0; i < kLaunches; ++i) hold_stream(0, context.stream);
                         });
                     }) /
           kLaunches;
}

// A number from the device, from the host's call to its having it.
double sync_seconds(DeviceContext& context) {
    const ArenaScope scope(context.arena);
    const auto* number = context.arena.take<std::int32_t>(1);
    void* host = nullptr;
    HEADWAY_CUDA_CHECK(cudaMallocHost(&host, sizeof(std::int32_t)));
    const double time = median_of(context, [&] {
        const auto start = std::chrono::steady_clock::now();
        hold_stream(0, context.stream);
        HEADWAY_CUDA_CHECK(cudaMemcpyAsync(host, number, sizeof(std::int32_t),
                                           cudaMemcpyDeviceToHost, context.stream));
        context.communicator.wait(context.stream);
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    });
    cudaFreeHost(host);
    return time;
}

// On the stream, as EP's layers wait for counts: the exchange, and the host's wait for it.
double count_exchange_seconds(DeviceContext& context, const Events& events) {
    constexpr std::int64_t kCounts = 64;  // for each rank
    const std::int64_t all = kCounts * context.communicator.size();
    const ArenaScope scope(context.arena);
    auto* counts = context.arena.take<std::int32_t>(2 * all);
    HEADWAY_CUDA_CHECK(cudaMemsetAsync(
        counts, 0, 2 * sizeof(std::int32_t) * static_cast<std::size_t>(all), context.stream));
    PinnedCounts host(2 * all);
    return median_of(context, [&] {
        return on_stream(context, events, [&] {
            context.communicator.exchange_counts(counts, counts + all, kCounts, context.stream);
            host.fetch(counts, 2 * all, context.communicator, context.stream);
        });
    });
}

double copy_seconds(DeviceContext& context, const Events& events, std::int64_t size) {
    const ArenaScope scope(context.arena);
    void* from = context.arena.take_bytes(static_cast<std::size_t>(size));
    void* to = context.arena.take_bytes(static_cast<std::size_t>(size));
    return median_of(context, [&] {
        return on_stream(context, events, [&] {
            HEADWAY_CUDA_CHECK(cudaMemcpyAsync(to, from, static_cast<std::size_t>(size),
                                               cudaMemcpyDeviceToDevice, context.stream));
        });
    });
}

// GEMMs that an exchange of `bytes` a pair outlasts, beside it and alone.
double overlap_ratio(DeviceContext& context, const Events& events, std::int64_t bytes) {
    const int n = context.communicator.size(), gemms = 8;
    const ArenaScope scope(context.arena);
    const kernels::DenseGemm gemm(context.blas, {.m = kGemm, .n = kGemm, .k = kGemm}, 32U << 20);
    constexpr std::int64_t kElements = std::int64_t{kGemm} * kGemm;
    bf16* a = context.arena.take<bf16>(kElements);
    bf16* b = context.arena.take<bf16>(kElements);
    bf16* c = context.arena.take<bf16>(kElements);
    void* workspace = context.arena.take_bytes(gemm.workspace_bytes());
    void* send = context.arena.take_bytes(static_cast<std::size_t>(n * bytes));
    void* receive = context.arena.take_bytes(static_cast<std::size_t>(n * bytes));
    fill_normal(a, kElements, 1.0F, 1, context.stream);
    fill_normal(b, kElements, 1.0F, 2, context.stream);
    const OwnStream other;
    const auto run = [&](bool beside) {
        return median_of(context, [&] {
            if (beside) context.communicator.all_to_all(send, receive, bytes, other.stream);
            HEADWAY_CUDA_CHECK(cudaEventRecord(events.begin, context.stream));
            for (int i = 0; i < gemms; ++i) gemm.run(a, b, c, workspace, context.stream);
            HEADWAY_CUDA_CHECK(cudaEventRecord(events.end, context.stream));
            context.communicator.wait(context.stream);
            const double time = events.seconds();
            context.communicator.wait(other.stream);
            return time;
        });
    };
    const double alone = run(false);
    return run(true) / alone;
}

// The experts of a rank forward: kernels whose blocks fill the GPU in one wave.
class Experts {
  public:
    explicit Experts(DeviceContext& context) : context_(context), scope_(context.arena) {
        DeviceArena& arena = context.arena;
        std::vector<int> offsets;
        for (int e = 0; e <= kExperts; ++e) offsets.push_back(e * (kRows / kExperts));
        auto* on_device = arena.take<std::int32_t>(kExperts + 1);
        HEADWAY_CUDA_CHECK(cudaMemcpy(on_device, offsets.data(), sizeof(int) * offsets.size(),
                                      cudaMemcpyHostToDevice));
        experts_ = {.num_experts = kExperts,
                    .model_dim = kWidth,
                    .expert_dim = kWidth,
                    .capacity_rows = kRows,
                    .offsets = on_device,
                    .w1 = normal(kExperts * kWidth, 1),
                    .w2 = normal(kExperts * kWidth, 2)};
        call_ = {.x = normal(kRows, 3),
                 .pre = normal(kRows, 4),
                 .act = normal(kRows, 5),
                 .y = normal(kRows, 6)};
    }
    void run() const {
        kernels::ep_experts_forward(kernels::GroupedImpl::hopper, experts_, call_, context_.stream);
    }

  private:
    static constexpr int kExperts = 16, kWidth = 2048, kRows = 16384;

    bf16* normal(std::int64_t rows, std::uint64_t seed) {
        bf16* at = context_.arena.take<bf16>(rows * kWidth);
        fill_normal(at, rows * kWidth, 1.0F, seed, context_.stream);
        return at;
    }

    DeviceContext& context_;
    ArenaScope scope_;
    kernels::EpExperts experts_;
    kernels::EpExpertsForward call_;
};

// All-reduces alone, and experts alone and beside them. A reduction begins a moment before the
// experts do, as that of the layer behind them does in a backward.
std::vector<OverheadSample> reduction_samples(DeviceContext& context, const Events& events) {
    constexpr std::int64_t kMoment = 10'000;  // ns
    constexpr std::int64_t kLargest = std::int64_t{512} << 20;
    const ArenaScope scope(context.arena);
    auto* values = context.arena.take<float>(kLargest / std::int64_t{sizeof(float)});
    HEADWAY_CUDA_CHECK(cudaMemsetAsync(values, 0, kLargest, context.stream));
    const Experts experts(context);
    const OwnStream other;
    const OwnEvent together;
    const auto reduce = [&](std::int64_t bytes, cudaStream_t stream) {
        context.communicator.all_reduce_sum(values, bytes / std::int64_t{sizeof(float)}, stream);
    };
    // The time of the experts; `bytes` are reduced beside them.
    const auto run = [&](std::int64_t bytes) {
        return median_of(context, [&] {
            line_up(context.communicator, context.stream);
            HEADWAY_CUDA_CHECK(cudaEventRecord(together.event, context.stream));
            if (bytes > 0) {
                HEADWAY_CUDA_CHECK(cudaStreamWaitEvent(other.stream, together.event));
                reduce(bytes, other.stream);
            }
            hold_stream(kMoment, context.stream);
            HEADWAY_CUDA_CHECK(cudaEventRecord(events.begin, context.stream));
            experts.run();
            HEADWAY_CUDA_CHECK(cudaEventRecord(events.end, context.stream));
            context.communicator.wait(context.stream);
            const double time = events.seconds();
            context.communicator.wait(other.stream);
            return time;
        });
    };
    std::vector<OverheadSample> samples{{"experts", 0.0, run(0)}};
    for (std::int64_t bytes = 4 << 20; bytes <= kLargest; bytes *= 2) {
        const double alone = median_of(context, [&] {
            line_up(context.communicator, context.stream);
            HEADWAY_CUDA_CHECK(cudaEventRecord(events.begin, context.stream));
            reduce(bytes, context.stream);
            HEADWAY_CUDA_CHECK(cudaEventRecord(events.end, context.stream));
            context.communicator.wait(context.stream);
            return events.seconds();
        });
        samples.push_back({"reduction", double(bytes), alone});
        samples.push_back({"experts_beside", double(bytes), run(bytes)});
    }
    return samples;
}

// C [m, n] = A [m, k] B [k, n]
OverheadSample gemm_sample(DeviceContext& context, const Events& events, int m, int n, int k) {
    const ArenaScope scope(context.arena);
    const kernels::DenseGemm gemm(context.blas, {.m = m, .n = n, .k = k}, 32U << 20);
    const std::int64_t a_size = std::int64_t{m} * k, b_size = std::int64_t{k} * n,
                       c_size = std::int64_t{m} * n;
    bf16* a = context.arena.take<bf16>(a_size);
    bf16* b = context.arena.take<bf16>(b_size);
    bf16* c = context.arena.take<bf16>(c_size);
    void* workspace = context.arena.take_bytes(gemm.workspace_bytes());
    fill_normal(a, a_size, 1.0F, 1, context.stream);
    fill_normal(b, b_size, 1.0F, 2, context.stream);
    const double seconds = median_of(context, [&] {
        return on_stream(context, events, [&] { gemm.run(a, b, c, workspace, context.stream); });
    });
    return {fmt::format("gemm {}x{}x{}", m, n, k),
            static_cast<double>(sizeof(bf16)) * static_cast<double>(a_size + b_size + c_size),
            seconds};
}

// 2^28 to 2^42 FLOPs with a smallest dimension of 32 to 4096, once as the inner and once as an
// outer one; the other two are as square as powers of two are.
std::vector<OverheadSample> gemm_samples(DeviceContext& context, const Events& events) {
    constexpr int kMostElements = 28;  // log2, of one matrix
    std::vector<OverheadSample> samples;
    for (int width = 5; width <= 12; ++width) {
        for (int flops = 28; flops <= 42; flops += 2) {
            const int others = flops - 1 - width, shorter = others / 2;
            if (shorter < width || others > kMostElements) continue;
            const int smallest = 1 << width, n = 1 << shorter, m = 1 << (others - shorter);
            samples.push_back(gemm_sample(context, events, m, n, smallest));
            samples.push_back(gemm_sample(context, events, m, smallest, n));
        }
    }
    return samples;
}

}  // namespace

double slowest(DeviceCommunicator& communicator, double seconds) {
    const auto own = static_cast<std::int64_t>(1e12 * seconds);
    const auto all = communicator.all_gather_counts({&own, 1});
    return 1e-12 * static_cast<double>(*std::max_element(all.begin(), all.end()));
}

std::vector<OverheadSample> measure_overheads(DeviceContext& context) {
    const Events events;
    context.communicator.enter({Phase::dispatch, Pass::forward});
    std::vector<OverheadSample> samples{{"launch", 0.0, launch_seconds(context, events)},
                                        {"host_sync", 0.0, sync_seconds(context)}};
    constexpr std::int64_t kLargest = std::int64_t{256} << 20;
    for (std::int64_t size = 128 << 10; size <= kLargest; size *= 4)
        samples.push_back({"copy", 2.0 * double(size), copy_seconds(context, events, size)});
    for (OverheadSample& s : gemm_samples(context, events)) samples.push_back(std::move(s));
    if (context.communicator.size() > 1) {
        for (const std::int64_t bytes : {2 << 20, 8 << 20}) {
            samples.push_back({"overlap", double(bytes) * (context.communicator.size() - 1),
                               overlap_ratio(context, events, bytes)});
        }
        samples.push_back({"count_exchange", 0.0, count_exchange_seconds(context, events)});
        for (OverheadSample& s : reduction_samples(context, events))
            samples.push_back(std::move(s));
    }
    return samples;
}

std::vector<std::pair<std::string, std::string>> device_facts(const std::string& nccl) {
    const kernels::bench::DeviceInfo device = kernels::bench::query_device();
    return {{"device", device.name},
            {"driver", device.driver},
            {"cuda", std::to_string(device.cuda_runtime)},
            {"nccl", nccl},
            {"clock_mhz", std::to_string(kernels::bench::sample_clocks().sm_mhz)},
            {"multiprocessors", std::to_string(device.num_sms)}};
}

std::string overheads_csv(const std::vector<OverheadSample>& samples,
                          const std::vector<std::pair<std::string, std::string>>& facts) {
    std::string text = "quantity,bytes,value\n";
    for (const auto& [name, value] : facts)
        text += fmt::format("{},0,{}\n", name, csv_field(value));
    for (const OverheadSample& s : samples)
        text += fmt::format("{},{:.0f},{:.4g}\n", s.quantity, s.bytes, s.value);
    return text;
}

}  // namespace headway::runtime
