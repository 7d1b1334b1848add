#include "models/vocab/traffic_matrix.hpp"

namespace headway {

std::int64_t TrafficMatrix::sent(int source) const {
    std::int64_t sum = 0;
    for (int j = 0; j < num_ranks; ++j) sum += j == source ? 0 : at(source, j);
    return sum;
}

std::int64_t TrafficMatrix::received(int destination) const {
    std::int64_t sum = 0;
    for (int i = 0; i < num_ranks; ++i) sum += i == destination ? 0 : at(i, destination);
    return sum;
}

std::int64_t TrafficMatrix::total_off_rank() const {
    std::int64_t sum = 0;
    for (int i = 0; i < num_ranks; ++i) sum += sent(i);
    return sum;
}

TrafficMatrix TrafficMatrix::transposed() const {
    TrafficMatrix result(num_ranks);
    for (int i = 0; i < num_ranks; ++i) {
        for (int j = 0; j < num_ranks; ++j) result.at(j, i) = at(i, j);
    }
    return result;
}

}  // namespace headway
