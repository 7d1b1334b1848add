#include "models/text/file_lock.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <system_error>

#include "models/vocab/error.hpp"

namespace headway::inline texts {

FileLock::FileLock(const std::filesystem::path& path) {
    std::error_code ignored;
    const bool folder = std::filesystem::is_directory(path, ignored);
    const int how = folder ? O_RDONLY | O_CLOEXEC : O_RDWR | O_CREAT | O_CLOEXEC;
    descriptor_ = ::open(path.c_str(), how, 0644);
    if (descriptor_ >= 0 && ::flock(descriptor_, LOCK_EX | LOCK_NB) == 0) return;
    const int error = errno;
    if (descriptor_ >= 0) ::close(descriptor_);
    if (error == EWOULDBLOCK) {
        throw InputError({.where = path.string(),
                          .found = "another process is writing it",
                          .accepted = "one at a time",
                          .hint = "wait for it, or give another path"});
    }
    throw InputError({.where = path.string(),
                      .found = "cannot be written: " + std::system_category().message(error),
                      .accepted = "a path in a folder that can be written"});
}

FileLock::~FileLock() {
    ::close(descriptor_);
}

}  // namespace headway::inline texts
