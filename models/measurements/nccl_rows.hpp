// Rows of an nccl-tests table, and what can be checked of them. Private to models/fit.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "models/measurements/nccl_log.hpp"

namespace headway::inline measurements {

struct NcclRow {
    double size = 0.0;                // bytes
    double seconds = 0.0;             // out of place
    double algbw = 0.0, busbw = 0.0;  // GB/s, 0: not said
    bool reduces = false;             // the row names an operation
    std::string where;                // file:line
};

// One execution of a program: what its output says of it.
struct NcclRun {
    std::optional<std::string> program;  // "all_reduce_perf"
    int num_ranks = 0, num_hosts = 0;    // 0: not said
    std::string incomplete;              // why the ranks are not known, if some are listed
    std::string device;
    std::vector<NcclRow> rows;
};

// InputError: what was found at `where` of a log, and what is accepted there.
[[noreturn]] void reject_log(const std::string& where, std::string found, std::string accepted,
                             std::string hint = "");

// The program of nccl-tests that a text names, such as "all_reduce_perf": the first.
// `bare`: also without "_perf", as names of files are.
std::optional<std::string> nccl_program(std::string_view text, bool bare = false);

// What it measures; nothing for programs whose collective no phase of headway is.
std::optional<Collective> collective_of(std::string_view program);

std::vector<std::string> split_words(std::string_view line);
bool is_whole(std::string_view word);

// Index of a row's first word (its size) among words that may begin with a prefix; nothing if the
// line is no row. Rows are known by the name of their data type behind two whole numbers.
std::optional<std::size_t> row_begin(const std::vector<std::string>& words);

// `columns`: the words of the table's header from "size" on. InputError at `where`.
NcclRow read_row(std::vector<std::string> words, const std::vector<std::string>& columns,
                 const std::string& where);

// Throws when a result was wrong. `text`: the value of #wrong or error.
void check_wrong(std::string_view column, const std::string& text, const std::string& where);

// Runs as tables: names, ranks and hosts filled in from `facts`, rows checked. `named`: the program
// of the file's name.
NcclLog tables_of(std::vector<NcclRun> runs, const std::string& file_name,
                  const std::optional<std::string>& named, const LogFacts& facts);

}  // namespace headway::inline measurements
