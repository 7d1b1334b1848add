#include "models/text/atomic_file.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <system_error>
#include <utility>

#include "models/vocab/error.hpp"

namespace headway::inline texts {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail(const fs::path& target, const std::string& what, int error) {
    throw InputError({.where = target.string(),
                      .found = what + ": " + std::system_category().message(error),
                      .hint = "give a path in a folder that exists and can be written"});
}

// The bytes must be on the disk before the name is: a crash between the two must not leave an empty
// file under the final name.
bool sync(int descriptor) {
    return ::fsync(descriptor) == 0 || errno == EINVAL;
}

bool sync(const fs::path& path) {
    const int descriptor = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
    if (descriptor < 0) return false;
    const bool ok = sync(descriptor);
    return ::close(descriptor) == 0 && ok;
}

std::string path_of(int descriptor) {
    return "/proc/self/fd/" + std::to_string(descriptor);
}

}  // namespace

AtomicFile::AtomicFile(const fs::path& target) : target_(target) {
    std::error_code ignored;
    if (fs::is_symlink(target, ignored)) target_ = fs::weakly_canonical(target, ignored);
    if (fs::is_directory(target_, ignored)) fail(target, "cannot write", EISDIR);
    const bool direct = fs::exists(target_, ignored) && !fs::is_regular_file(target_, ignored);
    temporary_ = direct ? target_
                        : target_.parent_path() / ("." + target_.filename().string() + ".tmp-" +
                                                   std::to_string(::getpid()));
    if (!direct && open_unnamed()) return;
    errno = 0;
    stream_.open(temporary_, std::ios::binary | std::ios::trunc);
    if (!stream_) fail(target, "cannot write", errno);
}

bool AtomicFile::open_unnamed() {
    const fs::path folder = target_.has_parent_path() ? target_.parent_path() : ".";
    unnamed_ = ::open(folder.c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, 0666);
    if (unnamed_ < 0) return false;
    stream_.open(path_of(unnamed_), std::ios::binary);
    if (stream_) return true;
    ::close(std::exchange(unnamed_, -1));  // without /proc
    stream_.clear();
    return false;
}

AtomicFile::~AtomicFile() {
    if (unnamed_ >= 0) ::close(unnamed_);
    if (committed_ || unnamed_ >= 0 || temporary_ == target_) return;
    stream_.close();
    std::error_code ignored;
    fs::remove(temporary_, ignored);
}

void AtomicFile::commit() {
    errno = 0;
    stream_.close();
    if (!stream_) fail(target_, "cannot write the whole file", errno);
    if (unnamed_ >= 0) {
        if (!sync(unnamed_)) fail(target_, "cannot write the whole file", errno);
        std::error_code ignored;
        fs::remove(temporary_, ignored);
        if (::linkat(AT_FDCWD, path_of(unnamed_).c_str(), AT_FDCWD, temporary_.c_str(),
                     AT_SYMLINK_FOLLOW) != 0)
            fail(target_, "cannot name the finished file", errno);
        ::close(std::exchange(unnamed_, -1));
    } else if (temporary_ != target_ && !sync(temporary_)) {
        fail(target_, "cannot write the whole file", errno);
    }
    if (temporary_ != target_) {
        std::error_code error;
        fs::rename(temporary_, target_, error);
        if (error) fail(target_, "cannot rename the finished file", error.value());
    }
    committed_ = true;
}

void write_file_atomically(const fs::path& target, std::string_view text) {
    AtomicFile file(target);
    file.stream().write(text.data(), static_cast<std::streamsize>(text.size()));
    file.commit();
}

}  // namespace headway::inline texts
