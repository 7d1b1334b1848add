// Rows of an nccl-tests text table. Private to models/fit.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "models/vocab/profile.hpp"

namespace headway::inline fit {

inline constexpr std::array<std::pair<std::string_view, Collective>, 7> kNcclPrograms = {{
    {"alltoall_perf", Collective::all_to_all},
    {"all_reduce_perf", Collective::all_reduce},
    {"all_gather_perf", Collective::all_gather},
    {"reduce_scatter_perf", Collective::reduce_scatter},
    {"sendrecv_perf", Collective::send_recv},
    {"alltoall", Collective::all_to_all},
    {"all_reduce", Collective::all_reduce},
}};

struct NcclRow {
    double size = 0.0;     // bytes
    double seconds = 0.0;  // out of place
};

// InputError: what was found at `where` of a log, and what is accepted there.
[[noreturn]] void reject_log(const std::string& where, std::string found, std::string accepted);

// The collective of the program that a line of a log, its command or its file's name names.
// InputError for alltoallv_perf: its parts are uneven and a row does not say what a rank sent.
std::optional<Collective> nccl_program(std::string_view text, const std::string& where);

std::vector<std::string> split_words(std::string_view line);
bool is_whole(std::string_view word);

// `columns`: the words of the table's header from "size" on. InputError at `where`.
NcclRow read_row(std::vector<std::string> words, const std::vector<std::string>& columns,
                 const std::string& where);

// Throws when a result was wrong. `text`: the value of #wrong or error.
void check_wrong(std::string_view column, const std::string& text, const std::string& where);

}  // namespace headway::inline fit
