#include "models/vocab/error.hpp"
#include "runtime/run/device_run.hpp"

namespace headway::runtime {

int run_on_devices(const DeviceRun&) {
    throw InputError({.where = "--device",
                      .found = "'cuda'",
                      .accepted = "cpu",
                      .hint = "this program was built without CUDA or without NCCL"});
}

}  // namespace headway::runtime
