#include "cli/calibration/gpu_samples.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <fstream>

#include "cli/child_program.hpp"
#include "cli/options.hpp"
#include "cli/output.hpp"
#include "models/text/file_lock.hpp"
#include "models/vocab/error.hpp"
#include "runtime/layers/layer_grid.hpp"

namespace headway::cli {
namespace {

namespace fs = std::filesystem;
using Words = std::vector<std::string>;

constexpr const char* kNotBuilt =
    "it is built with headway when CUDA is there (cmake --preset cuda); --programs DIR says where "
    "it lies";

std::string program(const GpuCalibration& c, const std::string& name) {
    if (c.programs) {
        if (fs::exists(*c.programs / name)) return (*c.programs / name).string();
        throw InputError({.where = "--programs",
                          .found = "no " + name + " in " + c.programs->string(),
                          .hint = kNotBuilt});
    }
    return program_beside(name);
}

// The last line of a log that is no progress, and the last progress in it.
struct LogEnd {
    std::string line;
    std::size_t done = 0, total = 0;
};

LogEnd read_log(const fs::path& log) {
    LogEnd end;
    std::ifstream in(log);
    for (std::string line; std::getline(in, line);) {
        std::size_t done = 0, total = 0;
        if (std::sscanf(line.c_str(), "layers %zu of %zu", &done, &total) == 2) {
            end.done = done;
            end.total = total;
        } else if (!line.empty()) {
            end.line = line;
        }
    }
    return end;
}

// Runs it to its end, with its words in `log`, and throws when it fails.
void measure_with(const Words& words, const fs::path& log, const std::string& label) {
    Progress progress(label);
    const int status = run_child(words, log, [&] {
        const LogEnd end = read_log(log);
        if (end.total > 0) progress.update(end.done, end.total);
    });
    if (status == 0) return;
    const std::string name = fs::path(words.front()).filename().string();
    if (could_not_start(status)) {
        throw InputError({.where = "--device cuda",
                          .found = name + " cannot be started: " + read_log(log).line,
                          .hint = kNotBuilt});
    }
    throw InputError({.where = name,
                      .found = fmt::format("{}: {}", how_ended(status), read_log(log).line),
                      .hint = fmt::format("all it said is in {}; finished layers are kept, and the "
                                          "same command goes on from there",
                                          log.string())});
}

bool is_there(const fs::path& file) {
    std::error_code ignored;
    return fs::exists(file, ignored) && fs::file_size(file, ignored) > 0;
}

// The part of a grid that has no samples yet.
struct Missing {
    std::size_t layers = 0;      // without any
    std::size_t executions = 0;  // of all layers and passes
};

// Prepares the file of the samples for more.
Missing missing_of(const fs::path& grid, const fs::path& samples, const GpuCalibration& c) {
    const std::vector<runtime::GridPoint> points = runtime::read_grid(grid);
    std::vector<int> done(points.size(), 0);
    if (is_there(samples)) {
        runtime::drop_unfinished(samples);
        const auto there = runtime::read_grid_samples(samples);
        for (const runtime::GridSample& s : there) {
            if (s.num_ranks == c.num_ranks) continue;
            throw InputError({.where = samples.string(),
                              .found = fmt::format("samples of {} ranks", s.num_ranks),
                              .accepted = fmt::format("of {}", c.num_ranks),
                              .hint = "another --samples folder keeps them apart"});
        }
        done = runtime::num_executions(points, there);
    }
    Missing missing;
    for (const int passes : done) {
        missing.layers += passes == 0;
        missing.executions += static_cast<std::size_t>(std::max(0, c.num_passes - passes));
    }
    return missing;
}

void measure_layers(const GpuCalibration& c, const GpuSamples& samples) {
    Words words{program(c, "headway-grid"),
                c.scenario.string(),
                "--ranks",
                std::to_string(c.num_ranks),
                "--passes",
                std::to_string(c.num_passes),
                "--repeats",
                std::to_string(c.num_repeats),
                "--max-seconds",
                fmt::format("{}", c.max_seconds),
                "--append",
                "--progress"};
    std::size_t missing = 0;
    const auto add = [&](const fs::path& grid, const fs::path& out) {
        missing += missing_of(grid, out, c).executions;
        for (const std::string& word :
             {std::string("--grid"), grid.string(), std::string("-o"), out.string()})
            words.push_back(word);
    };
    add(c.grid, samples.layers);
    for (std::size_t i = 0; i < c.held_out.size(); ++i) add(c.held_out[i], samples.held_out[i]);
    if (missing == 0 || c.max_seconds <= 0.0) return;
    measure_with(words, c.folder / "headway-grid.log", "layers");
    const Missing left = missing_of(c.grid, samples.layers, c);
    if (left.executions > 0) {
        warn(
            fmt::format("{} layers of {} have no samples, {} executions are missing in all: out of "
                        "time (--max-seconds), or too large; the same command goes on from there",
                        left.layers, c.grid.string(), left.executions));
    }
}

}  // namespace

GpuSamples measure_gpu(const GpuCalibration& c) {
    std::error_code error;
    fs::create_directories(c.folder, error);
    if (error) {
        throw InputError({.where = "--samples",
                          .found = c.folder.string() + ": " + error.message(),
                          .accepted = "a folder that can be written"});
    }
    const FileLock lock(c.folder);
    GpuSamples samples{.overheads = c.folder / "overheads.csv",
                       .layers = c.folder / (c.grid.stem().string() + ".csv")};
    for (const fs::path& grid : c.held_out)
        samples.held_out.push_back(c.folder / (grid.stem().string() + ".csv"));
    const std::string ranks = std::to_string(c.num_ranks);
    if (!is_there(samples.overheads)) {
        measure_with({program(c, "headway-grid"), "--ranks", ranks, "--overheads",
                      samples.overheads.string()},
                     c.folder / "overheads.log", "launches, waits and copies");
    }
    if (c.num_ranks > 1) {
        for (const char* log : {"alltoall", "sendrecv", "all_reduce"})
            samples.comm_logs.push_back(c.folder / fmt::format("comm_{}.log", log));
        const bool all = std::all_of(samples.comm_logs.begin(), samples.comm_logs.end(), is_there);
        if (!all) {
            measure_with({program(c, "headway-comm"), "--ranks", ranks, "--rounds", "3",
                          "--repeats", "9", "--estimate", "--out", (c.folder / "comm").string()},
                         c.folder / "headway-comm.log", "exchanges");
        }
    }
    measure_layers(c, samples);
    return samples;
}

}  // namespace headway::cli
