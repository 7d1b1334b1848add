#include "models/text/atomic_file.hpp"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <iterator>

#include "models/vocab/error.hpp"

namespace headway {
namespace {

namespace fs = std::filesystem;

std::string content(const fs::path& file) {
    std::ifstream stream(file);
    return {std::istreambuf_iterator<char>(stream), {}};
}

class AtomicFileTest : public testing::Test {
  protected:
    AtomicFileTest()
        : folder_(fs::temp_directory_path() /
                  ("headway_" +
                   std::string(testing::UnitTest::GetInstance()->current_test_info()->name()) +
                   std::to_string(::getpid()))) {
        fs::create_directory(folder_);
    }
    ~AtomicFileTest() override { fs::remove_all(folder_); }

    std::size_t num_files() const {
        return static_cast<std::size_t>(
            std::distance(fs::directory_iterator(folder_), fs::directory_iterator()));
    }

    fs::path folder_;
};

TEST_F(AtomicFileTest, CommitReplacesTheOldContent) {
    write_file_atomically(folder_ / "f", "old");
    write_file_atomically(folder_ / "f", "new");
    EXPECT_EQ(content(folder_ / "f"), "new");
    EXPECT_EQ(num_files(), 1u);
}

TEST_F(AtomicFileTest, WithoutCommitTheOldFileStaysAndNothingIsLeft) {
    write_file_atomically(folder_ / "f", "old");
    {
        AtomicFile file(folder_ / "f");
        file.stream() << "half of the new";
    }
    EXPECT_EQ(content(folder_ / "f"), "old");
    EXPECT_EQ(num_files(), 1u);
}

// A process that is killed runs no destructor: what it wrote must not have had a name.
TEST_F(AtomicFileTest, AKilledWriterLeavesNothing) {
    const pid_t child = ::fork();
    if (child == 0) {
        AtomicFile file(folder_ / "f");
        file.stream() << "half of the new" << std::flush;
        ::kill(::getpid(), SIGKILL);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status));
    EXPECT_EQ(num_files(), 0u);
}

TEST_F(AtomicFileTest, PermissionsAreThoseOfANewFile) {
    write_file_atomically(folder_ / "f", "x");
    std::ofstream(folder_ / "plain") << "x";
    EXPECT_EQ(fs::status(folder_ / "f").permissions(), fs::status(folder_ / "plain").permissions());
}

TEST_F(AtomicFileTest, ASymbolicLinkStaysALink) {
    write_file_atomically(folder_ / "f", "old");
    fs::create_symlink(folder_ / "f", folder_ / "link");
    write_file_atomically(folder_ / "link", "new");
    EXPECT_TRUE(fs::is_symlink(folder_ / "link"));
    EXPECT_EQ(content(folder_ / "f"), "new");
}

TEST_F(AtomicFileTest, AMissingFolderAndAFolderAreBadInput) {
    EXPECT_THROW(write_file_atomically(folder_ / "none" / "f", "x"), InputError);
    EXPECT_THROW(write_file_atomically(folder_, "x"), InputError);
}

TEST_F(AtomicFileTest, ADeviceIsWrittenNotReplaced) {
    write_file_atomically("/dev/null", "x");
    EXPECT_TRUE(fs::is_character_file("/dev/null"));
    EXPECT_THROW(write_file_atomically("/dev/full", "x"), InputError);
}

}  // namespace
}  // namespace headway
