// headway plot: a thin call of analysis/plot.py, with a Python that has matplotlib.
#include <string>
#include <vector>

#include "cli/installation.hpp"
#include "cli/options.hpp"
#include "cli/python.hpp"
#include "models/text/input_file.hpp"

namespace headway::cli {

int run_plot(Args args) {
    const CommandHelp help{.usage = "plot RESULT... -o FIGURE [options]",
                           .about =
                               "Draws a result file: JSON of `predict` or `simulate`, or Timeline "
                               "CSV of any verb. The\n"
                               "ending of FIGURE chooses the format (.png or .svg).",
                           .examples =
                               "  headway plot result.json -o phases.png\n"
                               "  headway plot result.json --figure memory -o memory.svg\n"
                               "  headway plot simulated.csv --figure gantt --plan hp --pass "
                               "forward --layers 4 -o g.png",
                           .positional = {"result"},
                           .repeat_last = true};
    po::options_description options("Options");
    options.add_options()("result", po::value<std::vector<std::string>>()->value_name("RESULT"),
                          "result file; several for figures that compare")(
        "out,o", po::value<std::string>()->value_name("FIGURE"), "figure to write, .png or .svg")(
        "figure", po::value<std::string>()->value_name("NAME"),
        "which figure (default: the first that fits the result); --figure list names them")(
        "title", po::value<std::string>()->value_name("TEXT"), "title of the figure")(
        "plan", po::value<std::string>()->value_name("NAME"), "of timelines, only this plan")(
        "pass", po::value<std::string>()->value_name("NAME"),
        "of timelines, only this pass: forward, backward or update")(
        "ranks", po::value<std::string>()->value_name("LIST"),
        "of timelines, only these ranks: 0,5,8-11")(
        "layers", po::value<std::string>()->value_name("LIST"), "of timelines, only these layers")(
        "help,h", "this text");
    const auto values = parse_options(args, help, options);
    if (!values) return kDone;
    std::vector<std::string> command = {python_with_matplotlib(), plot_script().string()};
    if (values->count("result") != 0) {
        const auto& results = (*values)["result"].as<std::vector<std::string>>();
        for (const std::string& result : results)
            expect_regular_file(result, "a result file of headway, JSON or CSV");
        command.insert(command.end(), results.begin(), results.end());
    }
    for (const std::string name : {"out", "figure", "title", "plan", "pass", "ranks", "layers"}) {
        const auto value = optional_text(*values, name);
        if (value) command.insert(command.end(), {"--" + name, *value});
    }
    // The script explains its own bad input; its exit code is in our terms.
    return run_program(command, Chatter::shown);
}

}  // namespace headway::cli
