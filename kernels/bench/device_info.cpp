#include "kernels/bench/device_info.hpp"

#include <dlfcn.h>

#include <ctime>

#include "kernels/check.hpp"

namespace headway::kernels::bench {

namespace {

// NVML's C ABI as its documentation gives it; the header is not part of every toolkit installation.
constexpr int kNvmlSuccess = 0, kClockSm = 1, kClockMemory = 2, kTemperatureGpu = 0;
constexpr unsigned long long kPowerCap = 0x04, kHwSlowdown = 0x08, kSwThermal = 0x20,
                             kHwThermal = 0x40, kPowerBrake = 0x80;
using NvmlDevice = void*;

/// NVML opened for one question. Absent library or symbol: `device` stays null and nothing is
/// reported.
class Nvml {
  public:
    Nvml() {
        library_ = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
        if (library_ == nullptr || !call("nvmlInit_v2")) return;
        initialised_ = true;
        char bus_id[32] = {};
        int current = 0;
        if (cudaGetDevice(&current) == cudaSuccess &&
            cudaDeviceGetPCIBusId(bus_id, sizeof bus_id, current) == cudaSuccess)
            call("nvmlDeviceGetHandleByPciBusId_v2", static_cast<const char*>(bus_id), &device);
    }
    Nvml(const Nvml&) = delete;
    Nvml& operator=(const Nvml&) = delete;
    ~Nvml() {
        if (initialised_) call("nvmlShutdown");
        if (library_ != nullptr) dlclose(library_);
    }
    /// Calls `name(args...)` when the library has it; true on success.
    template <typename... Args>
    bool call(const char* name, Args... args) const {
        auto function = reinterpret_cast<int (*)(Args...)>(dlsym(library_, name));
        return function != nullptr && function(args...) == kNvmlSuccess;
    }
    NvmlDevice device = nullptr;
    [[nodiscard]] bool usable() const { return initialised_; }

  private:
    void* library_ = nullptr;
    bool initialised_ = false;
};

std::string throttle_words(unsigned long long reasons) {
    std::string words;
    const auto add = [&](unsigned long long mask, const char* word) {
        if ((reasons & mask) != 0) words += (words.empty() ? "" : "+") + std::string(word);
    };
    add(kPowerCap, "power");
    add(kHwSlowdown, "hw");
    add(kSwThermal, "thermal");
    add(kHwThermal, "hw-thermal");
    add(kPowerBrake, "power-brake");
    return words;
}

}  // namespace

DeviceInfo query_device() {
    int device = 0;
    cudaDeviceProp properties{};
    HEADWAY_CUDA_CHECK(cudaGetDevice(&device));
    HEADWAY_CUDA_CHECK(cudaGetDeviceProperties(&properties, device));
    DeviceInfo info;
    info.name = properties.name;
    info.num_sms = properties.multiProcessorCount;
    info.l2_bytes = std::size_t(properties.l2CacheSize);
    info.memory_bytes = properties.totalGlobalMem;
    HEADWAY_CUDA_CHECK(cudaRuntimeGetVersion(&info.cuda_runtime));
    const Nvml nvml;
    char text[96] = {};
    if (nvml.usable() &&
        nvml.call("nvmlSystemGetDriverVersion", static_cast<char*>(text), unsigned(sizeof text)))
        info.driver = text;
    const std::time_t now = std::time(nullptr);
    std::tm utc{};
    gmtime_r(&now, &utc);
    char date[32] = {};
    std::strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", &utc);
    info.date_utc = date;
    return info;
}

ClockSample sample_clocks() {
    const Nvml nvml;
    ClockSample sample;
    if (!nvml.usable() || nvml.device == nullptr) return sample;
    nvml.call("nvmlDeviceGetClockInfo", nvml.device, kClockSm, &sample.sm_mhz);
    nvml.call("nvmlDeviceGetClockInfo", nvml.device, kClockMemory, &sample.memory_mhz);
    nvml.call("nvmlDeviceGetTemperature", nvml.device, kTemperatureGpu, &sample.temperature_c);
    unsigned milliwatts = 0;
    nvml.call("nvmlDeviceGetPowerUsage", nvml.device, &milliwatts);
    sample.power_w = milliwatts / 1000;
    unsigned long long reasons = 0;
    nvml.call("nvmlDeviceGetCurrentClocksThrottleReasons", nvml.device, &reasons);
    sample.throttle = throttle_words(reasons);
    return sample;
}

}  // namespace headway::kernels::bench
