// Comparison: two Timelines joined by phase. What is compared is the time of one execution on the
// busiest rank: the mean over layers and micro-batches of the maximum over ranks. The error is
// signed: predicted / measured - 1, so +10 % means that headway said 10 % too much.
#pragma once

#include <string>
#include <vector>

#include "models/vocab/timeline.hpp"

namespace headway::inline report {

// Two zeros agree; a prediction of something that took no time is infinitely wrong.
inline double signed_error(Seconds predicted, Seconds measured) {
    return predicted == measured ? 0.0 : predicted / measured - 1.0;
}

struct PhaseComparison {
    Pass pass = Pass::forward;
    Phase phase = Phase::embed;
    Seconds predicted, low, high;  // of one execution
    Seconds measured;

    double error() const { return signed_error(predicted, measured); }
    bool inside() const { return low <= measured && measured <= high; }
};

struct PassComparison {
    Pass pass = Pass::forward;
    Seconds predicted, measured;  // sums over the joined phases, one execution of each

    double error() const { return signed_error(predicted, measured); }
};

struct Comparison {
    std::string plan;
    std::vector<PhaseComparison> phases;  // in order of the measured timeline
    std::vector<PassComparison> passes;
    std::vector<std::string> only_predicted, only_measured;  // "dispatch forward"

    double worst_error() const;  // of the phases, by magnitude, with its sign; 0 without phases
};

Comparison compare(const Timeline& predicted, const Timeline& measured);

// The same against several runs of one plan: `measured` is the median over the runs, of every phase
// and of every pass. A phase must be in all of them. At least one run.
Comparison compare(const Timeline& predicted, const std::vector<Timeline>& runs);

// Table of phases, then passes, then what could not be joined.
std::string to_table(const Comparison& comparison);

}  // namespace headway::inline report
