#include <algorithm>
#include <cmath>

#include "kernels/experts/experts_reference.hpp"
#include "kernels/hp_layer/hp_layer.hpp"

namespace headway::kernels {

namespace {

std::vector<double> widened(const std::vector<float>& values) {
    return {values.begin(), values.end()};
}

/// Gates of given choices: the softmax over their logits.
HostRouting route_as_given(const HostHpLayer& layer) {
    HostRouting out{.index = layer.index, .gate = std::vector<double>(layer.index.size())};
    const int d = layer.shape.width, k = layer.shape.top_k;
    for (int64_t token = 0; token < layer.shape.router().num_subtokens(); ++token) {
        double* gate = out.gate.data() + token * k;
        for (int j = 0; j < k; ++j) {
            const int64_t group = token / layer.shape.num_tokens * layer.shape.num_experts +
                                  layer.index[token * k + j];
            for (int i = 0; i < d; ++i)
                gate[j] += double(layer.x[token * d + i]) * layer.router[group * d + i];
        }
        const double top = *std::max_element(gate, gate + k);
        double sum = 0;
        for (int j = 0; j < k; ++j) sum += gate[j] = std::exp(gate[j] - top);
        for (int j = 0; j < k; ++j) gate[j] /= sum;
    }
    return out;
}

/// dx += sum_j dx_row + dlogit R, dR += dlogit x, with the Jacobian of the softmax over the k
/// chosen.
void add_router_gradients(const HostHpLayer& layer, const HostRouting& routing,
                          const HostGrouping& rows, const reference::HostResult& experts,
                          HostHpResult& out) {
    const int d = layer.shape.width, k = layer.shape.top_k;
    for (int64_t token = 0; token < layer.shape.router().num_subtokens(); ++token) {
        double mean = 0;
        for (int64_t pair = token * k; pair < (token + 1) * k; ++pair)
            mean += routing.gate[pair] * experts.dgate[rows.token_row[pair]];
        for (int64_t pair = token * k; pair < (token + 1) * k; ++pair) {
            const int64_t row = rows.token_row[pair];
            const double dlogit = routing.gate[pair] * (experts.dgate[row] - mean);
            const int64_t group =
                token / layer.shape.num_tokens * layer.shape.num_experts + routing.index[pair];
            for (int i = 0; i < d; ++i) {
                out.y[token * d + i] += routing.gate[pair] * experts.y[row * d + i];
                out.dx[token * d + i] +=
                    experts.dx_row[row * d + i] + dlogit * layer.router[group * d + i];
                out.drouter[group * d + i] += dlogit * layer.x[token * d + i];
            }
        }
    }
}

}  // namespace

HostHpResult hp_layer_reference(const HostHpLayer& layer) {
    const HostRouting routing =
        layer.index.empty()
            ? router_reference(layer.shape.router(), layer.x, layer.router, layer.bias)
            : route_as_given(layer);
    const HostGrouping rows =
        group_rows_reference(layer.shape.router().grouping(), routing.index,
                             std::vector<float>(routing.gate.begin(), routing.gate.end()));
    reference::HostLayer experts;
    experts.shape = layer.shape.experts();
    experts.row_token = rows.row_token;
    experts.row_gate.resize(rows.row_token.size());
    for (std::size_t pair = 0; pair < routing.gate.size(); ++pair)
        experts.row_gate[rows.token_row[pair]] = routing.gate[pair];
    experts.expert_offset = rows.expert_offset;
    experts.x = widened(layer.x);
    experts.dy_token = widened(layer.dy);
    experts.w1 = widened(layer.w1);
    experts.w2 = widened(layer.w2);
    const reference::HostResult result = reference::run_on_host(experts);
    HostHpResult out{.y = std::vector<double>(layer.x.size()),
                     .dx = std::vector<double>(layer.x.size()),
                     .dw1 = result.dw1,
                     .dw2 = result.dw2,
                     .drouter = std::vector<double>(layer.router.size())};
    add_router_gradients(layer, routing, rows, result, out);
    return out;
}

}  // namespace headway::kernels
