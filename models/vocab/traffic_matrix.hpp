// TrafficMatrix: bytes from every rank of a group to every rank, the diagonal (a rank's own tokens)
// included. Whole bytes, so that conservation and the comparison with a real run are exact.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace headway {

struct TrafficMatrix {
    int num_ranks = 0;
    std::vector<std::int64_t> bytes;  // [source, destination]

    TrafficMatrix() = default;
    explicit TrafficMatrix(int ranks)
        : num_ranks(ranks),
          bytes(static_cast<std::size_t>(ranks) * static_cast<std::size_t>(ranks), 0) {}

    std::int64_t& at(int source, int destination) { return bytes[index(source, destination)]; }
    std::int64_t at(int source, int destination) const { return bytes[index(source, destination)]; }

    std::int64_t sent(int source) const;           // off-rank bytes out of `source`
    std::int64_t received(int destination) const;  // off-rank bytes into `destination`
    std::int64_t total_off_rank() const;
    TrafficMatrix transposed() const;

    friend bool operator==(const TrafficMatrix&, const TrafficMatrix&) = default;

  private:
    std::size_t index(int source, int destination) const {
        return static_cast<std::size_t>(source) * static_cast<std::size_t>(num_ranks) +
               static_cast<std::size_t>(destination);
    }
};

}  // namespace headway
