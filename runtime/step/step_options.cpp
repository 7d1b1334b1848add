#include "runtime/step/step_options.hpp"

#include <fmt/format.h>

#include <boost/program_options.hpp>
#include <string>

#include "models/vocab/error.hpp"
#include "runtime/process/program.hpp"

namespace headway::runtime {

namespace po = boost::program_options;

void add_step_options(po::options_description& options) {
    auto add = options.add_options();
    add("steps", po::value<int>(),
        "run whole training steps: so many timed end to end, behind --warmup others and before "
        "--repeats whose phases are timed; all of them train");
    add("data", po::value<std::string>()->default_value(""),
        "with --steps: file whose bytes are the tokens, of a vocabulary of 256 (default: drawn "
        "tokens)");
    add("learning-rate", po::value<double>()->default_value(1e-3), "with --steps: of AdamW");
    add("losses", po::value<std::string>()->default_value(""),
        "with --steps: CSV of the loss of every step");
    add("force-routing",
        "with --steps: experts as the scenario's routing draws them; else a step's routers choose");
    add("check",
        "with --steps and cuda: hold loss and gradients of one step against the CPU reference in "
        "fp64, for small models, and run nothing else");
}

std::optional<StepRun> step_options(const po::variables_map& values) {
    const auto given = [&](const char* name) {
        return values.count(name) != 0 && !values[name].defaulted();
    };
    const auto refuse = [](const std::string& found, const std::string& accepted) {
        throw InputError({.where = "headway-run", .found = found, .accepted = accepted});
    };
    if (!given("steps")) {
        for (const char* name : {"data", "learning-rate", "losses", "force-routing", "check"})
            if (given(name)) refuse(fmt::format("--{} without --steps", name), "both, or neither");
        return std::nullopt;
    }
    for (const char* name : {"layers", "forward-only", "timing", "matrices"})
        if (given(name))
            refuse(fmt::format("--{} with --steps", name), "a step runs all layers, both passes");
    if (given("no-graph"))
        refuse("--no-graph with --steps", "plans with and without cuda_graph_scope");
    StepRun run{.num_steps = at_least(values, "steps", 1),
                .data = values["data"].as<std::string>(),
                .forced = values.count("force-routing") != 0,
                .check = values.count("check") != 0,
                .losses = values["losses"].as<std::string>(),
                .learning_rate = values["learning-rate"].as<double>()};
    if (!(run.learning_rate >= 0.0))
        refuse(fmt::format("--learning-rate {}", run.learning_rate), "0 or more");
    if (run.check && values["device"].as<std::string>() != "cuda")
        refuse("--check with --device cpu", "--device cuda");
    return run;
}

}  // namespace headway::runtime
