#include "cli/output.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <system_error>
#include <utility>

#include "models/text/atomic_file.hpp"
#include "models/text/human.hpp"
#include "models/vocab/error.hpp"

namespace headway::cli {
namespace {

double now_s() {
    using Clock = std::chrono::steady_clock;
    return std::chrono::duration<double>(Clock::now().time_since_epoch()).count();
}

}  // namespace

void write_stdout(std::string_view text) {
    errno = 0;
    const bool written = std::fwrite(text.data(), 1, text.size(), stdout) == text.size();
    if (written && std::fflush(stdout) == 0) return;
    const int error = errno;
    if (error == EPIPE) return;
    throw InputError({.where = "standard output",
                      .found = "cannot write: " + std::system_category().message(error)});
}

void write_result(std::string_view text, const std::optional<std::string>& out) {
    if (out && *out != "-") {
        write_file_atomically(*out, text);
    } else {
        write_stdout(text);
    }
}

bool stdout_is_terminal() {
    return ::isatty(STDOUT_FILENO) == 1;
}

Progress::Progress(std::string label)
    : label_(std::move(label)), terminal_(::isatty(STDERR_FILENO) == 1) {}

Progress::~Progress() {
    if (drawn_) std::fputs("\r\033[K", stderr);
}

void Progress::update(std::size_t done, std::size_t total) {
    if (!terminal_) return;
    const double now = now_s();
    if (now < next_s_) return;
    if (next_s_ == 0.0) {
        begin_s_ = now;
        begin_done_ = done;
    }
    next_s_ = now + 0.1;
    drawn_ = true;
    std::string left;
    // An earlier run may have done some; the pace is this one's.
    if (now - begin_s_ > 1.0 && done > begin_done_ && total >= done) {
        const double pace = (now - begin_s_) / static_cast<double>(done - begin_done_);
        left = ", " + human(pace * static_cast<double>(total - done) * second) + " left";
    }
    std::fputs(fmt::format("\r\033[K{}: {} / {}{}", label_, done, total, left).c_str(), stderr);
}

}  // namespace headway::cli
