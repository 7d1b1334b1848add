// The verbs of `headway`: one file each (cli/<verb>.cpp), one declaration here, one row in
// cli/verbs.cpp. A verb parses its own options, throws InputError for bad input and returns the
// exit code: kDone or kNegative.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace headway::cli {

inline constexpr int kDone = 0;
inline constexpr int kNegative = 1;  // infeasible plan, or verify beyond its tolerance
inline constexpr int kBadInput = 2;  // others: runtime::exit_code_of

using Args = std::span<const std::string>;  // the words after the verb

struct Verb {
    std::string_view group;
    std::string_view name;
    std::string_view summary;
    int (*run)(Args);
    bool is_shared = false;  // processes of one launch share the work: main appends
                             // --launcher-shard, from the variables of srun or mpirun
};

std::span<const Verb> all_verbs();

// Predict and simulate
int run_predict(Args args);
int run_explain(Args args);
int run_simulate(Args args);
int run_alltoall(Args args);
int run_matrix(Args args);
int run_import(Args args);

// Many scenarios at once
int run_sweep(Args args);
int run_merge(Args args);
int run_best(Args args);

// Measure and check
int run_calibrate(Args args);
int run_verify(Args args);
int run_validate(Args args);

// Look and draw
int run_show(Args args);
int run_list(Args args);
int run_plot(Args args);
int run_report(Args args);
int run_completion(Args args);

}  // namespace headway::cli
