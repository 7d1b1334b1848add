#include <cublas_v2.h>

#include <algorithm>
#include <cmath>
#include <memory>

#include "kernels/bench/device.hpp"
#include "kernels/bench/timing.hpp"

namespace headway::kernels::bench {

namespace {

struct Event {
    cudaEvent_t handle = nullptr;
    Event() { HEADWAY_CUDA_CHECK(cudaEventCreate(&handle)); }
    Event(const Event&) = delete;
    Event& operator=(const Event&) = delete;
    ~Event() { cudaEventDestroy(handle); }
};

struct Stream {
    cudaStream_t handle = nullptr;
    Stream() { HEADWAY_CUDA_CHECK(cudaStreamCreateWithFlags(&handle, cudaStreamNonBlocking)); }
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;
    ~Stream() { cudaStreamDestroy(handle); }
};

/// One case, ready to launch: a graph of `repeats` runs, or plain launches.
class Launcher {
  public:
    Launcher(const Case& timed, int repeats, cudaStream_t stream)
        : case_(timed), repeats_(repeats) {
        if (!timed.capturable) return;
        cudaGraph_t graph = nullptr;
        HEADWAY_CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
        for (int i = 0; i < repeats; ++i) timed.run(stream);
        HEADWAY_CUDA_CHECK(cudaStreamEndCapture(stream, &graph));
        HEADWAY_CUDA_CHECK(cudaGraphInstantiate(&graph_, graph, 0));
        HEADWAY_CUDA_CHECK(cudaGraphDestroy(graph));
        HEADWAY_CUDA_CHECK(cudaGraphUpload(graph_, stream));
    }
    Launcher(const Launcher&) = delete;
    Launcher& operator=(const Launcher&) = delete;
    ~Launcher() {
        if (graph_ != nullptr) cudaGraphExecDestroy(graph_);
    }
    void operator()(cudaStream_t stream) const {
        if (graph_ != nullptr)
            HEADWAY_CUDA_CHECK(cudaGraphLaunch(graph_, stream));
        else
            for (int i = 0; i < repeats_; ++i) case_.run(stream);
    }
    [[nodiscard]] int repeats() const { return repeats_; }

  private:
    const Case& case_;
    int repeats_;
    cudaGraphExec_t graph_ = nullptr;
};

class L2Flush {
  public:
    L2Flush() : buffer_(2 * l2_bytes()) {}
    void operator()(cudaStream_t stream) {
        // NOTE: a value that changes, so that no write can be dropped as redundant.
        HEADWAY_CUDA_CHECK(
            cudaMemsetAsync(buffer_.get(), ++value_ & 0x7F, buffer_.bytes(), stream));
    }

  private:
    static std::size_t l2_bytes() {
        int device = 0, bytes = 0;
        HEADWAY_CUDA_CHECK(cudaGetDevice(&device));
        HEADWAY_CUDA_CHECK(cudaDeviceGetAttribute(&bytes, cudaDevAttrL2CacheSize, device));
        return std::size_t(bytes);
    }
    DeviceBuffer<unsigned char> buffer_;
    int value_ = 0;
};

double time_once(const Launcher& launch, cudaStream_t stream, L2Flush* flush, Event& start,
                 Event& stop) {
    if (flush != nullptr) (*flush)(stream);
    HEADWAY_CUDA_CHECK(cudaEventRecord(start.handle, stream));
    launch(stream);
    HEADWAY_CUDA_CHECK(cudaEventRecord(stop.handle, stream));
    HEADWAY_CUDA_CHECK(cudaEventSynchronize(stop.handle));
    float ms = 0;
    HEADWAY_CUDA_CHECK(cudaEventElapsedTime(&ms, start.handle, stop.handle));
    return 1e3 * ms / launch.repeats();
}

// 64 bytes a thread, every load issued before the first store.
__global__ void __launch_bounds__(512)
    copy_kernel(const uint4* __restrict__ from, uint4* __restrict__ to) {
    const std::size_t first = std::size_t(blockIdx.x) * 512 * 4 + threadIdx.x;
    uint4 values[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) values[i] = from[first + 512 * i];
#pragma unroll
    for (int i = 0; i < 4; ++i) to[first + 512 * i] = values[i];
}

}  // namespace

Quantiles quantiles(std::vector<double> us) {
    if (us.empty()) return {};
    std::sort(us.begin(), us.end());
    const auto at = [&](double q) {
        const double place = q * double(us.size() - 1);
        const auto low = std::size_t(place);
        const std::size_t high = std::min(low + 1, us.size() - 1);
        return us[low] + (place - double(low)) * (us[high] - us[low]);
    };
    return {
        .p10_us = at(0.1), .median_us = at(0.5), .p90_us = at(0.9), .num_samples = int(us.size())};
}

std::vector<Timing> time_interleaved(const std::vector<const Case*>& cases,
                                     const TimingOptions& options) {
    Stream stream;
    Event start, stop;
    L2Flush flush;
    std::vector<std::unique_ptr<Launcher>> cold, hot;
    std::vector<int> num_samples;
    for (const Case* timed : cases) {
        timed->run(stream.handle);  // loads the module, creates handles
        HEADWAY_CUDA_CHECK(cudaStreamSynchronize(stream.handle));
        cold.push_back(std::make_unique<Launcher>(*timed, 1, stream.handle));
        const double us = time_once(*cold.back(), stream.handle, &flush, start, stop);
        hot.push_back(std::make_unique<Launcher>(*timed, us < 50 ? 10 : 1, stream.handle));
        const int affordable = int(1e6 * options.max_seconds_per_case / (2 * us + 100));
        num_samples.push_back(std::clamp(affordable, 30, std::max(30, options.num_samples)));
    }
    std::vector<std::vector<double>> cold_us(cases.size()), hot_us(cases.size());
    const int num_passes =
        num_samples.empty() ? 0 : *std::max_element(num_samples.begin(), num_samples.end());
    constexpr int kWarmUp = 3;
    for (int pass = -kWarmUp; pass < num_passes; ++pass)
        for (std::size_t i = 0; i < cases.size(); ++i) {
            if (pass >= num_samples[i]) continue;
            const double cold_sample = time_once(*cold[i], stream.handle, &flush, start, stop);
            const double hot_sample = time_once(*hot[i], stream.handle, nullptr, start, stop);
            if (pass < 0) continue;
            cold_us[i].push_back(cold_sample);
            hot_us[i].push_back(hot_sample);
        }
    std::vector<Timing> timings(cases.size());
    for (std::size_t i = 0; i < cases.size(); ++i)
        timings[i] = {.cold = quantiles(cold_us[i]), .hot = quantiles(hot_us[i])};
    return timings;
}

Ceilings measure_ceilings() {
    constexpr std::size_t kCopyBytes = std::size_t(1) << 32;
    constexpr int kSide = 8192;
    auto from = random_normal<float>(kCopyBytes / 4, 1.0f, 3);
    DeviceBuffer<float> to(kCopyBytes / 4);
    const std::size_t elements = std::size_t(kSide) * kSide;
    auto a = random_normal<bf16>(elements, 1.0f, 1), b = random_normal<bf16>(elements, 1.0f, 2);
    DeviceBuffer<bf16> c(elements);
    cublasHandle_t handle = nullptr;
    if (cublasCreate(&handle) != CUBLAS_STATUS_SUCCESS) throw CudaError("cublasCreate failed");
    Case copy, gemm;
    copy.run = [&](cudaStream_t stream) {
        copy_kernel<<<int(kCopyBytes / (512 * 64)), 512, 0, stream>>>(
            reinterpret_cast<const uint4*>(from.get()), reinterpret_cast<uint4*>(to.get()));
        check_launch();
    };
    gemm.capturable = false;
    gemm.run = [&](cudaStream_t stream) {
        const float one = 1, zero = 0;
        cublasSetStream(handle, stream);
        if (cublasGemmEx(handle, CUBLAS_OP_T, CUBLAS_OP_N, kSide, kSide, kSide, &one, a.get(),
                         CUDA_R_16BF, kSide, b.get(), CUDA_R_16BF, kSide, &zero, c.get(),
                         CUDA_R_16BF, kSide, CUBLAS_COMPUTE_32F,
                         CUBLAS_GEMM_DEFAULT) != CUBLAS_STATUS_SUCCESS)
            throw CudaError("cublasGemmEx failed");
    };
    const auto timings = time_interleaved({&copy, &gemm}, {});
    cublasDestroy(handle);
    return {
        .bytes_per_second = 2.0 * double(kCopyBytes) / (1e-6 * timings[0].hot.median_us),
        .flops_per_second = 2.0 * std::pow(double(kSide), 3) / (1e-6 * timings[1].hot.median_us)};
}

}  // namespace headway::kernels::bench
