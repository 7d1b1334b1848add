// RankContext: what a layer gets besides its numbers: the communicator, and a record of when each
// phase began and how long it took on this rank.
#pragma once

#include <chrono>
#include <functional>
#include <vector>

#include "runtime/communicator.hpp"

namespace headway::runtime {

struct PhaseSample {
    CallSite site;
    double begin = 0.0;     // s since the origin: when this rank arrived at the phase
    double duration = 0.0;  // s, without the wait for other ranks to arrive
};

struct RankContext {
    Communicator& communicator;
    std::vector<PhaseSample>* samples = nullptr;  // null: not timed
    std::chrono::steady_clock::time_point origin = std::chrono::steady_clock::now();
    std::function<void(CallSite)> on_enter;  // fault injection; may throw
    bool again = false;                      // in a forward that backward repeats

    double now() const {
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - origin).count();
    }
};

// Where backward repeats a forward: phases belong to the backward pass, and counts that ranks have
// exchanged are known. `Context`: of a rank on a CPU or a GPU.
template <class Context>
class RepeatedForward {
  public:
    explicit RepeatedForward(Context& context) : context_(context) { context.again = true; }
    RepeatedForward(const RepeatedForward&) = delete;
    RepeatedForward& operator=(const RepeatedForward&) = delete;
    ~RepeatedForward() { context_.again = false; }

  private:
    Context& context_;
};

// The pass that `site` is in here.
template <class Context>
CallSite site_in(const Context& context, CallSite site) {
    return context.again ? CallSite{site.phase, Pass::backward} : site;
}

// From construction to destruction this rank is in `site`. When timed, the ranks of `peers` meet
// before the clock of a communication phase starts: what a rank waits for others is their arrival
// skew, visible in the begin times, and no part of the exchange.
class PhaseScope {
  public:
    PhaseScope(RankContext& context, CallSite site, Communicator* peers = nullptr);
    PhaseScope(const PhaseScope&) = delete;
    PhaseScope& operator=(const PhaseScope&) = delete;
    ~PhaseScope();

  private:
    RankContext& context_;
    PhaseSample sample_;
    double start_ = 0.0;
};

}  // namespace headway::runtime
