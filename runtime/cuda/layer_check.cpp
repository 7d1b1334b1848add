// headway-layer-check: the layers of one rank on GPU 0 against the CPU reference, before any timing
// is believed. Exit code 1 when a check fails.
#include <fmt/format.h>

#include <cstdio>

#include "runtime/cuda/check_layers.hpp"
#include "runtime/cuda/local_communicator.hpp"
#include "runtime/cuda/rank_device.hpp"

int main() {
    using namespace headway::runtime;
    try {
        RankDevice device(0, 1, std::size_t{2} << 30);
        LocalDeviceCommunicator alone;
        DeviceContext context = device.context(alone);
        bool passed = true;
        for (const LayerCheck& c : check_layers(context)) {
            fmt::print("{:<70} {:<10} {:.2e} {}\n", c.layer, c.what, c.error,
                       c.passed ? "ok" : "FAILED");
            passed = passed && c.passed;
        }
        return passed ? 0 : 1;
    } catch (const std::exception& error) {
        std::fputs((std::string("headway-layer-check: ") + error.what() + "\n").c_str(), stderr);
        return 3;
    }
}
