// Launch environments, the local launcher with real processes, and MPS with a stand-in for its
// control program.
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "models/vocab/error.hpp"
#include "runtime/communicator.hpp"
#include "runtime/process/launch_environment.hpp"
#include "runtime/process/local_ranks.hpp"
#include "runtime/process/mps.hpp"
#include "tests/process/forked_ranks.hpp"

namespace headway::runtime {
namespace {

namespace fs = std::filesystem;

TEST(RankIdentity, IsReadFromEveryLauncher) {
    EXPECT_FALSE(rank_identity({{"PATH", "/bin"}}, ""));
    const auto torch = rank_identity({{"RANK", "5"},
                                      {"WORLD_SIZE", "8"},
                                      {"LOCAL_RANK", "1"},
                                      {"LOCAL_WORLD_SIZE", "4"},
                                      {"MASTER_ADDR", "node1"},
                                      {"MASTER_PORT", "29500"}},
                                     "");
    ASSERT_TRUE(torch);
    EXPECT_EQ(torch->rank, 5);
    EXPECT_EQ(torch->size, 8);
    EXPECT_EQ(torch->local_rank, 1);
    EXPECT_EQ(torch->local_size, 4);
    EXPECT_EQ(torch->host, "node1");
    EXPECT_EQ(torch->port, 29501);  // MASTER_PORT is torchrun's own

    const Environment slurm{{"SLURM_PROCID", "3"},
                            {"SLURM_NTASKS", "16"},
                            {"SLURM_LOCALID", "3"},
                            {"SLURM_NTASKS_PER_NODE", "8"},
                            {"SLURM_JOB_ID", "77"},
                            {"SLURM_STEP_ID", "0"},
                            {"SLURM_STEP_NODELIST", "gpu[07-08]"}};
    EXPECT_EQ(rank_identity(slurm, "")->host, "gpu07");
    EXPECT_EQ(rank_identity(slurm, "")->port, rank_identity(slurm, "")->port);
    Environment batch = slurm;
    batch.erase("SLURM_STEP_ID");  // the batch script itself is no rank
    EXPECT_FALSE(rank_identity(batch, ""));

    Environment mpi{{"OMPI_COMM_WORLD_RANK", "1"},
                    {"OMPI_COMM_WORLD_SIZE", "2"},
                    {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                    {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"},
                    {"PMIX_NAMESPACE", "12345"}};
    EXPECT_EQ(rank_identity(mpi, "")->rank, 1);
    EXPECT_GT(rank_identity(mpi, "")->port, 1024);
    mpi["OMPI_COMM_WORLD_LOCAL_SIZE"] = mpi["OMPI_COMM_WORLD_SIZE"] = "4";
    mpi["OMPI_COMM_WORLD_LOCAL_SIZE"] = "2";  // two machines: Open MPI does not name rank 0's
    EXPECT_THROW(rank_identity(mpi, ""), InputError);
    EXPECT_EQ(rank_identity(mpi, "node1:4000")->host, "node1");

    const Environment hydra{
        {"PMI_RANK", "3"}, {"PMI_SIZE", "4"}, {"MPI_LOCALRANKID", "1"}, {"MPI_LOCALNRANKS", "2"}};
    EXPECT_THROW(rank_identity(hydra, ""), InputError);  // not four runs of one rank
    EXPECT_EQ(rank_identity(hydra, "node1:4000")->rank, 3);
    EXPECT_EQ(rank_identity(hydra, "node1:4000")->local_rank, 1);
    EXPECT_EQ(rank_identity(hydra, "node1:4000")->local_size, 2);

    const auto own = rank_identity(own_launch_environment(0, 4, 5000, 7), "");
    EXPECT_EQ(own->listen_fd, 7);
    EXPECT_EQ(own->port, 5000);
    EXPECT_EQ(own->local_size, 4);
}

TEST(RankIdentity, RefusesNonsense) {
    const Environment good{{"RANK", "0"}, {"WORLD_SIZE", "2"}, {"MASTER_PORT", "29500"}};
    EXPECT_TRUE(rank_identity(good, ""));
    for (const auto& [name, value] :
         Environment{{"RANK", "2"}, {"RANK", "-1"}, {"WORLD_SIZE", "two"}, {"MASTER_PORT", ""}}) {
        Environment bad = good;
        bad[name] = value;
        EXPECT_THROW(rank_identity(bad, ""), InputError) << name << "=" << value;
    }
    for (const char* rendezvous : {"node1", ":80", "node1:", "node1:0", "node1:70000", "a:8x"})
        EXPECT_THROW(rank_identity(good, rendezvous), InputError) << rendezvous;
}

TEST(FirstHost, OfSlurmNodeLists) {
    for (const auto& [list, host] : std::map<std::string, std::string>{{"a", "a"},
                                                                       {"a1,b2", "a1"},
                                                                       {"n[01-04]", "n01"},
                                                                       {"n[3,7-9],m1", "n3"},
                                                                       {"n[12]", "n12"},
                                                                       {"x1,n[1-2]", "x1"}}) {
        EXPECT_EQ(first_host(list), host) << list;
    }
}

TEST(TasksOnNode, OfSlurmsCounts) {
    EXPECT_EQ(tasks_on_node("4", 0), 4);
    EXPECT_EQ(tasks_on_node("4(x2),3", 1), 4);
    EXPECT_EQ(tasks_on_node("4(x2),3", 2), 3);
    EXPECT_EQ(tasks_on_node("2,1", 1), 1);
    EXPECT_EQ(tasks_on_node("2,1", 2), 0);
    for (const char* bad : {"", "x", "4(x", "4(x2", "4;3"}) EXPECT_EQ(tasks_on_node(bad, 3), 0);
}

// `srun -n 8` without --ntasks-per-node, 4 tasks on each of two nodes: rank 6 is 2 of 4 on node 1.
TEST(RankIdentity, KnowsSlurmsTasksOfThisNode) {
    const Environment slurm{{"SLURM_PROCID", "6"},
                            {"SLURM_NTASKS", "8"},
                            {"SLURM_LOCALID", "2"},
                            {"SLURM_NODEID", "1"},
                            {"SLURM_JOB_ID", "77"},
                            {"SLURM_STEP_ID", "0"},
                            {"SLURM_STEP_TASKS_PER_NODE", "4(x2)"},
                            {"SLURM_STEP_NODELIST", "gpu[07-08]"}};
    EXPECT_EQ(rank_identity(slurm, "")->local_rank, 2);
    EXPECT_EQ(rank_identity(slurm, "")->local_size, 4);
}

TEST(VisibleDevices, AreCountedWithoutCuda) {
    EXPECT_EQ(num_visible_devices({}, 8), 8);
    EXPECT_EQ(num_visible_devices({{"CUDA_VISIBLE_DEVICES", "0,3"}}, 8), 2);
    EXPECT_EQ(num_visible_devices({{"CUDA_VISIBLE_DEVICES", ""}}, 8), 0);
    EXPECT_EQ(num_visible_devices({{"CUDA_VISIBLE_DEVICES", "-1"}}, 8), 0);
}

LocalRun shell(int num_ranks, const std::string& script) {
    LocalRun run{.executable = "/bin/sh", .arguments = {"-c", script}};
    for (int r = 0; r < num_ranks; ++r)
        run.added.push_back(own_launch_environment(r, num_ranks, 1, 1));
    run.grace = std::chrono::milliseconds(300);
    return run;
}

TEST(LocalRanks, GiveTheExitCodeOfTheFirstFailure) {
    EXPECT_EQ(exit_code_of(run_local_ranks(shell(3, "exit 0"))), 0);
    const LocalRunEnd end =
        run_local_ranks(shell(3, "[ $HEADWAY_RANK = 1 ] && exit 2; sleep 0.1; exit 3"));
    EXPECT_EQ(end.ranks.size(), 3u);
    EXPECT_EQ(exit_code_of(end), 2);
    EXPECT_EQ(describe(end), "");
}

// Rank 1 is killed; rank 0 ends by itself, rank 2 stops: it is killed after the grace period.
TEST(LocalRanks, NameTheKilledRankAndLeaveNobodyBehind) {
    const auto start = std::chrono::steady_clock::now();
    const LocalRunEnd end = run_local_ranks(shell(3,
                                                  "case $HEADWAY_RANK in 0) sleep 0.1; exit 4;; "
                                                  "1) kill -9 $$;; 2) kill -STOP $$;; esac"));
    ASSERT_EQ(end.ranks.size(), 3u);
    EXPECT_EQ(exit_code_of(end), kRankFailureExit);
    EXPECT_EQ(describe(end),
              "rank 1 was ended by signal 9 (Killed)\n"
              "rank 2 did not end by itself and was killed\n");
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(10));
}

// Four processes with nothing but the variables that a launcher sets find each other: each gathers
// {0, 1, 2, 3}. The job is named after this process, so that two tests do not meet on a port.
void expect_ranks_meet(const std::function<Environment(int rank)>& environment) {
    constexpr int kRanks = 4;
    std::vector<pid_t> pids;
    for (int rank = 0; rank < kRanks; ++rank) {
        pids.push_back(fork());
        if (pids.back() != 0) continue;
        int code = 1;
        try {
            run_process_rank(
                *rank_identity(environment(rank), ""), {}, long_deadlines(),
                [](const std::string&) { _exit(9); },
                [&](SideChannel& channel) {
                    const auto all = channel.all_gather("ranks", std::to_string(channel.rank()));
                    code = all == std::vector<std::string>{"0", "1", "2", "3"} ? 0 : 2;
                    channel.barrier();
                });
        } catch (const std::exception&) {
            code = 3;
        }
        _exit(code);
    }
    for (const pid_t pid : pids) {
        int status = 0;
        waitpid(pid, &status, 0);
        EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
    }
}

TEST(Launchers, SlurmsRanksMeet) {
    expect_ranks_meet([job = std::to_string(getpid())](int rank) {
        return Environment{{"SLURM_JOB_ID", job},
                           {"SLURM_STEP_ID", "0"},
                           {"SLURM_PROCID", std::to_string(rank)},
                           {"SLURM_NTASKS", "4"},
                           {"SLURM_LOCALID", std::to_string(rank)},
                           {"SLURM_NODEID", "0"},
                           {"SLURM_STEP_TASKS_PER_NODE", "4"},
                           {"SLURM_STEP_NODELIST", "localhost"}};
    });
}

TEST(Launchers, OpenMpisRanksMeet) {
    expect_ranks_meet([job = "mpi" + std::to_string(getpid())](int rank) {
        return Environment{{"OMPI_COMM_WORLD_RANK", std::to_string(rank)},
                           {"OMPI_COMM_WORLD_SIZE", "4"},
                           {"OMPI_COMM_WORLD_LOCAL_RANK", std::to_string(rank)},
                           {"OMPI_COMM_WORLD_LOCAL_SIZE", "4"},
                           {"PMIX_NAMESPACE", job}};
    });
}

// With c >= 2 cores, two processes see floor(c/2) each, and not the same.
TEST(LocalRanks, RunOnTheirCores) {
    cpu_set_t own;
    ASSERT_EQ(sched_getaffinity(0, sizeof(own), &own), 0);
    if (CPU_COUNT(&own) < 2) GTEST_SKIP() << "one core";
    const fs::path dir = fs::path(::testing::TempDir()) / ("cores_" + std::to_string(getpid()));
    fs::create_directories(dir);
    const std::string script =
        "grep Cpus_allowed_list /proc/self/status > " + dir.string() + "/$HEADWAY_RANK";
    EXPECT_EQ(exit_code_of(run_local_ranks(shell(2, script))), 0);
    const auto cores = [&](const char* rank) {
        std::string line;
        std::ifstream in(dir / rank);
        std::getline(in, line);
        return line;
    };
    EXPECT_NE(cores("0"), "");
    EXPECT_NE(cores("0"), cores("1"));
    fs::remove_all(dir);
}

TEST(LocalRanks, RefuseWhatCannotBeExecuted) {
    LocalRun run = shell(1, "");
    run.executable = "/nowhere/headway-run";
    EXPECT_THROW(run_local_ranks(run), InputError);
}

// A control program that notes its arguments, its input and where its pipes are.
class FakeMps : public ::testing::Test {
  protected:
    FakeMps() {
        fs::create_directories(dir_);
        std::ofstream(control_) << "#!/bin/sh\necho \"args $* pipe $CUDA_MPS_PIPE_DIRECTORY\" >> "
                                << log_.string() << "\n[ \"$1\" = -d ] || cat >> " << log_.string()
                                << "\n[ ! -e " << (dir_ / "broken").string() << " ]\n";
        fs::permissions(control_, fs::perms::owner_all);
    }
    ~FakeMps() override { fs::remove_all(dir_); }

    std::string log() const {
        std::ostringstream text;
        text << std::ifstream(log_).rdbuf();
        return text.str();
    }

    fs::path dir_ = fs::path(::testing::TempDir()) / ("fake_mps_" + std::to_string(getpid()));
    fs::path control_ = dir_ / "control", log_ = dir_ / "calls", home_ = dir_ / "home";
};

TEST_F(FakeMps, IsStartedInItsOwnDirectoryAndStopped) {
    {
        const MpsDaemon daemon(home_, control_.string());
        EXPECT_TRUE(fs::is_directory(home_ / "pipe"));
        EXPECT_EQ(mps_control_pipe(daemon.environment()), home_ / "pipe" / "control");
    }
    const std::string pipe = " pipe " + (home_ / "pipe").string() + "\n";
    EXPECT_EQ(log(), "args -d" + pipe + "args " + pipe + "quit -t 2\n");
    EXPECT_FALSE(fs::exists(home_));
}

// The process that holds the daemon is killed: the guard ends the daemon all the same.
TEST_F(FakeMps, IsStoppedWhenItsHolderIsKilled) {
    const pid_t holder = fork();
    if (holder == 0) {
        const MpsDaemon daemon(home_, control_.string());
        raise(SIGKILL);
    }
    int status = 0;
    waitpid(holder, &status, 0);
    for (int i = 0; i < 500 && fs::exists(home_); ++i) usleep(10'000);
    EXPECT_NE(log().find("quit -t 2"), std::string::npos);
    EXPECT_FALSE(fs::exists(home_));
}

TEST_F(FakeMps, SaysWhyItIsUnavailable) {
    std::ofstream(dir_ / "broken") << "x";
    EXPECT_THROW(MpsDaemon(home_, control_.string()), MpsUnavailable);
    EXPECT_FALSE(fs::exists(home_));
    try {
        MpsDaemon(home_, (dir_ / "missing").string());
        FAIL();
    } catch (const MpsUnavailable& error) {
        EXPECT_NE(std::string(error.what()).find("No such file"), std::string::npos)
            << error.what();
    }
}

TEST(SharingEnvironment, GivesEveryRankItsShareAndKeepsWhatTheUserSet) {
    const Environment own = sharing_environment({}, 2, 4, true);
    EXPECT_EQ(own.at("CUDA_MPS_ACTIVE_THREAD_PERCENTAGE"), "25");
    EXPECT_EQ(own.at("NCCL_SOCKET_IFNAME"), "lo");
    EXPECT_NE(own.at("NCCL_HOSTID"), sharing_environment({}, 3, 4, true).at("NCCL_HOSTID"));
    const Environment kept = sharing_environment({{"NCCL_SOCKET_IFNAME", "eth0"}}, 0, 2, true);
    EXPECT_FALSE(kept.contains("NCCL_SOCKET_IFNAME"));
}

}  // namespace
}  // namespace headway::runtime
