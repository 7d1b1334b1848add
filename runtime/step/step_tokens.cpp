#include "runtime/step/step_tokens.hpp"

#include <fmt/format.h>

#include <fstream>
#include <iterator>

#include "models/vocab/error.hpp"
#include "models/workload/random.hpp"

namespace headway::runtime {
namespace {

constexpr std::uint64_t kSeed = 7;

std::string read_bytes(const std::string& file) {
    if (file.empty()) return {};
    std::ifstream stream(file, std::ios::binary);
    std::string bytes{std::istreambuf_iterator<char>(stream), {}};
    if (!stream.good() && !stream.eof())
        throw InputError({.where = "--data", .found = file, .accepted = "a file that can be read"});
    return bytes;
}

}  // namespace

TokenSource::TokenSource(const StepSetup& setup, const std::string& data)
    : length_(setup.sequence_length),
      sequences_(setup.num_sequences),
      micro_batches_(setup.num_micro_batches),
      ranks_(setup.num_ranks),
      vocabulary_(setup.model.vocab_size),
      bytes_(read_bytes(data)) {
    if (!data.empty() && bytes_.size() <= static_cast<std::size_t>(length_))
        throw InputError({.where = "--data",
                          .found = fmt::format("{}: {} bytes", data, bytes_.size()),
                          .accepted = fmt::format("a file of more than {} bytes: a sequence and "
                                                  "what follows it",
                                                  length_)});
}

StepTokens TokenSource::of(std::int64_t step, int micro_batch, int rank) const {
    StepTokens tokens;
    for (int s = 0; s < sequences_; ++s) {
        const auto number = static_cast<std::uint64_t>(
            ((step * micro_batches_ + micro_batch) * ranks_ + rank) * sequences_ + s);
        Random random({kSeed, number});
        std::vector<std::int32_t> read;
        const std::uint64_t begin =
            bytes_.empty() ? 0 : random.below(bytes_.size() - static_cast<std::uint64_t>(length_));
        for (int i = 0; i <= length_; ++i) {
            read.push_back(bytes_.empty() ? static_cast<std::int32_t>(random.below(
                                                static_cast<std::uint64_t>(vocabulary_)))
                                          : static_cast<unsigned char>(
                                                bytes_[begin + static_cast<std::uint64_t>(i)]));
        }
        tokens.input.insert(tokens.input.end(), read.begin(), read.end() - 1);
        tokens.target.insert(tokens.target.end(), read.begin() + 1, read.end());
    }
    return tokens;
}

std::vector<StepTokens> TokenSource::of(std::int64_t step, int rank) const {
    std::vector<StepTokens> tokens;
    for (int m = 0; m < micro_batches_; ++m) tokens.push_back(of(step, m, rank));
    return tokens;
}

}  // namespace headway::runtime
