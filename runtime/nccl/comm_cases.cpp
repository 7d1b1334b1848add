#include "runtime/nccl/comm_cases.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <random>

#include "kernels/check.hpp"
#include "models/vocab/quantile.hpp"
#include "runtime/cuda/own_stream.hpp"
#include "runtime/cuda/phase_clock.hpp"
#include "runtime/phase_samples.hpp"

namespace headway::runtime {

namespace {

constexpr CallSite kDispatch{Phase::dispatch, Pass::forward};

// Device memory and stream of a case.
class Buffer {
  public:
    explicit Buffer(std::size_t bytes) {
        HEADWAY_CUDA_CHECK(cudaMalloc(&at_, std::max<std::size_t>(bytes, 256)));
    }
    ~Buffer() { cudaFree(at_); }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;

    template <class T = void>
    T* as() const {
        return static_cast<T*>(at_);
    }
    template <class T>
    void upload(const std::vector<T>& values) {
        HEADWAY_CUDA_CHECK(
            cudaMemcpy(at_, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
        // The copy may still be under way, and the streams of the cases do not wait for it.
        HEADWAY_CUDA_CHECK(cudaDeviceSynchronize());
    }
    template <class T>
    std::vector<T> download(std::size_t count) const {
        std::vector<T> values(count);
        HEADWAY_CUDA_CHECK(
            cudaMemcpy(values.data(), at_, count * sizeof(T), cudaMemcpyDeviceToHost));
        return values;
    }

  private:
    void* at_ = nullptr;
};

// Byte i of what s sends to d: differs between pairs, rounds and neighbouring bytes.
std::uint8_t content(int s, int d, int round, std::int64_t i) {
    const auto x = static_cast<std::uint64_t>(i) * 0x9E3779B97F4A7C15u +
                   static_cast<std::uint64_t>(s * 131 + d * 17 + round) * 0xBF58476D1CE4E5B9u;
    return static_cast<std::uint8_t>(x >> 56);
}

using Sizes = std::vector<std::int64_t>;  // [source * n + destination]

Sizes draw_sizes(int n, const CommCheck& check, int round) {
    std::mt19937_64 random(check.seed * 1000 + static_cast<std::uint64_t>(round));
    Sizes sizes;
    for (int i = 0; i < n * n; ++i) {
        const auto kind = random() % 4;
        const auto bound = static_cast<std::uint64_t>(kind == 1 ? 64 : check.max_bytes);
        sizes.push_back(kind == 0 ? 0 : static_cast<std::int64_t>(random() % bound));
    }
    return sizes;
}

[[noreturn]] void differs(const char* what, int round, int source) {
    throw std::runtime_error(
        fmt::format("{}, round {}: what rank {} sent has arrived changed", what, round, source));
}

// One ragged exchange; returns the bytes that this rank sent.
std::int64_t check_round(NcclCommunicator& comm, const CommCheck& check, int round,
                         cudaStream_t stream) {
    const int n = comm.size(), me = comm.rank();
    const Sizes sizes = draw_sizes(n, check, round);
    Sizes give, get;
    std::vector<std::uint8_t> out;
    for (int r = 0; r < n; ++r) {
        give.push_back(sizes[static_cast<std::size_t>(me * n + r)]);
        get.push_back(sizes[static_cast<std::size_t>(r * n + me)]);
        for (std::int64_t i = 0; i < give.back(); ++i) out.push_back(content(me, r, round, i));
    }
    const auto total =
        static_cast<std::size_t>(std::accumulate(get.begin(), get.end(), std::int64_t{0}));
    Buffer send(out.size()), receive(total);
    send.upload(out);
    comm.all_to_all_v(send.as(), give, receive.as(), get, stream);
    comm.wait(stream);
    const auto in = receive.download<std::uint8_t>(total);
    std::size_t place = 0;
    for (int s = 0; s < n; ++s) {
        for (std::int64_t i = 0; i < get[static_cast<std::size_t>(s)]; ++i) {
            if (in[place++] != content(s, me, round, i)) differs("all_to_all_v", round, s);
        }
    }
    return static_cast<std::int64_t>(out.size());
}

std::int64_t check_equal_exchange(NcclCommunicator& comm, cudaStream_t stream) {
    const int n = comm.size(), me = comm.rank();
    const std::int64_t each = 12'345;
    std::vector<std::uint8_t> out;
    for (int d = 0; d < n; ++d) {
        for (std::int64_t i = 0; i < each; ++i) out.push_back(content(me, d, 7, i));
    }
    Buffer send(out.size()), receive(out.size());
    send.upload(out);
    comm.all_to_all(send.as(), receive.as(), each, stream);
    comm.wait(stream);
    const auto in = receive.download<std::uint8_t>(out.size());
    for (int s = 0; s < n; ++s) {
        for (std::int64_t i = 0; i < each; ++i) {
            if (in[static_cast<std::size_t>(s * each + i)] != content(s, me, 7, i))
                differs("all_to_all", 0, s);
        }
    }
    return static_cast<std::int64_t>(out.size());
}

void check_counts_and_sum(NcclCommunicator& comm, cudaStream_t stream) {
    const int n = comm.size(), me = comm.rank(), each = 5;
    std::vector<std::int32_t> out;
    for (int d = 0; d < n; ++d) {
        for (int i = 0; i < each; ++i) out.push_back(1000 * me + 10 * d + i);
    }
    Buffer send(out.size() * sizeof(std::int32_t)), receive(out.size() * sizeof(std::int32_t));
    send.upload(out);
    comm.exchange_counts(send.as<std::int32_t>(), receive.as<std::int32_t>(), each, stream);
    const int length = 1001;
    Buffer sum(length * sizeof(float));
    sum.upload(std::vector<float>(length, static_cast<float>(me + 1)));
    comm.all_reduce_sum(sum.as<float>(), length, stream);
    comm.wait(stream);
    const auto in = receive.download<std::int32_t>(out.size());
    for (int s = 0; s < n; ++s) {
        for (int i = 0; i < each; ++i) {
            if (in[static_cast<std::size_t>(s * each + i)] != 1000 * s + 10 * me + i)
                differs("exchange_counts", 0, s);
        }
    }
    const auto expected = static_cast<float>(n * (n + 1) / 2);
    for (const float value : sum.download<float>(length)) {
        if (value != expected) throw std::runtime_error("all_reduce_sum: a wrong sum");
    }
    const Sizes own{me, 10 * me};
    const Sizes all = comm.all_gather_counts(own);
    for (int r = 0; r < n; ++r) {
        if (all[static_cast<std::size_t>(2 * r)] != r ||
            all[static_cast<std::size_t>(2 * r + 1)] != 10 * r)
            differs("all_gather_counts", 0, r);
    }
}

// What a case of `size` exchanges on this rank: bytes to and from every rank.
struct Exchange {
    Sizes give, get;
};

Exchange exchange_of(CommCurve curve, std::int64_t size, int n, int me) {
    Exchange e{Sizes(static_cast<std::size_t>(n), 0), Sizes(static_cast<std::size_t>(n), 0)};
    if (curve == CommCurve::send_receive) {
        e.give[static_cast<std::size_t>((me + 1) % n)] = size;
        e.get[static_cast<std::size_t>((me + n - 1) % n)] = size;
    } else {
        std::fill(e.give.begin(), e.give.end(), size / n);
        std::fill(e.get.begin(), e.get.end(), size / n);
    }
    return e;
}

void run_once(NcclCommunicator& comm, CommCurve curve, const Exchange& e, std::int64_t size,
              const Buffer& send, const Buffer& receive, cudaStream_t stream) {
    switch (curve) {
        case CommCurve::all_to_all:
            return comm.all_to_all(send.as(), receive.as(), e.give.front(), stream);
        case CommCurve::send_receive:
            return comm.all_to_all_v(send.as(), e.give, receive.as(), e.get, stream);
        case CommCurve::all_reduce:
            return comm.all_reduce_sum(send.as<float>(),
                                       size / static_cast<std::int64_t>(sizeof(float)), stream);
    }
}

double estimate_of(NcclEstimator& estimator, CommCurve curve, const Exchange& e, std::int64_t size,
                   const Buffer& send, const Buffer& receive, cudaStream_t stream) {
    std::optional<Seconds> time;
    switch (curve) {
        case CommCurve::all_to_all:
            time = estimator.all_to_all(send.as(), receive.as(), e.give.front(), stream);
            break;
        case CommCurve::send_receive:
            time = estimator.all_to_all_v(send.as(), e.give, receive.as(), e.get, stream);
            break;
        case CommCurve::all_reduce:
            time = estimator.all_reduce_sum(
                send.as<float>(), size / static_cast<std::int64_t>(sizeof(float)), stream);
            break;
    }
    return time ? time->in(second) : 0.0;
}

}  // namespace

std::int64_t check_communicator(NcclCommunicator& comm, const CommCheck& check) {
    const OwnStream stream;
    comm.enter(kDispatch);
    const auto before = comm.traffic();
    std::int64_t sent = 0;
    for (int round = 0; round < check.num_rounds; ++round)
        sent += check_round(comm, check, round, stream.stream);
    sent += check_equal_exchange(comm, stream.stream);
    std::int64_t booked = 0;
    for (const std::int64_t bytes : comm.traffic().at(kDispatch)) booked += bytes;
    if (before.contains(kDispatch)) {
        for (const std::int64_t bytes : before.at(kDispatch)) booked -= bytes;
    }
    if (booked != sent)
        throw std::runtime_error(fmt::format("{} bytes sent, {} booked", sent, booked));
    check_counts_and_sum(comm, stream.stream);
    comm.barrier();
    return sent;
}

std::vector<CurvePoint> measure_curve(NcclCommunicator& comm, NcclEstimator* estimator,
                                      CommCurve curve, const CurveOptions& options) {
    const OwnStream stream;
    const int n = comm.size(), me = comm.rank();
    cudaEvent_t begin = nullptr, end = nullptr;
    HEADWAY_CUDA_CHECK(cudaEventCreate(&begin));
    HEADWAY_CUDA_CHECK(cudaEventCreate(&end));
    const Buffer send(static_cast<std::size_t>(options.max_size)),
        receive(static_cast<std::size_t>(options.max_size));
    HEADWAY_CUDA_CHECK(cudaMemset(send.as(), 0, static_cast<std::size_t>(options.max_size)));
    std::vector<CurvePoint> points;
    for (std::int64_t size = options.min_size; size <= options.max_size; size *= options.factor) {
        comm.enter(kDispatch);
        const Exchange e = exchange_of(curve, size, n, me);
        std::vector<double> times;
        for (int i = 0; i < options.num_warmups + options.num_repeats; ++i) {
            comm.barrier();
            line_up(comm, stream.stream);
            HEADWAY_CUDA_CHECK(cudaEventRecord(begin, stream.stream));
            run_once(comm, curve, e, size, send, receive, stream.stream);
            HEADWAY_CUDA_CHECK(cudaEventRecord(end, stream.stream));
            comm.wait(stream.stream);
            float ms = 0.0F;
            HEADWAY_CUDA_CHECK(cudaEventElapsedTime(&ms, begin, end));
            const std::int64_t own = static_cast<std::int64_t>(static_cast<double>(ms) * 1e6);
            const auto all = comm.all_gather_counts({&own, 1});
            if (i >= options.num_warmups)
                times.push_back(static_cast<double>(*std::max_element(all.begin(), all.end())) *
                                1e-9);
        }
        CurvePoint point{.size = size,
                         .median = quantile(times, 0.5),
                         .low = quantile(times, 0.1),
                         .high = quantile(times, 0.9)};
        if (estimator != nullptr)
            point.estimate = estimate_of(*estimator, curve, e, size, send, receive, stream.stream);
        points.push_back(point);
    }
    cudaEventDestroy(begin);
    cudaEventDestroy(end);
    return points;
}

std::string nccl_tests_text(CommCurve curve, const std::vector<CurvePoint>& points,
                            const std::vector<std::string>& ranks) {
    const auto n = static_cast<double>(ranks.size());
    const char* program = "sendrecv_perf";
    double bus_factor = 1.0;
    if (curve == CommCurve::all_to_all) program = "alltoall_perf", bus_factor = (n - 1) / n;
    if (curve == CommCurve::all_reduce) program = "all_reduce_perf", bus_factor = 2 * (n - 1) / n;
    std::string text = fmt::format(
        "# Collective test starting: {}\n# written by headway-comm: time of the slowest rank, "
        "median of repeats that start together\n#\n# Using devices\n",
        program);
    for (std::size_t r = 0; r < ranks.size(); ++r)
        text += fmt::format("#  Rank {:2} Group  0 {}\n", r, ranks[r]);
    text +=
        "#\n#                                                              out-of-place           "
        "            in-place          \n#       size         count      type   redop    root     "
        "time   algbw   busbw #wrong     time   algbw   busbw #wrong\n#        (B)    (elements)   "
        "                            (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)       \n";
    for (const CurvePoint& p : points) {
        const double algorithm = static_cast<double>(p.size) / p.median * 1e-9;
        const std::string half = fmt::format("{:9.2f} {:7.2f} {:7.2f}    N/A", p.median * 1e6,
                                             algorithm, algorithm * bus_factor);
        text += fmt::format("{:12} {:13} {:>9} {:>7} {:7}{}{}\n", p.size, p.size / 4, "float",
                            curve == CommCurve::all_to_all ? "none" : "sum", -1, half, half);
    }
    return text;
}

}  // namespace headway::runtime
