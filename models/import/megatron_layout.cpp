// Layers on the stages of a pipeline, from Megatron's arguments (megatron/training/arguments.py,
// core/transformer/pipeline_parallel_layer_layout.py; Megatron-LM d98e8a6, 2026-08).
#include <fmt/format.h>

#include <algorithm>

#include "models/import/dialects.hpp"
#include "models/scenario/quantity_text.hpp"

namespace headway::inline importing {
namespace {

// Stages of a layout, by its separators: "Et|(tt|)*30mL" has 32. Nothing when the text is no layout
// or has more than 100,000.
std::optional<int> num_stages(std::string_view text) {
    constexpr long max_stages = 100'000;
    long total = 0, group = 0;
    bool is_in_group = false;
    for (std::size_t i = 0; i < text.size(); ++i) {
        long bars = 0;
        if (text[i] == '(') {
            if (is_in_group) return std::nullopt;
            is_in_group = true;
            group = 0;
            continue;
        }
        if (text[i] == ')') {
            if (!is_in_group) return std::nullopt;
            is_in_group = false;
            bars = group;
        } else if (text[i] == '|') {
            bars = 1;
        } else if (std::string_view("EtmL,").find(text[i]) == std::string_view::npos) {
            return std::nullopt;
        }
        if (i + 1 < text.size() && text[i + 1] == '*') {
            long times = 0;
            std::size_t digits = i + 2;
            while (digits < text.size() && text[digits] >= '0' && text[digits] <= '9' &&
                   times < max_stages)
                times = times * 10 + (text[digits++] - '0');
            if (digits == i + 2) return std::nullopt;
            bars *= times;
            i = digits - 1;
        }
        (is_in_group ? group : total) += bars;
        if (total > max_stages || group > max_stages) return std::nullopt;
    }
    return static_cast<int>(total + 1);
}

// Layers of each stage as Megatron's layout string: "Ettt|tttt|tttL", with multi-token prediction
// before the loss.
std::string layout_of(const std::vector<int>& layers, int mtp_layers) {
    std::string text = "E";
    for (std::size_t i = 0; i < layers.size(); ++i) {
        if (i > 0) text += '|';
        text.append(static_cast<std::size_t>(std::max(layers[i], 0)), 't');
    }
    text.append(static_cast<std::size_t>(mtp_layers), 'm');
    return text + "L";
}

// Embedding and loss may count as a layer each of the first and the last stage.
int counted_layers(const Job& job, std::size_t layers) {
    return static_cast<int>(layers) +
           (job.flag("account_for_embedding_in_pipeline_split") ? 1 : 0) +
           (job.flag("account_for_loss_in_pipeline_split") ? 1 : 0);
}

// Layers of a rank are those of its chunks, stage s being chunk s / p of rank s % p.
void fill_uneven(const Job& job, const ModelSpec& model, Parallel& parallel) {
    const std::vector<bool> noop = noop_layers(job, model.num_layers);
    const bool has_noop = std::find(noop.begin(), noop.end(), true) != noop.end();
    const int p = parallel.pipeline_model_parallel_size,
              v = parallel.virtual_pipeline_model_parallel_size;
    const auto first = job.integer("decoder_first_pipeline_num_layers", 0),
               last = job.integer("decoder_last_pipeline_num_layers", 0);
    const bool embedding = job.flag("account_for_embedding_in_pipeline_split"),
               loss = job.flag("account_for_loss_in_pipeline_split");
    if (p < 2 || (!first && !last && !embedding && !loss && !has_noop)) return;
    const std::string_view name = first       ? "decoder_first_pipeline_num_layers"
                                  : last      ? "decoder_last_pipeline_num_layers"
                                  : embedding ? "account_for_embedding_in_pipeline_split"
                                  : loss      ? "account_for_loss_in_pipeline_split"
                                              : "noop_layers";
    const int left = counted_layers(job, noop.size()) - first.value_or(0) - last.value_or(0);
    const int ranks = p - (first ? 1 : 0) - (last ? 1 : 0);
    const bool fits = left >= 0 && (ranks > 0 ? left % ranks == 0 : left == 0) &&
                      (ranks <= 0 || left / ranks % v == 0) && first.value_or(0) % v == 0 &&
                      last.value_or(0) % v == 0;
    if (!fits) {
        job.refuse(job.find(name),
                   fmt::format("{} layers on {} pipeline ranks of {} chunks", left, ranks, v),
                   "layers that divide");
        return;
    }
    std::vector<int> counts;
    for (int stage = 0; stage < p * v; ++stage) {
        const int rank = stage % p;
        const int of_rank = rank == 0 && first      ? *first
                            : rank == p - 1 && last ? *last
                                                    : left / std::max(ranks, 1);
        counts.push_back(of_rank / v);
    }
    if (embedding) --counts.front();
    if (loss) --counts.back();
    std::size_t layer = 0;
    for (int& count : counts) {
        for (int rest = count; rest > 0 && layer < noop.size(); --rest) count -= noop[layer++];
    }
    parallel.pipeline_model_parallel_layout = layout_of(counts, model.mtp_num_layers);
}

void fill_virtual(const Job& job, int layers, Parallel& parallel) {
    const int p = parallel.pipeline_model_parallel_size;
    for (const char* name :
         {"virtual_pipeline_model_parallel_size", "num_virtual_stages_per_pipeline_rank",
          "num_layers_per_virtual_pipeline_stage", "microbatch_group_size_per_vp_stage"})
        (void)job.has(name);
    if (p < 2) return;
    const auto virtual_size = job.integer("virtual_pipeline_model_parallel_size"),
               per_rank = job.integer("num_virtual_stages_per_pipeline_rank"),
               per_stage = job.integer("num_layers_per_virtual_pipeline_stage");
    int v = per_rank.value_or(virtual_size.value_or(1));
    if (per_stage && !per_rank) {
        const int counted = counted_layers(job, noop_layers(job, layers).size());
        if (std::int64_t{counted} % (std::int64_t{p} * *per_stage) != 0) {
            job.refuse(job.find("num_layers_per_virtual_pipeline_stage"),
                       fmt::format("{} layers do not divide into {} ranks of stages of {}", counted,
                                   p, *per_stage),
                       "a number that divides the layers of a rank");
            return;
        }
        v = counted / p / *per_stage;
    }
    parallel.virtual_pipeline_model_parallel_size = v;
    parallel.microbatch_group_size_per_vp_stage =
        v > 1 ? job.integer_or("microbatch_group_size_per_vp_stage", 0, 0, 1 << 20) : 0;
}

}  // namespace

std::vector<bool> noop_layers(const Job& job, int otherwise) {
    std::vector<bool> noop(
        static_cast<std::size_t>(job.integer_or("num_layers", otherwise, 1, 10'000)));
    const Setting* setting = job.find("noop_layers");
    if (setting == nullptr) return noop;
    const std::string text = job.text("noop_layers");
    for (std::size_t begin = 0; begin < text.size();) {
        const std::size_t end = std::min(text.find_first_of(", ", begin), text.size());
        const auto layer = parse_integer(text.substr(begin, end - begin));
        if (!layer || *layer < 0 || *layer >= static_cast<std::int64_t>(noop.size())) {
            job.refuse(setting, fmt::format("{} {}", setting->spelling, in_quotes(text)),
                       fmt::format("layers from 0 to {}, as in 0,63", noop.size() - 1));
            return std::vector<bool>(noop.size());
        }
        noop[static_cast<std::size_t>(*layer)] = true;
        begin = end + 1;
    }
    return noop;
}

void fill_layout(const Job& job, const ModelSpec& model, Parallel& parallel) {
    const Setting* layout = job.find("pipeline_model_parallel_layout");
    const int p = parallel.pipeline_model_parallel_size;
    if (layout == nullptr) {
        fill_virtual(job, model.num_layers, parallel);
        fill_uneven(job, model, parallel);
        return;
    }
    const std::string text = job.text("pipeline_model_parallel_layout");
    const auto stages = num_stages(text);
    if (!stages || *stages % p != 0) {
        job.refuse(layout,
                   stages ? fmt::format("a layout of {} stages for {} ranks", *stages, p)
                          : fmt::format("the layout {}", in_quotes(text)),
                   "Megatron's string, such as Et|(tt|)*30mL, with a multiple of the ranks");
        return;
    }
    for (const char* replaced :
         {"num_virtual_stages_per_pipeline_rank", "num_layers_per_virtual_pipeline_stage",
          "virtual_pipeline_model_parallel_size"})
        (void)job.has(replaced);
    parallel.virtual_pipeline_model_parallel_size = *stages / p;
    parallel.pipeline_model_parallel_layout = p > 1 ? text : "";
    if (*stages > p)
        parallel.microbatch_group_size_per_vp_stage =
            job.integer_or("microbatch_group_size_per_vp_stage", 0, 0, 1 << 20);
}

}  // namespace headway::inline importing
