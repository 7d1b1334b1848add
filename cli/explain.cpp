// headway explain: where the time of one phase comes from.
#include "models/cost/explain_memory.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <vector>

#include "cli/explain_difference.hpp"
#include "cli/options.hpp"
#include "cli/output.hpp"
#include "cli/program_options.hpp"
#include "cli/scenario_options.hpp"
#include "models/vocab/error.hpp"

namespace headway::cli {
namespace {

CommandHelp explain_help() {
    return {
        .usage =
            "explain SCENARIO.yaml --plan NAME --phase PHASE | --memory | --simulate [options]\n"
            "       headway explain --program P.yaml --cluster C --profile PR [--task N] [options]",
        .about =
            "Shows how the time of one phase came about: bytes, messages and FLOPs, the link or\n"
            "curve that decides, the point on it, the lower bound and the fraction achieved.\n"
            "With --memory: what a layer keeps for backward, tensor by tensor, and what each "
            "stage\n"
            "of a pipeline needs.\n"
            "With --simulate: why the simulated step differs from the predicted one.",
        .examples =
            "  headway explain scenarios/paper_4gpu.yaml --plan ep_naive --phase dispatch\n"
            "  headway explain scenarios/paper_4gpu.yaml --plan hp --phase expert --pass backward\n"
            "  headway explain scenarios/paper_4gpu.yaml --plan ep_naive --memory\n"
            "  headway explain scenarios/paper_4gpu.yaml --plan ep_naive --simulate",
        .positional = {"scenario"}};
}

po::options_description explain_options() {
    po::options_description options("Options");
    add_scenario_options(options);
    add_program_options(options);
    options.add_options()("plan", po::value<std::string>()->value_name("NAME"),
                          "plan of the scenario (may be left out if it has only one)")(
        "phase", po::value<std::string>()->value_name("PHASE"),
        "phase as `headway predict --verbose` names it")(
        "pass", po::value<std::string>()->value_name("PASS"),
        "forward, backward or update (default: forward, or update for a phase of the step's end)")(
        "memory", po::bool_switch(), "instead of a phase: memory by tensor, item and stage")(
        "task", po::value<int>()->value_name("N"), "of a program: this task alone, counted from 0")(
        "simulate", po::bool_switch(),
        "instead of a phase: what makes the simulated step differ from the predicted one")(
        "out,o", po::value<std::string>()->value_name("FILE"),
        "write there instead of to standard output")("help,h", "this text");
    return options;
}

template <class Names>
std::vector<std::string> words(const Names& names) {
    return {names.begin(), names.end()};
}

Pass pass_of(const po::variables_map& values, Phase phase) {
    const auto chosen = optional_text(values, "pass");
    if (chosen) return *pass_from_name(one_of(*chosen, words(kPassNames), "--pass"));
    return phase >= Phase::grad_all_reduce ? Pass::update : Pass::forward;
}

std::string text_of(const Explanation& explanation) {
    std::size_t width = 0;
    for (const auto& [label, line] : explanation.lines) width = std::max(width, label.size());
    std::string text;
    for (const auto& [label, line] : explanation.lines) {
        text += fmt::format("  {:<{}}  {}\n", label, width, line);
    }
    return text;
}

}  // namespace

int run_explain(Args args) {
    const auto values = parse_options(args, explain_help(), explain_options());
    if (!values) return kDone;
    if (has_program(*values, {"task"})) return explain_program_verb(*values);
    const Scenario scenario = load_scenario(*values, "explain");
    const Plan& plan = plan_named(scenario, *values, "explain");
    if ((*values)["memory"].as<bool>()) {
        write_result(fmt::format("{}, plan {}: memory\n{}", scenario.name, plan.name,
                                 text_of(explain_memory(scenario, plan))),
                     optional_text(*values, "out"));
        return kDone;
    }
    if ((*values)["simulate"].as<bool>()) {
        write_result(fmt::format("{}, plan {}\n{}", scenario.name, plan.name,
                                 explain_difference(scenario, plan)),
                     optional_text(*values, "out"));
        return kDone;
    }
    const std::string word =
        one_of(required(*values, "phase", "explain"), words(kPhaseNames), "--phase");
    const Phase phase = *phase_from_name(word);
    const Pass pass = pass_of(*values, phase);
    const Explanation explanation = explain(scenario, plan, profile_of(scenario), phase, pass);
    write_result(fmt::format("{}, plan {}: {} {}\n{}", scenario.name, plan.name, word, name(pass),
                             text_of(explanation)),
                 optional_text(*values, "out"));
    return kDone;
}

}  // namespace headway::cli
