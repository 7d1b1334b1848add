// Comparison of device results with host references, and of a run with its repeat.
#pragma once

#include <cmath>
#include <initializer_list>
#include <utility>
#include <vector>

#include "kernels/bench/device.hpp"

namespace headway::kernels::bench {

/// Bytes on the device.
struct DeviceRange {
    const void* data = nullptr;
    std::size_t bytes = 0;
};
template <typename T>
DeviceRange range_of(const DeviceBuffer<T>& buffer) {
    return {buffer.get(), buffer.bytes()};
}

/// Whether `again`, which runs the same work from poisoned memory, gives the same bits.
template <typename Again>
bool same_bits_again(const std::vector<DeviceRange>& outputs, Again again) {
    std::vector<DeviceBuffer<unsigned char>> before;
    for (const DeviceRange& output : outputs) {
        before.emplace_back(output.bytes);
        HEADWAY_CUDA_CHECK(
            cudaMemcpy(before.back().get(), output.data, output.bytes, cudaMemcpyDeviceToDevice));
    }
    again();
    HEADWAY_CUDA_CHECK(cudaDeviceSynchronize());
    for (std::size_t i = 0; i < outputs.size(); ++i)
        if (!bitwise_equal(before[i].get(), outputs[i].data, outputs[i].bytes)) return false;
    return true;
}

template <typename To, typename T>
std::vector<To> host_as(const DeviceBuffer<T>& buffer) {
    std::vector<To> out;
    out.reserve(buffer.size());
    for (const T value : buffer.to_host()) out.push_back(To(float(value)));
    return out;
}

/// ||got - expected|| / ||expected||; an all-zero `expected` (the router's gradient at k = 1) gives
/// ||got||.
inline double relative_error(const double* got, const double* expected, std::size_t count) {
    double difference = 0, norm = 0;
    for (std::size_t i = 0; i < count; ++i) {
        difference += (got[i] - expected[i]) * (got[i] - expected[i]);
        norm += expected[i] * expected[i];
    }
    return std::sqrt(norm == 0 ? difference : difference / norm);
}

/// The largest of the errors added, by name; NaN stays.
struct WorstError {
    double value = 0;
    const char* name = "";
    void add(const char* of, double error) {
        if (error <= value || std::isnan(value)) return;
        value = error;
        name = of;
    }
};

}  // namespace headway::kernels::bench
