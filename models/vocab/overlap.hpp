// Overlap: how much slower compute is beside communication. A task is so many equal pieces, its
// kernels. Beside communication a piece loses `loss` of its speed until it has taken `slowdown`
// times its own time, as blocks that found no multiprocessor free do a second wave; from then on it
// runs on. Shared by the model's streams (models/cost) and the simulator's (sim).
#pragma once

#include <algorithm>
#include <cmath>

namespace headway {

struct Overlap {
    double slowdown = 1.0;  // >= 1
    double loss = 0.0;      // of the speed, at least 1 - 1 / slowdown

    constexpr Overlap(double times = 1.0, double share = 0.0)
        : slowdown(times), loss(std::max(share, 1.0 - 1.0 / times)) {}

    // A piece has lost all that it can when it ends, and not before.
    constexpr bool is_steady() const { return loss <= 1.0 - 1.0 / slowdown; }
};

// Compute in progress; in any unit of time.
class OverlappedCompute {
  public:
    OverlappedCompute() = default;
    OverlappedCompute(double time, int pieces) : left_(time), piece_(time / pieces) {}

    double left() const { return left_; }  // of its own time
    bool operator==(const OverlappedCompute&) const = default;

    // Until its end, if all the while something communicates, or nothing does.
    double until_end(bool beside, const Overlap& o) const {
        if (!beside || left_ <= 0.0) return left_;
        if (o.is_steady()) return o.slowdown * left_;
        const double most = most_lost(o), later = pieces_behind();
        const double now = left_ - later * piece_, slow = now * o.loss / (1.0 - o.loss);
        return left_ + std::min(most - lost_, slow) +
               later * std::min(most, piece_ * o.loss / (1.0 - o.loss));
    }

    // `passed`, no longer than until_end; returns how much of its own time it went on.
    double advance(double passed, bool beside, const Overlap& o) {
        const double before = left_;
        if (!beside || o.is_steady()) {
            go_on(passed / (beside ? o.slowdown : 1.0), 0.0);
            return before - left_;
        }
        while (passed > 0.0 && left_ > 0.0) {
            const double of_piece = left_ - pieces_behind() * piece_;
            const bool loses = lost_ < most_lost(o) * (1.0 - kRounding);
            const double speed = loses ? 1.0 - o.loss : 1.0;
            double step = speed > 0.0 ? std::min(passed, of_piece / speed) : passed;
            if (loses) step = std::min(step, (most_lost(o) - lost_) / o.loss);
            go_on(speed * step, loses ? o.loss * step : 0.0);
            passed -= step;
        }
        return before - left_;
    }

  private:
    static constexpr double kRounding = 1e-9;

    double most_lost(const Overlap& o) const { return (o.slowdown - 1.0) * piece_; }
    double pieces_behind() const {
        return std::max(0.0, std::ceil(left_ / piece_ * (1.0 - kRounding)) - 1.0);
    }
    void go_on(double own, double lost) {
        const double behind = pieces_behind();
        left_ = std::max(0.0, left_ - own);
        lost_ += lost;
        if (left_ <= 0.0 || pieces_behind() < behind) lost_ = 0.0;
    }

    double left_ = 0.0, piece_ = 0.0;
    double lost_ = 0.0;  // by the piece at hand
};

}  // namespace headway
