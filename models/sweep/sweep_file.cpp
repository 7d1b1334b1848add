#include "models/sweep/sweep_file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <system_error>

#include "models/text/csv_text.hpp"
#include "models/vocab/error.hpp"
#include "models/vocab/hash.hpp"

namespace headway::inline sweep {
namespace {

void add_value(const AxisValue& value, Hash& hash) {
    hash.add_item(value.text);
    if (const auto* model = std::get_if<std::shared_ptr<const ModelSpec>>(&value.value))
        hash.add_item(to_yaml(**model));
    if (const auto* cluster = std::get_if<std::shared_ptr<const Cluster>>(&value.value))
        hash.add_item(to_yaml(**cluster));
    if (const auto* profile = std::get_if<std::shared_ptr<const Profile>>(&value.value))
        hash.add_item(to_yaml(**profile));
}

std::string hash_of(const Sweep& sweep, const RowOptions& options) {
    Hash hash;
    Scenario base = sweep.base;
    base.sweep.clear();  // the axes count, not where they were given
    base.notes.clear();
    hash.add_item(to_yaml(base));
    for (const Axis& axis : sweep.axes) {
        hash.add_item(axis.name);
        for (const AxisValue& value : axis.values) add_value(value, hash);
    }
    hash.add_item(options.simulator ? "simulated" : "predicted");
    hash.add_item(fmt::format("{}", options.samples));
    return hash.hex();
}

[[noreturn]] void fail(const std::filesystem::path& path, const std::string& what, int error) {
    throw InputError({.where = path.string(),
                      .found = what + ": " + std::system_category().message(error),
                      .hint = "give a path in a folder that exists and can be written"});
}

[[noreturn]] void foreign(const std::string& where, std::string found) {
    throw InputError({.where = where,
                      .found = std::move(found),
                      .accepted = "a file that this very sweep began",
                      .hint = "choose another -o, or --restart to overwrite it"});
}

// The head may have been cut while it was written: then the file is a part of it.
bool is_cut_head(const std::string& text, const std::string& head) {
    return text.size() < head.size() && head.starts_with(text);
}

void check_head(const std::string& file, const std::string& head, const std::string& where) {
    if (file == head) return;
    std::size_t at = 0, line = 1;
    while (at < file.size() && at < head.size() && file[at] == head[at]) {
        line += head[at++] == '\n' ? 1 : 0;
    }
    const std::size_t begin = at == 0 ? 0 : file.rfind('\n', at - 1) + 1;
    const std::string got = file.substr(begin, file.find('\n', begin) - begin);
    foreign(fmt::format("{}:{}", where, line),
            fmt::format("'{}', not of this sweep", one_line(got.substr(0, 120))));
}

}  // namespace

std::size_t points_of(const Shard& shard, std::size_t num_points) {
    return num_points / shard.count + (shard.index < num_points % shard.count ? 1 : 0);
}

std::string end_mark(std::size_t num_rows) {
    return fmt::format("# end: {} rows\n", num_rows);
}

std::string SweepHead::text() const {
    return fmt::format(
        "# headway sweep 1\n# scenario: {}\n# profile: {}\n# version: {}\n# seed: {}\n# sweep: {}\n"
        "# points: {} of {} plans\n# shard: {} of {}\n{}\n",
        one_line(scenario), one_line(profile), one_line(version), seed, sweep, num_points,
        num_plans, shard.index, shard.count, columns);
}

SweepHead make_head(const Sweep& sweep, const RowOptions& options, std::string_view version,
                    const Shard& shard) {
    return {.scenario = sweep.base.name,
            .profile = sweep.base.profile ? sweep.base.profile->name : "",
            .version = std::string(version),
            .seed = sweep.base.routing.seed,
            .sweep = hash_of(sweep, options),
            .num_points = num_points(sweep),
            .num_plans = sweep.base.plans.size(),
            .shard = shard,
            .columns = column_line(sweep)};
}

SweepFile::SweepFile(const std::filesystem::path& path, const SweepHead& head, const Sweep& sweep,
                     Existing existing)
    : path_(path), head_(head) {
    descriptor_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (descriptor_ < 0) fail(path, "cannot write", errno);
    if (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
        ::close(descriptor_);
        throw InputError({.where = path.string(),
                          .found = "another process is writing this file",
                          .hint = "wait for it, or choose another -o"});
    }
    try {
        struct stat status {};
        if (::fstat(descriptor_, &status) == 0 && !S_ISREG(status.st_mode)) {
            write(head.text());  // a pipe or a device holds no earlier rows
            return;
        }
        if (existing == Existing::replace && ::ftruncate(descriptor_, 0) != 0) {
            fail(path, "cannot write", errno);
        }
        take_over(sweep);
    } catch (...) {
        ::close(descriptor_);
        throw;
    }
}

SweepFile::~SweepFile() {
    ::close(descriptor_);
}

void SweepFile::take_over(const Sweep& sweep) {
    std::ifstream stream(path_, std::ios::binary);
    const std::string head = head_.text();
    std::string begin(head.size(), '\0');
    stream.read(begin.data(), static_cast<std::streamsize>(begin.size()));
    begin.resize(static_cast<std::size_t>(stream.gcount()));
    std::size_t kept = 0;
    if (!is_cut_head(begin, head)) {
        check_head(begin, head, path_.string());
        kept = head.size();
        const std::size_t num_mine = points_of(head_.shard, head_.num_points);
        LineReader lines(stream, path_.string());
        std::size_t num_rows = 0, size = kept;
        std::string prefix;
        while (lines.next()) {
            size += lines.line().size() + 1;
            const std::size_t point = num_rows / head_.num_plans;
            if (lines.line() + '\n' == end_mark(num_mine * head_.num_plans) && point == num_mine) {
                lines.expect_end();
                num_done_ = num_mine;
                is_complete_ = true;
                return;
            }
            const std::size_t plan = num_rows % head_.num_plans;
            if (plan == 0) {
                prefix = row_prefix(sweep, head_.shard.index + point * head_.shard.count);
            }
            if (point >= num_mine ||
                !lines.line().starts_with(prefix + csv_field(sweep.base.plans[plan].name) + ',')) {
                foreign(fmt::format("{} (row {})", path_.string(), num_rows + 1),
                        "a row that is not of this sweep");
            }
            CsvRow(lines.line(), head_.columns, lines.where())
                .expect_size(static_cast<std::size_t>(
                                 std::count(kSweepColumns.begin(), kSweepColumns.end(), ',')) +
                             1 + sweep.axes.size());
            ++num_rows;
            if (num_rows % head_.num_plans == 0) {
                kept = size;
                num_done_ = num_rows / head_.num_plans;
            }
        }
    }
    if (::ftruncate(descriptor_, static_cast<off_t>(kept)) != 0 ||
        ::lseek(descriptor_, 0, SEEK_END) < 0) {
        fail(path_, "cannot write", errno);
    }
    if (kept == 0) write(head);
}

void SweepFile::write(std::string_view text) {
    while (!text.empty()) {
        const ssize_t written = ::write(descriptor_, text.data(), text.size());
        if (written < 0 && errno == EINTR) continue;
        if (written < 0) fail(path_, "cannot write", errno);
        text.remove_prefix(static_cast<std::size_t>(written));
    }
}

void SweepFile::append(std::string_view rows) {
    write(rows);
}

void SweepFile::finish() {
    if (is_complete_) return;
    write(end_mark(points_of(head_.shard, head_.num_points) * head_.num_plans));
    if (::fsync(descriptor_) != 0 && errno != EINVAL) {
        fail(path_, "cannot write the whole file", errno);
    }
    is_complete_ = true;
}

}  // namespace headway::inline sweep
