#include "models/trace/gzip_file.hpp"

#include <array>
#include <fstream>
#include <streambuf>
#include <utility>

#include "models/text/input_file.hpp"
#include "models/vocab/error.hpp"

#ifdef HEADWAY_ZLIB
#include <zlib.h>
#endif

namespace headway::inline trace {
namespace {

#ifdef HEADWAY_ZLIB

// zlib passes bytes on that are not its own format's.
class GzipBuffer : public std::streambuf {
  public:
    GzipBuffer(std::string path, std::string what)
        : path_(std::move(path)), what_(std::move(what)), file_(gzopen(path_.c_str(), "rb")) {
        if (file_ == nullptr) refuse("cannot be read");
        gzbuffer(file_, static_cast<unsigned>(block_.size()));
    }
    ~GzipBuffer() override { gzclose_r(file_); }
    GzipBuffer(const GzipBuffer&) = delete;
    GzipBuffer& operator=(const GzipBuffer&) = delete;

  protected:
    int_type underflow() override {
        const int size = gzread(file_, block_.data(), static_cast<unsigned>(block_.size()));
        int error = Z_OK;
        const char* const text = gzerror(file_, &error);
        if (error == Z_BUF_ERROR) refuse("a gzip stream that is cut");
        if (size < 0) refuse(std::string("a damaged gzip stream: ") + text);
        if (size == 0) return traits_type::eof();
        setg(block_.data(), block_.data(), block_.data() + size);
        return traits_type::to_int_type(*gptr());
    }

  private:
    [[noreturn]] void refuse(std::string found) const {
        throw InputError({.where = path_,
                          .found = std::move(found),
                          .accepted = what_,
                          .hint = "the job may still write it, or it was copied in part"});
    }

    std::string path_, what_;
    gzFile file_;
    std::array<char, std::size_t{1} << 17> block_;
};

class GzipStream : public std::istream {
  public:
    GzipStream(const std::string& path, const std::string& what)
        : std::istream(nullptr), buffer_(path, what) {
        rdbuf(&buffer_);
    }

  private:
    GzipBuffer buffer_;
};

#endif

}  // namespace

std::unique_ptr<std::istream> open_maybe_gzip(const std::filesystem::path& path,
                                              const std::string& what) {
    std::ifstream plain = open_input_file(path, what);
#ifdef HEADWAY_ZLIB
    return std::make_unique<GzipStream>(path.string(), what);
#else
    const bool is_gzip = plain.get() == 0x1f && plain.get() == 0x8b;
    if (is_gzip) {
        throw InputError({.where = path.string(),
                          .found = "a gzip file, and this headway was built without zlib",
                          .accepted = what,
                          .hint = "gunzip it"});
    }
    plain.clear();
    plain.seekg(0);
    return std::make_unique<std::ifstream>(std::move(plain));
#endif
}

}  // namespace headway::inline trace
