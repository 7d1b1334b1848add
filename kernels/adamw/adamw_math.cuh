// The update of one parameter.
#pragma once

#include "kernels/adamw/adamw.hpp"

namespace headway::kernels {

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
