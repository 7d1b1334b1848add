#include "models/workload/ring_integral.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <numbers>

namespace headway::inline workload {
namespace {

constexpr std::size_t kLanes = 4;     // times that are summed side by side
constexpr double kNegligible = 1e-7;  // chance that fewer than k have rung at the last time
// Beyond so many choices the count is taken as normal with its skewness; sums of so many Bernoulli
// variables are (error below 3e-4 of a probability).
constexpr int kExactChoices = 32;

// One number for each of the times.
struct Lanes {
    std::array<double, kLanes> v;

    static Lanes all(double x) { return {{x, x, x, x}}; }
    Lanes& operator+=(const Lanes& o) {
        for (std::size_t l = 0; l < kLanes; ++l) v[l] += o.v[l];
        return *this;
    }
    Lanes& operator*=(const Lanes& o) {
        for (std::size_t l = 0; l < kLanes; ++l) v[l] *= o.v[l];
        return *this;
    }
    friend Lanes operator*(Lanes a, const Lanes& b) { return a *= b; }
};

// Chances of 0, 1, ..., k-1 rings: the coefficients of a polynomial cut at degree k.
using Counts = std::vector<Lanes>;

void set_none(Lanes* counts, std::size_t k) {
    std::fill(counts, counts + k, Lanes::all(0.0));
    counts[0] = Lanes::all(1.0);
}

// One more clock, silent with chance q.
void add_clock(const Lanes* from, Lanes* to, std::size_t k, const Lanes& q) {
    for (std::size_t j = k; j-- > 1;) {
        for (std::size_t l = 0; l < kLanes; ++l)
            to[j].v[l] = from[j].v[l] * q.v[l] + from[j - 1].v[l] * (1.0 - q.v[l]);
    }
    to[0] = from[0] * q;
}

void accumulate(Lanes* to, const Lanes* counts, std::size_t k) {
    Lanes sum = Lanes::all(0.0);
    for (std::size_t j = 0; j < k; ++j) to[j] = sum += counts[j];
}

// P(a + b < k) from the chances of a and the cumulative ones of b.
Lanes below(const Lanes* a, const Lanes* cumulative_b, std::size_t k) {
    Lanes sum = Lanes::all(0.0);
    for (std::size_t j = 0; j < k; ++j) sum += a[j] * cumulative_b[k - 1 - j];
    return sum;
}

struct Moments {
    double mean = 0.0, variance = 0.0, third = 0.0;

    void add(double q, double sign = 1.0) {
        const double p = 1.0 - q;
        mean += sign * p;
        variance += sign * p * q;
        third += sign * p * q * (q - p);
    }
};

// P(N < k) of a sum with these moments: normal, corrected for skewness and for whole numbers.
double refined_normal_below(int k, const Moments& m) {
    const double sigma = std::sqrt(std::max(m.variance, 1e-12));
    const double x = (k - 0.5 - m.mean) / sigma;
    const double skewness = m.third / (sigma * sigma * sigma);
    const double density = std::exp(-0.5 * x * x) / std::sqrt(2.0 * std::numbers::pi);
    const double value =
        0.5 * std::erfc(-x / std::numbers::sqrt2) + skewness / 6.0 * (1.0 - x * x) * density;
    return std::clamp(value, 0.0, 1.0);
}

// h (f(x - h) + f(x - 2h) + ...), f(x) = W s exp(-W s) and s = exp(x), from its series; ws <= 1.
double left_tail(double ws, double h) {
    double sum = 0.0, power = ws;
    for (int m = 0; m < 12; ++m) {
        sum += power * h / std::expm1((m + 1) * h);
        power *= -ws / (m + 1);
    }
    return sum;
}

class Integral {
  public:
    Integral(const std::vector<double>& rates, int top_k, const OpenGroups* groups,
             const std::vector<int>& partitions)
        : rates_(rates),
          top_k_(top_k),
          k_(static_cast<std::size_t>(top_k)),
          groups_(groups),
          step_(std::min(0.6, 1.3 / std::sqrt(top_k))),
          silent_(rates.size()) {
        for (const int parts : partitions) {
            const std::size_t n = static_cast<std::size_t>(parts);
            const std::size_t length = rates.size() / n;
            const std::size_t group = groups ? rates.size() / groups->odds.size() : rates.size();
            parts_.push_back({n, length, group % length == 0, std::vector<double>(n, 0.0)});
        }
    }

    std::vector<std::vector<double>> run() {
        // Fewer than s^k / k! of the tokens have k rings at time s.
        const bool inner = std::all_of(parts_.begin(), parts_.end(),
                                       [](const Part& part) { return part.is_inner; });
        double start =
            std::min(inner ? 1.0 : 0.05,
                     std::exp((std::lgamma(top_k_ + 1.0) + std::log(kNegligible)) / top_k_));
        add_left_tails(start);
        bool first = true;
        for (double left = 1.0; left > kNegligible; first = false) {
            for (std::size_t l = 0; l < kLanes; ++l) {
                time_.v[l] = start;
                start *= std::exp(step_);
            }
            for (std::size_t e = 0; e < rates_.size(); ++e) {
                for (std::size_t l = 0; l < kLanes; ++l)
                    silent_[e].v[l] = std::exp(-rates_[e] * time_.v[l]);
            }
            left = groups_                  ? grouped_block(first)
                   : top_k_ > kExactChoices ? normal_block()
                                            : exact_block();
            if (!std::isfinite(start)) break;
        }
        std::vector<std::vector<double>> hits;
        for (Part& part : parts_) {
            for (double& h : part.hits) h = std::clamp(h, 0.0, 1.0);
            hits.push_back(std::move(part.hits));
        }
        return hits;
    }

  private:
    struct Part {
        std::size_t count, length;
        bool is_inner;  // its parts lie inside groups
        std::vector<double> hits;
    };

    double rate_of(const Part& part, std::size_t p) const {
        double sum = 0.0;
        for (std::size_t e = p * part.length; e < (p + 1) * part.length; ++e) sum += rates_[e];
        return sum;
    }

    void add_left_tails(double start) {
        for (Part& part : parts_) {
            for (std::size_t p = 0; part.is_inner && p < part.count; ++p) {
                const double open =
                    groups_
                        ? groups_->chance[p * part.length * groups_->odds.size() / rates_.size()]
                        : 1.0;
                part.hits[p] += open * left_tail(rate_of(part, p) * start, step_);
            }
        }
    }

    // A part that is silent with chance `silence` rings first at these times, with fewer than k of
    // the others before it.
    void add_term(Part& part, std::size_t p, double rate, const Lanes& silence,
                  const Lanes& others_below) {
        for (std::size_t l = 0; l < kLanes; ++l)
            part.hits[p] += step_ * rate * time_.v[l] * silence.v[l] * others_below.v[l];
    }

    // Parts that lie inside the clocks [begin, end), when `others` says how many of the rest have
    // rung (a chance in all of less than 1: that those clocks count at all). Returns the counts of
    // the whole, others left out.
    Counts add_inner_parts(std::size_t begin, std::size_t end, const Lanes* others) {
        const std::size_t n = end - begin;
        before_.resize((n + 1) * k_);
        std::copy(others, others + k_, before_.begin());
        for (std::size_t i = 0; i < n; ++i)
            add_clock(&before_[i * k_], &before_[(i + 1) * k_], k_, silent_[begin + i]);
        Counts after(k_);
        set_none(after.data(), k_);
        std::vector<Counts> held(parts_.size(), Counts(k_, Lanes::all(1.0)));
        std::vector<Lanes> silence(parts_.size(), Lanes::all(1.0));
        std::vector<double> rate(parts_.size(), 0.0);
        for (std::size_t e = end; e-- > begin;) {
            add_clock(after.data(), after.data(), k_, silent_[e]);
            for (std::size_t d = 0; d < parts_.size(); ++d) {
                Part& part = parts_[d];
                if (!part.is_inner) continue;
                silence[d] *= silent_[e];
                rate[d] += rates_[e];
                if (e % part.length != 0) continue;
                add_term(part, e / part.length, rate[d], silence[d],
                         below(&before_[(e - begin) * k_], held[d].data(), k_));
                accumulate(held[d].data(), after.data(), k_);
                silence[d] = Lanes::all(1.0);
                rate[d] = 0.0;
            }
        }
        return after;
    }

    double exact_block() {
        Counts none(k_);
        set_none(none.data(), k_);
        double left = 0.0;
        for (const Lanes& chance : add_inner_parts(0, rates_.size(), none.data()))
            left += chance.v[kLanes - 1];
        return left;
    }

    double normal_block() {
        std::array<Moments, kLanes> all{};
        for (const Lanes& q : silent_) {
            for (std::size_t l = 0; l < kLanes; ++l) all[l].add(q.v[l]);
        }
        for (Part& part : parts_) {
            for (std::size_t p = 0; p < part.count; ++p) {
                std::array<Moments, kLanes> others = all;
                Lanes silence = Lanes::all(1.0), under{};
                for (std::size_t e = p * part.length; e < (p + 1) * part.length; ++e) {
                    silence *= silent_[e];
                    for (std::size_t l = 0; l < kLanes; ++l) others[l].add(silent_[e].v[l], -1.0);
                }
                for (std::size_t l = 0; l < kLanes; ++l)
                    under.v[l] = refined_normal_below(top_k_, others[l]);
                add_term(part, p, rate_of(part, p), silence, under);
            }
        }
        return refined_normal_below(top_k_, all[kLanes - 1]);
    }

    // Chances of t open groups and j rings of their clocks, for the groups' polynomials 1 + y
    // odds_g P_g(z). [open][rings]
    Counts no_groups() const {
        Counts none((static_cast<std::size_t>(groups_->top) + 1) * k_, Lanes::all(0.0));
        none[0] = Lanes::all(1.0);
        return none;
    }

    void add_group(Counts& joint, double odds, const Lanes* rings, const Lanes& closed) const {
        for (std::size_t t = static_cast<std::size_t>(groups_->top) + 1; t-- > 0;) {
            for (std::size_t j = k_; j-- > 0;) {
                Lanes sum = joint[t * k_ + j] * closed;
                for (std::size_t i = 0; t > 0 && i <= j; ++i)
                    sum += joint[(t - 1) * k_ + j - i] * rings[i] * Lanes::all(odds);
                joint[t * k_ + j] = sum;
            }
        }
    }

    // Rings of the clocks of group g outside [begin, end).
    Counts rings_of(std::size_t g, std::size_t begin, std::size_t end) const {
        const std::size_t length = rates_.size() / groups_->odds.size();
        Counts rings(k_);
        set_none(rings.data(), k_);
        for (std::size_t e = g * length; e < (g + 1) * length; ++e) {
            if (e >= begin && e < end) continue;
            add_clock(rings.data(), rings.data(), k_, silent_[e]);
        }
        return rings;
    }

    // Chance that `top` groups are open of whatever they are: what all terms are divided by.
    double normaliser() const {
        std::vector<double> open(static_cast<std::size_t>(groups_->top) + 1, 0.0);
        open[0] = 1.0;
        for (const double odds : groups_->odds) {
            for (std::size_t t = open.size(); t-- > 1;) open[t] += odds * open[t - 1];
        }
        return open.back();
    }

    double grouped_block(bool first) {
        const std::size_t num_groups = groups_->odds.size();
        const std::size_t length = rates_.size() / num_groups;
        const double all = normaliser();
        const Lanes one = Lanes::all(1.0);
        const std::size_t top = static_cast<std::size_t>(groups_->top);
        std::vector<Counts> rings;
        for (std::size_t g = 0; g < num_groups; ++g) rings.push_back(rings_of(g, 0, 0));
        // Counts of the groups before and after each.
        std::vector<Counts> left(num_groups + 1, no_groups()), right(num_groups + 1, no_groups());
        for (std::size_t g = 0; g < num_groups; ++g) {
            left[g + 1] = left[g];
            add_group(left[g + 1], groups_->odds[g], rings[g].data(), one);
        }
        for (std::size_t g = num_groups; g-- > 0;) {
            right[g] = right[g + 1];
            add_group(right[g], groups_->odds[g], rings[g].data(), one);
        }
        for (std::size_t g = 0; g < num_groups; ++g) {
            const Counts others = others_of(left[g], right[g + 1], groups_->odds[g] / all);
            add_inner_parts(g * length, (g + 1) * length, others.data());
        }
        for (Part& part : parts_) {
            for (std::size_t p = 0; !part.is_inner && p < part.count; ++p) {
                const std::size_t begin = p * part.length, end = begin + part.length;
                add_grouped_term(part, p, begin / length, (end - 1) / length, left, right, all,
                                 first);
            }
        }
        double unfinished = 0.0;
        for (std::size_t j = 0; j < k_; ++j)
            unfinished += left[num_groups][top * k_ + j].v[kLanes - 1];
        return unfinished / all;
    }

    // Rings of the groups beside one that is open.
    Counts others_of(const Counts& left, const Counts& right, double odds) const {
        const std::size_t open = static_cast<std::size_t>(groups_->top) - 1;
        Counts others(k_, Lanes::all(0.0));
        for (std::size_t t = 0; t <= open; ++t) {
            for (std::size_t j = 0; j < k_; ++j) {
                for (std::size_t i = 0; i <= j; ++i)
                    others[j] += left[t * k_ + i] * right[(open - t) * k_ + j - i];
            }
        }
        for (Lanes& chance : others) chance *= Lanes::all(odds);
        return others;
    }

    // The part's experts lie in groups g0..g1; the first of them to ring is in one of those.
    void add_grouped_term(Part& part, std::size_t p, std::size_t g0, std::size_t g1,
                          const std::vector<Counts>& left, const std::vector<Counts>& right,
                          double all, bool first) {
        const std::size_t length = rates_.size() / groups_->odds.size();
        const std::size_t begin = p * part.length, end = begin + part.length;
        // `silent`: none of the part has rung; `rings`: the first of it rings now.
        Counts silent = left[g0], ringing(silent.size(), Lanes::all(0.0));
        for (std::size_t g = g0; g <= g1; ++g) {
            double rate = 0.0;
            Lanes silence = Lanes::all(1.0);
            for (std::size_t e = std::max(begin, g * length); e < std::min(end, (g + 1) * length);
                 ++e) {
                rate += rates_[e];
                silence *= silent_[e];
            }
            Counts others = rings_of(g, begin, end);
            for (Lanes& c : others) c *= silence;
            Counts now = silent;
            add_group(now, groups_->odds[g] * rate, others.data(), Lanes::all(0.0));
            add_group(ringing, groups_->odds[g], others.data(), Lanes::all(1.0));
            for (std::size_t i = 0; i < now.size(); ++i) ringing[i] += now[i];
            add_group(silent, groups_->odds[g], others.data(), Lanes::all(1.0));
        }
        Lanes sum = Lanes::all(0.0);
        Counts cumulative(k_);
        for (std::size_t t = 0; t <= static_cast<std::size_t>(groups_->top); ++t) {
            accumulate(cumulative.data(), &right[g1 + 1][t * k_], k_);
            sum += below(&ringing[(static_cast<std::size_t>(groups_->top) - t) * k_],
                         cumulative.data(), k_);
        }
        for (std::size_t l = 0; l < kLanes; ++l)
            part.hits[p] += step_ * time_.v[l] * sum.v[l] / all;
        // Before the first time, where the term is in proportion to it.
        if (first) part.hits[p] += step_ / std::expm1(step_) * time_.v[0] * sum.v[0] / all;
    }

    const std::vector<double>& rates_;
    const int top_k_;
    const std::size_t k_;
    const OpenGroups* groups_;
    const double step_;  // of log time
    Lanes time_{};
    std::vector<Lanes> silent_;  // [E]
    std::vector<Lanes> before_;  // [E + 1][k]
    std::vector<Part> parts_;
};

}  // namespace

std::vector<std::vector<double>> reached_by_first_rings(const std::vector<double>& rates, int top_k,
                                                        const OpenGroups* groups,
                                                        const std::vector<int>& partitions) {
    return Integral(rates, top_k, groups, partitions).run();
}

}  // namespace headway::inline workload
