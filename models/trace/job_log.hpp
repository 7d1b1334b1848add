// The log of a training job: what Megatron-LM, Megatron-Bridge and NeMo print of every iteration
// and of the allocator, whatever a launcher puts before a line.
#pragma once

#include <cstdint>
#include <istream>
#include <optional>
#include <string>
#include <vector>

#include "models/vocab/units.hpp"

namespace headway::inline trace {

// One line: its time is the mean of the iterations since the line before.
struct LoggedIteration {
    std::int64_t number = 0;  // the last of them
    Seconds time;             // of one iteration
    FlopRate rate;            // of a GPU, as the job counts; 0: not printed
    int run = 0;              // a job that starts again in the same file
    bool skipped = false;     // the update of one of them did not happen
};

// The greatest that a rank says of its allocator.
struct LoggedMemory {
    int rank = -1;  // -1: the line does not say
    Bytes allocated, reserved;
    std::int64_t after = 0;  // iterations
};

struct JobLog {
    std::string file;
    std::string head;  // what stands before the first iteration: arguments, configuration
    std::vector<LoggedIteration> iterations;
    std::vector<LoggedMemory> memory;               // by rank
    std::optional<Bytes> weights_and_optimizer;     // Megatron's theoretical footprint
    std::optional<std::int64_t> global_batch_size;  // of the last iteration
};

// InputError with the line where the text is cut or no number, and for a text without iterations.
JobLog read_job_log(std::istream& stream, const std::string& file);

// Lines that count, and how many of which kind do not.
struct SteadyIterations {
    std::vector<LoggedIteration> lines;
    int warm_up = 0, skipped = 0;
};

// Without each run's first `warm_up` iterations and without lines of skipped updates. InputError
// when nothing is left.
SteadyIterations steady_iterations(const JobLog& log, int warm_up);

}  // namespace headway::inline trace
