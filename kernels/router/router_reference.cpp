#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/router/router.hpp"

namespace headway::kernels {

HostRouting router_reference(const RouterShape& shape, const std::vector<float>& x,
                             const std::vector<float>& weights, const std::vector<float>& bias) {
    const int experts = shape.num_experts, width = shape.width, k = shape.top_k;
    HostRouting out;
    std::vector<double> logit(experts), score(experts);
    std::vector<int32_t> order(experts);
    for (int64_t token = 0; token < shape.num_subtokens(); ++token) {
        const int64_t first_expert = token / shape.num_tokens * experts;
        for (int e = 0; e < experts; ++e) {
            double sum = 0;
            for (int i = 0; i < width; ++i)
                sum += double(x[token * width + i]) * weights[(first_expert + e) * width + i];
            logit[e] = sum;
            score[e] = sum + (bias.empty() ? 0.0 : bias[first_expert + e]);
        }
        std::iota(order.begin(), order.end(), 0);
        const auto before = [&](int a, int b) {
            if (std::isnan(score[a]) != std::isnan(score[b])) return std::isnan(score[b]);
            if (std::isnan(score[a]) || score[a] == score[b]) return a < b;
            return score[a] > score[b];
        };
        std::partial_sort(order.begin(), order.begin() + k, order.end(), before);
        double sum = 0, top = -INFINITY;
        for (int j = 0; j < k; ++j) top = std::max(top, logit[order[j]]);
        for (int j = 0; j < k; ++j) sum += std::exp(logit[order[j]] - top);
        for (int j = 0; j < k; ++j) {
            out.index.push_back(order[j]);
            out.gate.push_back(std::exp(logit[order[j]] - top) / sum);
        }
    }
    return out;
}

}  // namespace headway::kernels
