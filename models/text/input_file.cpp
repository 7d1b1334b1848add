#include "models/text/input_file.hpp"

#include <fmt/format.h>

#include <cerrno>
#include <system_error>

#include "models/vocab/error.hpp"

namespace headway::inline texts {
namespace {

[[noreturn]] void refuse(const std::filesystem::path& path, std::string found,
                         const std::string& what) {
    throw InputError(
        {.where = path.string(), .found = std::move(found), .accepted = what, .hint = ""});
}

}  // namespace

void expect_regular_file(const std::filesystem::path& path, const std::string& what) {
    std::error_code error;
    const auto type = std::filesystem::status(path, error).type();
    if (error || type == std::filesystem::file_type::not_found) refuse(path, "no such file", what);
    if (type != std::filesystem::file_type::regular) refuse(path, "not a regular file", what);
}

std::ifstream open_input_file(const std::filesystem::path& path, const std::string& what) {
    expect_regular_file(path, what);
    errno = 0;
    std::ifstream stream(path, std::ios::binary);
    if (!stream) refuse(path, "cannot be read: " + std::system_category().message(errno), what);
    return stream;
}

std::string read_input_file(const std::filesystem::path& path, const std::string& what,
                            std::size_t limit) {
    std::ifstream stream = open_input_file(path, what);
    std::error_code error;
    const std::uintmax_t size = std::filesystem::file_size(path, error);
    if (error || size > limit) {
        refuse(path, fmt::format("{} bytes, more than the {} that are read", size, limit), what);
    }
    std::string text(static_cast<std::size_t>(size), '\0');
    stream.read(text.data(), static_cast<std::streamsize>(text.size()));
    if (!stream) refuse(path, "the file cannot be read", what);
    return text;
}

}  // namespace headway::inline texts
