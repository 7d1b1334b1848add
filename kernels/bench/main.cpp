// headway-bench: checks every implementation of every operation against its reference, then times
// the ones that passed. Exit 1: a check failed. Exit 2: bad arguments. Exit 3: anything else.
#include <fmt/format.h>

#include <algorithm>
#include <boost/program_options.hpp>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <set>
#include <sstream>
#include <stdexcept>

#include "kernels/bench/report.hpp"
#include "kernels/check.hpp"

namespace headway::kernels::bench {
namespace {

namespace po = boost::program_options;

struct Options {
    std::string suite = "all", shape, impl, op, csv, cases;
    bool check_only = false, list = false;
    int num_samples = 40;
};

std::optional<Options> parse(int argc, char** argv) {
    Options options;
    po::options_description description("headway-bench: check and time the kernels");
    auto add = description.add_options();
    add("help,h", "this text");
    add("suite", po::value(&options.suite), "moe | router | experts | ep | dense | block | all");
    add("shape", po::value(&options.shape), "A|B|C|D, small, or H=..,d=..,E=..,f=..,T=..,k=..");
    add("op", po::value(&options.op), "only this operation");
    add("impl", po::value(&options.impl), "only this implementation");
    add("cases", po::value(&options.cases),
        "a file of cases, OPERATION IMPLEMENTATION SHAPE on each line, in place of the suites' own "
        "(scenarios/grids/kernels.txt: what `headway calibrate --from-kernel-bench` fits)");
    add("check-only", po::bool_switch(&options.check_only), "no timing");
    add("samples", po::value(&options.num_samples), "timing samples per case (>= 30)");
    add("csv", po::value(&options.csv), "write every row here");
    add("list", po::bool_switch(&options.list), "list operations and implementations");
    po::variables_map values;
    const int style = po::command_line_style::unix_style & ~po::command_line_style::allow_guessing;
    po::store(po::parse_command_line(argc, argv, description, style), values);
    po::notify(values);
    if (values.count("help") > 0) {
        std::cout << description;
        return std::nullopt;
    }
    static const std::set<std::string> suites = {"moe",   "router", "experts", "ep",
                                                 "dense", "block",  "all"};
    if (!suites.contains(options.suite))
        throw po::error("--suite " + options.suite +
                        ": accepted are moe, router, experts, ep, dense, block, all");
    if (options.num_samples < 1)
        throw po::error(
            fmt::format("--samples {}: accepted is a whole number from 1", options.num_samples));
    return options;
}

bool selected(const Operation& operation, const Options& options) {
    return (options.suite == "all" || options.suite == operation.suite) &&
           (options.op.empty() || options.op == operation.op) &&
           (options.impl.empty() || options.impl == operation.impl);
}

std::vector<Shape> shapes_of(const Operation& operation, const Options& options) {
    const std::vector<Shape> own = operation.shapes.empty() ? hp_shapes() : operation.shapes;
    if (options.shape.empty()) return own;
    if (options.shape == "small") return small_shapes();
    // A bare name selects among the operation's own shapes and skips operations that have no such
    // shape.
    if (options.shape.find('=') != std::string::npos) return {parse_shape(options.shape, own)};
    for (const Shape& shape : own)
        if (shape.name == options.shape) return {shape};
    return {};
}

/// All implementations of one operation at one shape: check, then time the passed ones in rotation.
std::vector<Result> run_group(const std::vector<const Operation*>& group, const Shape& shape,
                              const Options& options) {
    std::vector<Result> results;
    std::vector<Case> cases;
    std::vector<std::size_t> timed;
    cases.reserve(group.size());
    for (const Operation* operation : group) {
        Result result{.suite = operation->suite,
                      .op = operation->op,
                      .impl = operation->impl,
                      .shape = shape};
        try {
            std::optional<Case> made = operation->make(shape);
            if (!made) continue;
            result.cost = made->cost;
            result.workspace_bytes = made->workspace_bytes;
            result.check = made->check(nullptr);
            HEADWAY_CUDA_CHECK(cudaDeviceSynchronize());
            if (result.check.passed && operation->timed && !options.check_only) {
                cases.push_back(std::move(*made));
                timed.push_back(results.size());
            }
        } catch (const CudaError& error) {
            result.check = {.passed = false, .error = 0, .detail = error.what()};
        }
        results.push_back(std::move(result));
    }
    std::vector<const Case*> pointers;
    for (const Case& one : cases) pointers.push_back(&one);
    const auto timings = time_interleaved(pointers, {.num_samples = options.num_samples});
    for (std::size_t i = 0; i < timed.size(); ++i) {
        results[timed[i]].timing = timings[i];
        results[timed[i]].clocks = sample_clocks();
    }
    return results;
}

struct Group {
    std::vector<const Operation*> operations;  // implementations of one operation
    Shape shape;
};

// Every operation that the options select, at the shapes that they select.
std::vector<Group> selected_groups(const Registry& registry, const Options& options) {
    std::vector<Group> groups;
    std::set<std::string> done;
    for (const Operation& leader : registry) {
        if (!selected(leader, options) || !done.insert(leader.op).second) continue;
        std::vector<const Operation*> operations;
        for (const Operation& other : registry)
            if (other.op == leader.op && selected(other, options)) operations.push_back(&other);
        for (const Shape& shape : shapes_of(leader, options)) groups.push_back({operations, shape});
    }
    return groups;
}

// The groups of a file of cases, one case each. Throws std::invalid_argument naming the line.
std::vector<Group> groups_of_file(const Registry& registry, const std::string& file) {
    std::ifstream in(file);
    if (!in) throw std::invalid_argument("--cases " + file + ": cannot be read");
    std::vector<Group> groups;
    std::string line;
    for (int number = 1; std::getline(in, line); ++number) {
        std::istringstream words(line);
        std::string op, impl, shape, more;
        if (!(words >> op) || op.front() == '#') continue;
        const std::string where = fmt::format("{}:{}: ", file, number);
        if (!(words >> impl >> shape) || words >> more)
            throw std::invalid_argument(where + "accepted: OPERATION IMPLEMENTATION SHAPE");
        const auto found = std::find_if(registry.begin(), registry.end(), [&](const Operation& o) {
            return o.op == op && o.impl == impl;
        });
        if (found == registry.end())
            throw std::invalid_argument(where + op + ' ' + impl +
                                        ": no such operation; headway-bench --list names them");
        try {
            groups.push_back({{&*found}, parse_shape(shape, found->shapes)});
        } catch (const std::invalid_argument& error) {
            throw std::invalid_argument(where + error.what());
        }
    }
    if (groups.empty()) throw std::invalid_argument("--cases " + file + ": no case in it");
    return groups;
}

int run(const Options& options) {
    const Registry registry = all_operations();
    if (options.list) {
        for (const Operation& o : registry) fmt::print("{:<8} {:<24} {}\n", o.suite, o.op, o.impl);
        return 0;
    }
    const std::vector<Group> groups = options.cases.empty()
                                          ? selected_groups(registry, options)
                                          : groups_of_file(registry, options.cases);
    if (groups.empty())
        throw std::invalid_argument("no case has this --suite, --op, --impl and --shape; --list");
    const DeviceInfo device = query_device();
    const Ceilings ceilings = options.check_only ? Ceilings{1, 1} : measure_ceilings();
    fmt::print(
        "{} | driver {} | CUDA {} | {} SMs | L2 {:.0f} MB | copy {:.0f} GB/s | GEMM {:.0f} TFLOP/s "
        "| {}\n",
        device.name, device.driver, device.cuda_runtime, device.num_sms,
        1e-6 * double(device.l2_bytes), 1e-9 * ceilings.bytes_per_second,
        1e-12 * ceilings.flops_per_second, device.date_utc);
    std::vector<Result> results;
    for (std::size_t i = 0; i < groups.size(); ++i) {
        for (Result& result : run_group(groups[i].operations, groups[i].shape, options)) {
            fmt::print("{}\n", table_line(result, ceilings));
            std::fflush(stdout);
            results.push_back(std::move(result));
        }
        // After every operation, so that a run that is cut short leaves what it measured.
        const bool last_of_operation =
            i + 1 == groups.size() || groups[i + 1].operations != groups[i].operations;
        if (!options.csv.empty() && last_of_operation)
            write_csv(options.csv, results, device, ceilings);
    }
    const auto failed = std::count_if(results.begin(), results.end(),
                                      [](const Result& r) { return !r.check.passed; });
    fmt::print("{} cases, {} failed\n", results.size(), failed);
    return failed == 0 ? 0 : 1;
}

}  // namespace
}  // namespace headway::kernels::bench

int main(int argc, char** argv) {
    using namespace headway::kernels::bench;
    try {
        const std::optional<Options> options = parse(argc, argv);
        return options ? run(*options) : 0;
    } catch (const boost::program_options::error& error) {
        fmt::print(stderr, "headway-bench: {}\n", error.what());
        return 2;
    } catch (const std::invalid_argument& error) {
        fmt::print(stderr, "headway-bench: {}\n", error.what());
        return 2;
    } catch (const std::exception& error) {
        fmt::print(stderr, "headway-bench: internal error (please report it): {}\n", error.what());
        return 3;
    }
}
