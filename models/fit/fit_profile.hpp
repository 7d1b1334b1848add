// A Profile from samples of kernels and exchanges. A sample of a phase that also streams (an
// expert's activation) or launches several kernels is reduced by the price of those, so that the
// curve and the prices of its phase add up to what was measured.
#pragma once

#include <vector>

#include "models/fit/curve_fit.hpp"
#include "models/fit/phase_fit.hpp"
#include "models/vocab/phase.hpp"
#include "models/vocab/profile.hpp"

namespace headway::inline fit {

struct KernelSample {
    Kernel kernel = Kernel::streaming;
    Pass pass = Pass::forward;
    double size = 1.0, width = 1.0;  // as profile.hpp defines them for the kernel
    double work = 0.0;               // FLOPs, or bytes for byte-rate kernels
    double seconds = 0.0;
    double streamed_bytes = 0.0;  // that the same seconds include
    int launches = 1;
    // A smaller part of the same kernel in the same seconds (EP's permute sorts its choices before
    // it moves rows), priced at a size of its own.
    double part_size = 0.0, part_work = 0.0;
};

struct ExchangeSample {
    Collective collective = Collective::all_to_all;
    PathClass path = PathClass::pcie;
    int num_ranks = 0;
    TimeSample sample;
    bool is_bare = false;  // measured by itself, not inside a layer
};

// Experts that begin a moment after an all-reduce does, beside it.
struct BesideSample {
    double bytes = 0.0;      // reduced
    double reduction = 0.0;  // seconds, alone; 0: not measured
    double experts = 0.0;    // seconds, beside it
};

struct CalibrationSamples {
    Dtype dtype = Dtype::bf16;  // of the model that ran
    std::vector<KernelSample> kernels;
    std::vector<ExchangeSample> exchanges;  // one curve for each (collective, path, num_ranks)
    std::vector<double> launch, host_sync;  // seconds
    PerHostCall<std::vector<double>> host_calls;  // that headway's host takes for one
    std::vector<double> count_exchange;           // seconds, the host's wait included
    std::vector<double> overlap_slowdown;         // of compute beside an exchange, >= 1
    double experts = 0.0;                         // seconds, alone
    std::vector<BesideSample> beside;
    std::vector<TimeSample> copies;   // in device memory; bytes read and written
    std::vector<KernelSample> gemms;  // dense ones by themselves
    std::vector<MeasuredPhase> phases;
    int num_multiprocessors = 0;  // that the phases ran on; 0: no curves of whole phases are wanted
    Bandwidth link;               // nominal bandwidth of a rank's link, of all exchanges
};

// Curves and overheads that have samples replace those of `base`; the rest of it stays. `source`
// opens the source text of every curve.
Profile fit_profile(const CalibrationSamples& samples, Profile base, const std::string& source);

}  // namespace headway::inline fit
