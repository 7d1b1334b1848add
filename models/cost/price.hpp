// Prices: from work to time, by the curves of a Profile on a Cluster.
//   compute:  t = max(FLOPs / rate(size, width), bytes / memory bandwidth) + launches * launch
//   exchange: t = max over path classes of T_curve(bytes of the busiest rank)
// The PriceBook also keeps count of what each price rests on: residuals by curve (errors of one
// curve are fully correlated, of different curves independent) and look-ups outside the measured
// range.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "models/vocab/cluster.hpp"
#include "models/vocab/prediction.hpp"
#include "models/vocab/profile.hpp"
#include "models/workload/workload.hpp"

namespace headway::inline cost {

enum class Bottleneck { none, flops, memory, launch, sync, nvlink, pcie, nic, spine };
inline constexpr std::array kBottleneckNames = {
    std::string_view("none"),   std::string_view("flops"), std::string_view("memory"),
    std::string_view("launch"), std::string_view("sync"),  std::string_view("nvlink"),
    std::string_view("pcie"),   std::string_view("nic"),   std::string_view("spine")};
constexpr std::string_view name(Bottleneck b) {
    return kBottleneckNames[static_cast<std::size_t>(b)];
}
Bottleneck bottleneck_of(PathClass path);

// The 90 % interval of a time with this standard deviation in seconds.
Interval interval_of(Seconds time, double sigma);

struct Price {
    Seconds time;
    double sigma = 0.0;  // seconds, one standard deviation
    Bottleneck bottleneck = Bottleneck::none;
};

// How an exchange's time comes about, for `headway explain` and for the simulator.
struct PathTime {
    PathClass path = PathClass::self;
    const TimeCurve* curve = nullptr;
    double bytes = 0.0;       // looked up
    double link_ratio = 1.0;  // measured link over this cluster's
    Seconds time, floor;
    Seconds bound;  // that the busiest link of the class needs
    bool extrapolated = false;
};

// How a reduction's time comes about.
struct RingTime {
    RingLanes lanes;
    Bytes bytes_of_lane;  // over every hop of one lane
    PathTime curve;
    Seconds bound;  // no ring is faster on these links
    Seconds time;
};

class PriceBook {
  public:
    PriceBook(const Profile& profile, const Cluster& cluster);

    // `fraction` of the work, e.g. one of c chunks; `weight` is how often the step does it, for the
    // error budget.
    Price compute(const ComputeWork& work, Pass pass, double weight, double fraction = 1.0);
    Price exchange(const ExchangeWork& work, double weight, double fraction = 1.0);
    Price count_exchange(const CountExchangeWork& work, double weight);
    Price reduce(const ReduceWork& work, double weight);

    // Time of each path class that an exchange stage uses, from the busiest and the mean rank's
    // bytes and the load of the busiest links: ExchangeWork.
    std::vector<PathTime> path_times(const PathBytes& busiest, const PathBytes& mean,
                                     const PathBytes& links, int group_size) const;
    RingTime ring_time(const ReduceWork& work) const;
    // Time of a compute phase, without its account.
    Seconds compute_time(const ComputeWork& work, Pass pass, double fraction = 1.0) const;
    Seconds count_exchange_time(const CountExchangeWork& work) const;
    // Time of one kernel on `fraction` of its work; `spread` of its rows over experts, if of any.
    Seconds kernel_time(const KernelWork& work, Pass pass, double fraction = 1.0,
                        const RowSpread* spread = nullptr) const;
    static const RowSpread* spread_of(const ComputeWork& work);

    // Standard deviation of the sum of everything priced so far with its weights.
    double total_sigma() const;
    const std::vector<double>& sigma_by_curve() const { return sigma_; }
    double independent_variance() const { return independent_variance_; }
    void add_independent_sigma(double seconds) { independent_variance_ += seconds * seconds; }
    std::vector<std::string> warnings() const;

  private:
    struct Range {
        bool used = false;
        int outside = 0;
        double lowest = 0.0, highest = 0.0;  // asked
    };
    struct KernelPrice {
        Seconds work, launch;
        bool memory_bound = false;
        double residual = 0.0;
        int source = 0;
        bool outside = false;
    };

    // By the curve of the whole phase, when the profile has one.
    std::optional<Price> phase_price(const ComputeWork& work, Pass pass, double fraction) const;
    const PhaseCurve* phase_curve(const std::optional<PhaseShape>& shape, Pass pass) const;
    int source_of(const PhaseCurve* curve) const;
    KernelPrice price_kernel(const KernelWork& work, Pass pass, double fraction,
                             const RowSpread* spread) const;
    static LookUp rate_of(const RateCurve& curve, const KernelWork& work, double size,
                          const RowSpread* spread);
    const RateCurve& curve_of(Kernel kernel, Pass pass) const;
    PathTime path_time(Collective collective, PathClass path, double busiest, double mean,
                       int num_ranks) const;
    void note(int source, double asked, bool outside);
    int source_of(const TimeCurve* curve) const;

    const Profile& profile_;
    const Cluster& cluster_;
    std::vector<double> sigma_;  // by source: kernels, time curves, phase curves, overheads
    std::vector<Range> ranges_;
    double independent_variance_ = 0.0;
};

}  // namespace headway::inline cost
