// The logs of nccl-tests beside the tests.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>

#include "models/measurements/nccl_log.hpp"

namespace headway {

inline const std::filesystem::path kLogs =
    std::filesystem::path(HEADWAY_SOURCE_DIR) / "tests/measurements/logs";

inline NcclTable only_table(const std::filesystem::path& file, const LogFacts& facts = {}) {
    const NcclLog log = read_nccl_log(file, facts);
    EXPECT_EQ(log.tables.size(), 1U);
    EXPECT_TRUE(log.skipped.empty());
    return log.tables.front();
}

}  // namespace headway
