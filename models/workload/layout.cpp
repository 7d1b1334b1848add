#include "models/workload/layout.hpp"

namespace headway::inline workload {
double summed_element(const ModelSpec& model, const Plan& plan) {
    return bytes_per_element(
        plan.implementation == Implementation::megatron ? model.moe.router_dtype : model.dtype);
}

}  // namespace headway::inline workload
