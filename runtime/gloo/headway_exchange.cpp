// headway-exchange: how long an all-to-all of a given matrix of bytes takes between CPU ranks, over
// whatever network lies between them. Started by torchrun, mpirun, srun or headway-lab.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <boost/program_options.hpp>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "models/report/matrix_file.hpp"
#include "models/report/version.hpp"
#include "models/text/atomic_file.hpp"
#include "models/text/human.hpp"
#include "models/vocab/error.hpp"
#include "models/vocab/quantile.hpp"
#include "runtime/gloo/network_rank.hpp"
#include "runtime/process/program.hpp"

namespace headway::runtime {
namespace {

namespace po = boost::program_options;
using Clock = std::chrono::steady_clock;

constexpr std::string_view kUsage =
    R"(headway-exchange --matrix M.csv [options]   (on every rank, by a launcher)

Exchanges the bytes of each matrix (a row a sender, as headway matrix writes them) between the ranks,
all messages at once, and prints how long it took: from when all ranks were there until the last one
had all its bytes. The time that headway alltoall predicts. What a rank keeps is not moved.

Options)";

po::options_description declare_options() {
    po::options_description options = common_options(kUsage);
    auto add = options.add_options();
    add("matrix", po::value<std::vector<std::string>>(),
        "bytes from each rank (row) to each rank; may be repeated");
    add("repeats", po::value<int>()->default_value(9), "timed exchanges of each matrix");
    add("warmup", po::value<int>()->default_value(1), "exchanges before timing");
    add("out,o", po::value<std::string>()->default_value(""), "also write every time to this CSV");
    add("rendezvous", po::value<std::string>()->default_value(""),
        "HOST:PORT of rank 0 (default: from the launcher)");
    return options;
}

struct Blocks {
    std::vector<std::int64_t> sent, received;  // bytes, by rank
    std::vector<char> out, in;
};

Blocks blocks_of(const TrafficMatrix& matrix, int rank) {
    Blocks b;
    std::int64_t out = 0, in = 0;
    for (int peer = 0; peer < matrix.num_ranks; ++peer) {
        b.sent.push_back(peer == rank ? 0 : matrix.at(rank, peer));
        b.received.push_back(peer == rank ? 0 : matrix.at(peer, rank));
        out += b.sent.back();
        in += b.received.back();
    }
    b.out.resize(static_cast<std::size_t>(out));
    b.in.resize(static_cast<std::size_t>(in));
    return b;
}

// Seconds until the slowest rank was done, of every timed exchange.
std::vector<double> time_exchanges(Communicator& communicator, const TrafficMatrix& matrix,
                                   int warmups, int repeats) {
    Blocks blocks = blocks_of(matrix, communicator.rank());
    std::vector<double> times;
    for (int i = 0; i < warmups + repeats; ++i) {
        communicator.barrier();
        const auto start = Clock::now();
        communicator.all_to_all_v(blocks.out.data(), blocks.sent, blocks.in.data(),
                                  blocks.received);
        const double own = std::chrono::duration<double>(Clock::now() - start).count();
        const std::int64_t ns = std::llround(1e9 * own);
        const std::vector<std::int64_t> all = communicator.all_gather_counts({&ns, 1});
        if (i >= warmups) times.push_back(1e-9 * static_cast<double>(std::ranges::max(all)));
    }
    return times;
}

std::vector<TrafficMatrix> read_matrices(const std::vector<std::string>& files, int num_ranks) {
    std::vector<TrafficMatrix> matrices;
    for (const std::string& file : files) {
        matrices.push_back(read_matrix(file));
        if (matrices.back().num_ranks == num_ranks) continue;
        throw InputError({.where = file,
                          .found = fmt::format("{} ranks", matrices.back().num_ranks),
                          .accepted = fmt::format("{}, as the launcher started", num_ranks)});
    }
    return matrices;
}

int run(const po::variables_map& values, const Launch& launch) {
    if (!values.count("matrix")) required(values, "matrix", "headway-exchange");
    const auto files = values["matrix"].as<std::vector<std::string>>();
    const int repeats = at_least(values, "repeats", 1), warmups = at_least(values, "warmup", 0);
    const auto identity = rank_identity(launch.environment, values["rendezvous"].as<std::string>());
    if (!identity) {
        throw InputError({.where = "headway-exchange",
                          .found = "no launcher's variables in the environment",
                          .accepted = "a start by torchrun, mpirun, srun or headway-lab"});
    }
    const std::vector<TrafficMatrix> matrices = read_matrices(files, identity->size);
    const NetworkRank rank{.program = "headway-exchange",
                           .identity = *identity,
                           .environment = launch.environment,
                           .facts = {{"matrices", std::to_string(matrices.size())}}};
    return run_network_rank(rank, [&](SideChannel& channel, Communicator& communicator) {
        std::string csv = "matrix,repeat,seconds\n";
        for (std::size_t m = 0; m < matrices.size(); ++m) {
            std::vector<double> times = time_exchanges(communicator, matrices[m], warmups, repeats);
            if (channel.rank() != 0) continue;
            for (std::size_t i = 0; i < times.size(); ++i)
                csv += fmt::format("{},{},{:.9f}\n", files[m], i, times[i]);
            fmt::print("{}: median {}, p10 {}, p90 {}\n", files[m],
                       human(quantile(times, 0.5) * second), human(quantile(times, 0.1) * second),
                       human(quantile(times, 0.9) * second));
        }
        const std::string out = values["out"].as<std::string>();
        if (channel.rank() == 0 && !out.empty()) write_file_atomically(out, csv);
    });
}

}  // namespace
}  // namespace headway::runtime

int main(int argc, char** argv) {
    using namespace headway::runtime;
    const auto options = declare_options();
    return run_program({.name = "headway-exchange",
                        .version = headway::version(),
                        .options = options,
                        .positional = {},
                        .run = run},
                       argc, argv, environ);
}
