// Which machine a number was measured on, and whether it was throttled: CUDA's properties, and
// NVML's clocks where a driver library is present (opened at run time; nothing here changes a
// setting).
#pragma once
#include <string>

namespace headway::kernels::bench {

struct DeviceInfo {
    std::string name, driver = "unknown", date_utc;
    int cuda_runtime = 0;  // 13000 = 13.0
    int num_sms = 0;
    std::size_t l2_bytes = 0, memory_bytes = 0;
};
DeviceInfo query_device();

/// Momentary clocks; zeros and an empty text where NVML is absent.
struct ClockSample {
    unsigned sm_mhz = 0, memory_mhz = 0, power_w = 0, temperature_c = 0;
    std::string throttle;  // e.g. "power", "thermal", "" when not throttled
};
ClockSample sample_clocks();

}  // namespace headway::kernels::bench
