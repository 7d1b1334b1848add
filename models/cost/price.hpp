// Prices: from work to time, by the curves of a Profile on a Cluster.
//   compute:  t = max(FLOPs / rate(size, width), bytes / memory bandwidth) + launches * launch, the
//   two gradients of a backward each by itself,
//   rates never above the cluster's peak of the type, or its memory bandwidth
//   exchange: t = max over path classes of T_curve(bytes of the busiest rank)
// The PriceBook also keeps count of what each price rests on: residuals by curve (errors of one
// curve are fully correlated, of different curves independent) and look-ups outside the measured
// range.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "models/cost/link_use.hpp"
#include "models/vocab/cluster.hpp"
#include "models/vocab/link_path.hpp"
#include "models/vocab/prediction.hpp"
#include "models/vocab/profile.hpp"
#include "models/workload/workload.hpp"

namespace headway::inline cost {

enum class Bottleneck {
    none,
    flops,
    memory,
    launch,
    sync,
    nvlink,
    pcie,
    nic,
    spine,
    core,
    host_link,
    host
};
inline constexpr std::array kBottleneckNames = {
    std::string_view("none"),   std::string_view("flops"),     std::string_view("memory"),
    std::string_view("launch"), std::string_view("sync"),      std::string_view("nvlink"),
    std::string_view("pcie"),   std::string_view("nic"),       std::string_view("spine"),
    std::string_view("core"),   std::string_view("host_link"), std::string_view("host")};
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
    LinkUse links{};
};

// How an exchange's time comes about, for `headway explain` and for the simulator.
struct PathTime {
    PathClass path = PathClass::self;
    const TimeCurve* curve = nullptr;
    double bytes = 0.0;       // looked up
    double link_ratio = 1.0;  // measured link over this cluster's
    Seconds time, floor;
    Seconds bound;  // that the busiest link of the class needs
    Seconds added;  // beside `time`: by latencies that links have of their own
    bool extrapolated = false;
};

// How a reduction's time comes about.
struct RingTime {
    RingLanes lanes;
    Bytes bytes_of_lane;  // over every hop of one lane
    PathTime curve;
    Seconds bound;   // no ring is faster on these links
    Seconds inside;  // that the links of an island need, where it leaves them
    Seconds time;
    Seconds added;  // beside it: by latencies that links have of their own
};

// What rates measured on the profile's device are multiplied by on another, slower one: the ratio
// of peaks, where the profile states its own; 1 on a faster one.
struct DeviceScale {
    double matmul = 1.0, memory = 1.0;
};
DeviceScale device_scale(const Profile& profile, const Device& device);

// The rate that a kernel is priced at. On a device slower than the measured one the curve's is
// scaled by the ratio of their peaks; it never exceeds this device's.
struct KernelRate {
    const RateCurve* curve = nullptr;
    bool own_backward = false;
    double value = 0.0;  // FLOP/s or bytes/s
    double scale = 1.0;
    bool outside = false, capped = false;
};

class PriceBook {
  public:
    PriceBook(const Profile& profile, const Cluster& cluster, Dtype dtype);

    // `fraction` of the work, e.g. one of c chunks; `weight` is how often the step does it, for the
    // error budget.
    Price compute(const ComputeWork& work, Pass pass, double weight, double fraction = 1.0);
    Price exchange(const ExchangeWork& work, double weight, double fraction = 1.0);
    Price count_exchange(const CountExchangeWork& work, double weight);
    Price reduce(const ReduceWork& work, double weight);
    // A copy to or from host memory, or AdamW there.
    Price host(const HostWork& work, double weight, double fraction = 1.0);
    // To one other rank on this path, while every rank sends one.
    Price message(PathClass path, Bytes bytes, double weight);

    // Time of each path class that an exchange stage uses, from the busiest and the mean rank's
    // bytes and the load of the busiest links: ExchangeWork.
    std::vector<PathTime> path_times(const PathBytes& busiest, const PathBytes& mean,
                                     const PathBytes& links, int group_size,
                                     Collective collective = Collective::all_to_all,
                                     int stride = 1) const;
    RingTime ring_time(const ReduceWork& work) const;
    // The time of records where a curve of the phase that they are of has it: with the counts in
    // forward, apart in backward. None: it goes by their bytes.
    std::optional<Seconds> records_time(const ExchangeWork& work) const;
    // What a rank moves in its memory around an exchange.
    Seconds planes_time(const ExchangeWork& work, double fraction) const;
    // Time of a compute phase, without its account.
    Seconds compute_time(const ComputeWork& work, Pass pass, double fraction = 1.0) const;
    // What adding to weights' gradients takes beyond writing them, where a phase is priced by a
    // curve of itself: the bytes that are read again, at the rate of a copy.
    Seconds added_time(const ComputeWork& work) const;
    Seconds count_exchange_time(const CountExchangeWork& work) const;
    // What a rank's copies and its AdamW achieve in host memory. InputError where the profile does
    // not know.
    Bandwidth host_rate(HostPart part) const;
    // Share of a backward phase that is weight gradients: of kernels that multiply by weights, half
    // of their least time on the device, over the least time of all kernels.
    double weight_gradient_share(const PhaseWork& phase) const;
    // The time that the host takes to enqueue a phase. InputError where the profile has no time of
    // an operation.
    Seconds launch_time(const PhaseWork& phase) const;
    // Time of one kernel on `fraction` of its work, and the rate it runs at; `spread` of its rows
    // over experts, if of any.
    Seconds kernel_time(const KernelWork& work, Pass pass, double fraction = 1.0,
                        const RowSpread* spread = nullptr) const;
    // The kernel whose curve prices it.
    Kernel kernel_of(const KernelWork& work) const;
    // The device's, of the type that the kernel computes in.
    FlopRate peak(const KernelWork& work) const { return peak(dtype_of(work)); }
    // Part of the kernel before: takes no time of its own.
    bool is_joined(const KernelWork& work) const;
    KernelRate rate_of(const KernelWork& work, Pass pass, double fraction = 1.0,
                       const RowSpread* spread = nullptr) const;
    static const RowSpread* spread_of(const ComputeWork& work);

    // Standard deviation of the sum of everything priced so far with its weights.
    double total_sigma() const;
    std::vector<double> sigma_by_curve() const;
    double independent_variance() const { return independent_variance_; }
    // Launches by the host are off together with the overheads.
    void add_host_sigma(double seconds) { account({}).sigma += seconds; }
    void add_independent_sigma(double seconds) { independent_variance_ += seconds * seconds; }
    std::vector<std::string> warnings() const;

  private:
    // What a price rests on; monostate: the overheads.
    struct KernelSource {
        Kernel kernel;
        Dtype dtype;
        Pass pass;
    };
    enum class HostSource { copies, optimizer };
    using Source =
        std::variant<std::monostate, KernelSource, const TimeCurve*, const PhaseCurve*, HostSource>;
    struct Account {
        bool used = false;
        double sigma = 0.0;  // seconds, of all prices with their weights
        int outside = 0, capped = 0;
        double lowest = 0.0, highest = 0.0;  // asked outside
        std::string_view what;               // of a phase's shape, with what was measured of it
        Extent measured;
    };
    struct KernelPrice {
        Seconds work, launch;
        bool memory_bound = false;
        KernelRate rate;
        KernelSource source;
    };

    // By the curve of the whole phase, when the profile has one.
    std::optional<Price> phase_price(const ComputeWork& work, Pass pass, double fraction) const;
    const PhaseCurve* phase_curve(const std::optional<PhaseShape>& shape, Pass pass) const;
    struct Halves;
    Halves halves(const KernelWork& work, Seconds arithmetic, double fraction) const;
    KernelPrice price_kernel(const KernelWork& work, Pass pass, double fraction,
                             const RowSpread* spread) const;
    static double uneven_rate(const RateCurve& curve, const KernelWork& work, double size,
                              double even, const RowSpread* spread);
    const RateCurve& curve_of(Kernel kernel, Dtype dtype, Pass pass) const;
    FlopRate peak(Dtype dtype) const;
    Dtype dtype_of(const KernelWork& work) const { return work.dtype.value_or(dtype_); }
    // `slowest`: the least factor of the links that are passed, as link_overrides has them.
    PathTime path_time(Collective collective, PathClass path, double busiest, double mean,
                       int num_ranks, double slowest) const;
    std::size_t index_of(const Source& source) const;
    Source source_at(std::size_t index) const;
    Account& account(const Source& source) { return accounts_[index_of(source)]; }
    [[noreturn]] void missing_curve(const std::string& what, const std::string& hint) const;
    void note(const Source& source, double asked, bool outside, std::string_view what = {});
    void note_shape(const PhaseCurve& curve, const PhaseShape& shape);
    std::string warning_of(KernelSource source, const Account& account) const;
    std::string warning_of(const TimeCurve& curve, const Account& account) const;
    std::string warning_of(const PhaseCurve& curve, const Account& account) const;

    const Profile& profile_;
    const Cluster& cluster_;
    const Dtype dtype_;
    const DeviceScale scale_;
    const AddedLatency added_;
    std::vector<Account>
        accounts_;  // by source: kernels, time curves, phase curves, host, overheads
    double independent_variance_ = 0.0;
};

}  // namespace headway::inline cost
