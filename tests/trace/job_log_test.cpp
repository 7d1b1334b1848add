#include "models/trace/job_log.hpp"

#include <gtest/gtest.h>

#include <sstream>
#include <string>

#include "models/trace/log_check.hpp"
#include "models/vocab/error.hpp"

namespace headway {
namespace {

JobLog read(const std::string& text) {
    std::istringstream stream(text);
    return read_job_log(stream, "job.log");
}

std::string refusal(const std::string& text) {
    try {
        read(text);
    } catch (const InputError& error) {
        return error.what();
    }
    return "accepted";
}

// As Megatron-LM writes it; `more` are fields between the time and the end.
std::string iteration(int number, double milliseconds, const std::string& more = "") {
    return " [2026-01-02 03:04:05] iteration " + std::to_string(number) +
           "/     100 | consumed samples:     1280 | elapsed time per iteration (ms): " +
           std::to_string(milliseconds) + " | " + more +
           "global batch size:    64 | lm loss: 1.1E+01 | number of skipped iterations:   0 | "
           "number of nan iterations:   0 |\n";
}

TEST(JobLog, ReadsLinesOfMegatronBehindAnyPrefix) {
    const JobLog log = read("12: a line before\n12:" +
                            iteration(10, 500.5, "throughput per GPU (TFLOP/s/GPU): 31.2 | ") +
                            "[default7]:[36m" + iteration(20, 250.0));
    ASSERT_EQ(log.iterations.size(), 2u);
    EXPECT_EQ(log.iterations[0].number, 10);
    EXPECT_DOUBLE_EQ(log.iterations[0].time.in(ms), 500.5);
    EXPECT_DOUBLE_EQ(log.iterations[0].rate.in(TFLOP / second), 31.2);
    EXPECT_DOUBLE_EQ(log.iterations[1].time.in(ms), 250.0);
    EXPECT_DOUBLE_EQ(log.iterations[1].rate.in(TFLOP / second), 0.0);
    EXPECT_EQ(log.global_batch_size, 64);
    EXPECT_EQ(log.head, "12: a line before\n");
}

TEST(JobLog, ReadsTheValueBeforeARunningMean) {
    const JobLog log = read(
        "iteration 4408/ 5000 | elapsed time per iteration (ms): 13100.0/13240.9 | throughput per "
        "GPU (TFLOP/s/GPU): 579.4/573.6 |\n");
    EXPECT_DOUBLE_EQ(log.iterations[0].time.in(second), 13.1);
    EXPECT_DOUBLE_EQ(log.iterations[0].rate.in(TFLOP / second), 579.4);
}

TEST(JobLog, GivesTheRateOfMegatronBridgeToTheIterationBehindIt) {
    const JobLog log = read("x/0 Step Time : 9.09s GPU utilization: 663.5MODEL_TFLOP/s/GPU\n" +
                            iteration(1, 9089.0) + iteration(2, 9090.0));
    EXPECT_DOUBLE_EQ(log.iterations[0].rate.in(TFLOP / second), 663.5);
    EXPECT_DOUBLE_EQ(log.iterations[1].rate.in(TFLOP / second), 0.0);
}

TEST(JobLog, ReadsLinesOfNemo) {
    const JobLog log = read(
        "Training epoch 0, iteration 45/99 | lr: 6.897e-06 | global_batch_size: 128 | global_step: "
        "45 | max_memory_reserved: 127785762816 | max_memory_allocated: 115792977920 | "
        "reduced_train_loss: 11.96 | train_step_timing in s: 6.08 | TFLOPS_per_GPU: 1.249e+03 | "
        "consumed_samples: 5888\n");
    EXPECT_DOUBLE_EQ(log.iterations[0].time.in(second), 6.08);
    EXPECT_DOUBLE_EQ(log.iterations[0].rate.in(TFLOP / second), 1249.0);
    EXPECT_EQ(log.global_batch_size, 128);
    ASSERT_EQ(log.memory.size(), 1u);
    EXPECT_EQ(log.memory[0].rank, -1);
    EXPECT_DOUBLE_EQ(log.memory[0].allocated.in(byte), 115792977920.0);
    EXPECT_DOUBLE_EQ(log.memory[0].reserved.in(byte), 127785762816.0);
}

// Megatron's MB are 2^20 bytes, Megatron-Bridge's GB 1e9. Two ranks may share a line.
TEST(JobLog, ReadsMemoryOfRanks) {
    const std::string of_megatron =
        " (after 2 iterations) memory (MB) | allocated: 100.5 | max allocated: 200.25 | reserved: "
        "300.0 | max reserved: 300.5";
    const JobLog log = read("[Rank 4]" + of_megatron +
                            "[Rank 0] (after 2 iterations) memory (GB) | "
                            "mem-allocated-gigabytes: 1.5 | mem-max-allocated-gigabytes: 2.5 | "
                            "mem-max-reserved-gigabytes: 3.5 | mem-alloc-retires: 0\n"
                            "Theoretical memory footprints: weight and optimizer=1524.73 MB\n" +
                            iteration(2, 10.0));
    ASSERT_EQ(log.memory.size(), 2u);
    EXPECT_EQ(log.memory[0].rank, 0);
    EXPECT_DOUBLE_EQ(log.memory[0].allocated.in(GB), 2.5);
    EXPECT_DOUBLE_EQ(log.memory[0].reserved.in(GB), 3.5);
    EXPECT_EQ(log.memory[1].rank, 4);
    EXPECT_DOUBLE_EQ(log.memory[1].allocated.in(MiB), 200.25);
    EXPECT_DOUBLE_EQ(log.memory[1].reserved.in(MiB), 300.5);
    EXPECT_EQ(log.memory[1].after, 2);
    EXPECT_DOUBLE_EQ(log.weights_and_optimizer.value().in(MiB), 1524.73);
}

TEST(JobLog, CountsALineThatIsPrintedTwiceOnce) {
    EXPECT_EQ(read("0:" + iteration(1, 5.0) + "7:" + iteration(1, 5.0)).iterations.size(), 1u);
}

TEST(JobLog, RefusesWhatIsNoIterationWithItsPlace) {
    EXPECT_NE(refusal("a\nb\n").find("job.log: no iteration in 2 lines"), std::string::npos);
    EXPECT_NE(refusal("").find("no iteration in 0 lines"), std::string::npos);
    EXPECT_NE(refusal("iteration 1/5 | elapsed time per iteration (ms): nan | x |\n")
                  .find("job.log:1:50: 'elapsed time per iteration (ms): nan'"),
              std::string::npos);
    EXPECT_NE(
        refusal("iteration 1/5 | elapsed time per iteration (ms): 0.0 |\n").find("took no time"),
        std::string::npos);
    EXPECT_NE(refusal("iteration 1/5 | elapsed time per iteration (ms): -3.0 |\n")
                  .find("a positive number"),
              std::string::npos);
    EXPECT_NE(refusal("iteration 1/5 | consumed samples: 3 |\n").find("without its time"),
              std::string::npos);
    EXPECT_NE(refusal(std::string("PK\0\3", 4)).find("job.log:1: a zero byte"), std::string::npos);
}

// 1234.5 cut to 12 would be a number: a value counts when something stands behind it.
TEST(JobLog, RefusesALineThatIsCut) {
    const std::string line =
        "iteration 2/5 | elapsed time per iteration (ms): 1234.5 | lm loss: 1 |\n";
    EXPECT_EQ(refusal(line), "accepted");
    for (const std::size_t length : {20u, 47u, 50u, 52u, 54u}) {
        const std::string text = iteration(1, 7.0) + line.substr(0, length);
        EXPECT_NE(refusal(text).find("copied in part"), std::string::npos) << length;
    }
    EXPECT_NE(refusal("[Rank 0] (after 2 iterations) memory (MB) | allocated: 10").find("in part"),
              std::string::npos);
}

// Lines every 10 iterations; the first covers 1 to 10, so that 5 iterations of warm-up are in it.
TEST(SteadyIterations, LeaveOutTheBeginOfEveryRun) {
    std::string text;
    for (const int number : {10, 20, 30, 21, 31}) text += iteration(number, number);
    const JobLog log = read(text);
    EXPECT_EQ(log.iterations[3].run, 1);  // it goes on from a checkpoint of iteration 11
    const SteadyIterations steady = steady_iterations(log, 5);
    EXPECT_EQ(steady.warm_up, 2);
    ASSERT_EQ(steady.lines.size(), 3u);
    EXPECT_EQ(steady.lines[0].number, 20);
    EXPECT_EQ(steady.lines[2].number, 31);
    // 11 iterations reach into the second line of a run.
    EXPECT_EQ(steady_iterations(log, 11).lines.size(), 1u);
    EXPECT_EQ(steady_iterations(log, 0).lines.size(), 5u);
    EXPECT_THROW(steady_iterations(log, 30), InputError);
}

TEST(SteadyIterations, LeaveOutSkippedUpdates) {
    const JobLog log = read(
        iteration(1, 1.0) + iteration(2, 1.0) +
        "iteration 3/9 | elapsed time per iteration (ms): 0.5 | number of skipped iterations: 1 | "
        "number of nan iterations:   0 |\n"
        "iteration 4/9 | elapsed time per iteration (ms): 0.5 | number of skipped iterations: 0 | "
        "number of nan iterations:   1 |\n");
    const SteadyIterations steady = steady_iterations(log, 1);
    EXPECT_EQ(steady.skipped, 2);
    EXPECT_EQ(steady.lines.size(), 1u);
}

// Predicted 1.1 s and 100 TFLOP/s, so 110 TFLOP a step. The job: 0.9, 1.0, 1.1 s at 120 TFLOP/s
// each: median 1.0 s, p10 = 0.9 + 0.2 (1.0 - 0.9) = 0.92, 108, 120 and 132 TFLOP, so 120.
TEST(LogCheck, ComparesAStepWithItsMedian) {
    const std::string rate = "throughput per GPU (TFLOP/s/GPU): 120.0 | ";
    const JobLog log = read(
        "[Rank 0] (after 1 iterations) memory (MB) | allocated: 1 | max allocated: 1024.0 | "
        "reserved: 1 | max reserved: 2048.0\n"
        "[Rank 3] (after 1 iterations) memory (MB) | allocated: 1 | max allocated: 2048.0 | "
        "reserved: 1 | max reserved: 4096.0\n" +
        iteration(1, 900.0, rate) + iteration(2, 1000.0, rate) + iteration(3, 1100.0, rate));
    PlanPrediction plan{.num_ranks = 4,
                        .step = 1.1 * second,
                        .step_interval = {.low = 1.0 * second, .high = 1.375 * second},
                        .model_flop_rate_per_gpu = 100.0 * (TFLOP / second)};
    plan.memory.allocated = 1.5 * GiB;
    plan.memory.stages = {{.allocated = 1.5 * GiB}, {.allocated = 1.0 * GiB}};
    const LogCheck check = check_log(plan, log, steady_iterations(log, 0));
    EXPECT_NEAR(check.step_error, 0.1, 1e-12);
    for (const char* part :
         {"1.10 s", "1.00 s .. 1.38 s", "920 ms .. 1.08 s", "+10.0 %", "yes",  //
          "80.0 .. 110", "-16.7 %", "headway counts 110 TFLOP, the job 120 TFLOP: -8.3 %",
          "memory of stage 0, 1 of 2 ranks", "+50.0 %", "memory of stage 1, 1 of 2 ranks",
          "-50.0 %", "3 of 3 iteration lines"}) {
        EXPECT_NE(check.table.find(part), std::string::npos) << part << "\n" << check.table;
    }
}

}  // namespace
}  // namespace headway
