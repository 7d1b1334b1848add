#include "models/vocab/error.hpp"
#include "runtime/run/device_run.hpp"

namespace headway::runtime {

int run_over_network(const DeviceRun& run) {
    throw InputError({.where = "--device cpu",
                      .found = run.identity->launcher + " started several ranks, and this program "
                                                        "was built without Gloo",
                      .accepted = "a build with Gloo, the Debian package libgloo-dev",
                      .hint = "started alone, it runs the ranks as threads"});
}

}  // namespace headway::runtime
