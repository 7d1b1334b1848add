// Measurements of a GPU for `headway calibrate --device cuda`. This program is built without CUDA:
// headway-grid and headway-comm measure, as children, and leave CSVs and logs in a folder. What
// lies there already is kept, so that a calibration that was stopped goes on where it was.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "models/vocab/scenario.hpp"

namespace headway::cli {

struct GpuCalibration {
    std::filesystem::path scenario;  // as headway-grid reads it
    int num_ranks = 1;
    std::filesystem::path folder;                   // of the samples
    std::filesystem::path grid;                     // layers to fit
    std::vector<std::filesystem::path> held_out;    // layers to run between them, not to fit
    std::optional<std::filesystem::path> programs;  // folder of the programs
    int num_passes = 2, num_repeats = 5;
    double max_seconds = 300.0;  // start no layer after this time; 0: none at all
};

struct GpuSamples {
    std::filesystem::path overheads;               // CSV of headway-grid --overheads
    std::filesystem::path layers;                  // samples of the layers to fit
    std::vector<std::filesystem::path> held_out;   // of the others
    std::vector<std::filesystem::path> comm_logs;  // empty for one rank
};

// Runs what is missing. InputError when a program is not there or fails, with its last line.
GpuSamples measure_gpu(const GpuCalibration& calibration);

}  // namespace headway::cli
