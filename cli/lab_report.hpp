// Predicted, simulated and measured in headway-lab, side by side.
#pragma once

#include <string>
#include <vector>

#include "models/vocab/units.hpp"

namespace headway::cli {

struct ThreeTimes {
    Seconds predicted, simulated, measured;

    ThreeTimes& operator+=(const ThreeTimes& other) {
        predicted += other.predicted;
        simulated += other.simulated;
        measured += other.measured;
        return *this;
    }
    double predicted_error() const { return predicted / measured - 1.0; }
    double simulated_error() const { return simulated / measured - 1.0; }
};

// What the links that an exchange loads carried, over the bytes that it has for them, - 1.
struct LinkVerdict {
    double least_over = 0.0, most_over = 0.0;
    bool passed = true;  // headers, acknowledgements and barriers besides, and no byte less
};

// A forward exchange of a plan, in all its stages.
struct ExchangeRow {
    std::string plan, phase;
    ThreeTimes time;
    Seconds low, high;  // measured: p10 and p90
    LinkVerdict links;
};

// An MoE layer of a plan, forward and backward.
struct LayerRow {
    std::string plan;
    ThreeTimes exchanges, layer;
    Seconds low, high;  // measured, of the layer: sums of its phases' p10 and p90
};

struct LabReport {
    std::string heading;
    std::string baseline;
    std::vector<ExchangeRow> exchanges;
    std::vector<LayerRow> layers;
    std::vector<std::string> not_emulated;
};

std::string to_table(const LabReport& report);
std::string to_csv(const LabReport& report);

// Whether all times, and what links carried, are as expected; with a sentence.
struct LabVerdict {
    bool passed = true;
    std::string text;
};
LabVerdict judge(const LabReport& report, double tolerance);

}  // namespace headway::cli
