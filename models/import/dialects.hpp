// The two vocabularies of jobs, each filled into a scenario that has its cluster.
#pragma once

#include "models/import/job.hpp"
#include "models/vocab/scenario.hpp"

namespace headway::inline importing {

struct Given {
    const ModelSpec* model = nullptr;  // from --model or a Hugging Face config; the file has none
    std::optional<int> vocab_size;
    int num_ranks = 0;  // 0: not known, which is asked for already
};

void fill_from_megatron(const Job& job, const Given& given, Scenario& scenario);
void fill_from_torchtitan(const Job& job, const Given& given, Scenario& scenario);

// The shipped preset of a model of torchtitan; empty when there is none.
std::string torchtitan_preset(const Job& job);

// Python's "([0]*3+[1]*58)": the list, or nothing if it is no such expression or longer than
// 10,000.
std::optional<std::vector<int>> layer_pattern(std::string_view expression);

// Which of num_layers (`otherwise`: where the job does not say how many) MindSpeed-LLM passes
// through unchanged (--noop-layers 62,63) to fill up the stages of a pipeline.
std::vector<bool> noop_layers(const Job& job, int otherwise);
// Megatron-DeepSpeed has other defaults.
bool is_deepspeed(const Job& job);

// Parts of fill_from_megatron.
void fill_model(const Job& job, const Given& given, int tensor_parallel, ModelSpec& model);
void fill_layout(const Job& job, const ModelSpec& model, Parallel& parallel);
void fill_recompute(const Job& job, Plan& plan);

}  // namespace headway::inline importing
