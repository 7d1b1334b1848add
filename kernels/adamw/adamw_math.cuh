// The step's scalars, worked out once on the host, and the update of one parameter.
#pragma once

#include <cmath>

#include "kernels/adamw/adamw.hpp"

namespace headway::kernels {

struct AdamWFactors {
    float beta1, beta2, one_minus_beta1, one_minus_beta2;
    float decay;         // 1 - lr wd
    float rate;          // lr / (1 - b1^t)
    float v_correction;  // 1 / sqrt(1 - b2^t)
    float epsilon, grad_scale;
};

inline AdamWFactors adamw_factors(const AdamWStep& s, float grad_scale) {
    const double correction1 = 1.0 - std::pow(double(s.beta1), s.step);
    const double correction2 = 1.0 - std::pow(double(s.beta2), s.step);
    return {s.beta1,
            s.beta2,
            1.0f - s.beta1,
            1.0f - s.beta2,
            1.0f - s.learning_rate * s.weight_decay,
            float(s.learning_rate / correction1),
            float(1.0 / std::sqrt(correction2)),
            s.epsilon,
            grad_scale};
}

struct AdamWElement {
    float p, m, v;
};

__device__ __forceinline__ void adamw_update(const AdamWFactors& f, float gradient,
                                             AdamWElement& x) {
    const float g = gradient * f.grad_scale;
    x.m = fmaf(f.beta1, x.m, f.one_minus_beta1 * g);
    x.v = fmaf(f.beta2, x.v, f.one_minus_beta2 * g * g);
    float root;
    asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(root) : "f"(x.v));
    const float denominator = fmaf(root, f.v_correction, f.epsilon);
    float inverse;  // of at least epsilon, so no denormal number and no overflow
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(denominator));
    x.p = fmaf(f.decay, x.p, -f.rate * x.m * inverse);
}

}  // namespace headway::kernels
