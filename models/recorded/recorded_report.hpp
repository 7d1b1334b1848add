// What predict, simulate and explain say of a program.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "models/recorded/lay_out.hpp"
#include "models/vocab/prediction.hpp"

namespace headway::inline recorded {

struct RecordedPrediction {
    std::string program, cluster, profile;
    int num_ranks = 1;
    Seconds step;
    Interval interval;  // of the collectives' curves
    // Parts of the step: what shows of each, by what it waits for.
    Seconds compute, exposed, host;
    // The same job with the layers it had.
    struct Recorded {
        Seconds step, compute, exposed;
    };
    std::optional<Recorded> as_recorded;
    struct Part {
        std::string what;
        Seconds time, exposed, host;  // alone; in the step; of it, the device waits for the host
        Bytes sent;                   // by the busiest rank; of a collective
        int count = 0;
    };
    std::vector<Part> parts;  // longest in the step first
    double imbalance = 1.0;   // compute of the slowest rank over the mean
    int slowest_rank = 0;
    std::vector<std::string> warnings, inferred;
};

RecordedPrediction predict_program(const LaidOut& laid, const Cluster& cluster,
                                   const Profile& profile);

std::string to_table(const RecordedPrediction& prediction);
std::string to_json(const RecordedPrediction& prediction);

// One task of the program: what was recorded of it, what it costs, and where that comes from.
std::string explain_task(const LaidOut& laid, int task);

}  // namespace headway::inline recorded
