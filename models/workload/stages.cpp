#include "models/workload/stages.hpp"

#include <fmt/format.h>

#include <cctype>
#include <cstddef>

namespace headway::inline workload {
namespace {

// Megatron's layout string, expanded: "(tt|)*2" is "tt|tt|", "t*3" is "ttt"; commas and blanks only
// separate (core/transformer/pipeline_parallel_layer_layout.py).
struct Expanded {
    std::string letters;
    std::string broken;
};

class LayoutReader {
  public:
    explicit LayoutReader(const std::string& text) : text_(text) {}

    Expanded read() {
        Expanded all{.letters = sequence(0), .broken = {}};
        if (broken_.empty() && at_ < text_.size()) stop("an unmatched ')'");
        all.broken = broken_;
        return all;
    }

  private:
    static constexpr std::size_t kMost = 1 << 16;  // letters

    void stop(const std::string& found) {
        if (broken_.empty()) broken_ = fmt::format("{} at character {}", found, at_ + 1);
    }
    bool more() const { return broken_.empty() && at_ < text_.size(); }

    std::string sequence(int depth) {
        std::string letters;
        while (more() && text_[at_] != ')') {
            const char c = text_[at_];
            if (c == ',' || c == ' ') {
                ++at_;
                continue;
            }
            std::string item(1, c);
            ++at_;
            if (c == '(') {
                item = sequence(depth + 1);
                if (at_ >= text_.size())
                    stop("an unmatched '('");
                else
                    ++at_;
            } else if (std::string("EtmL|").find(c) == std::string::npos) {
                --at_;
                stop(fmt::format("'{}' (known: E t m L | ( ) * ,)", c));
            }
            for (int n = repeats(item.size() + letters.size()); n > 0; --n) letters += item;
        }
        return letters;
    }

    int repeats(std::size_t length) {
        if (!more() || text_[at_] != '*') return 1;
        ++at_;
        std::size_t count = 0;
        const std::size_t begin = at_;
        while (at_ < text_.size() && std::isdigit(static_cast<unsigned char>(text_[at_])) != 0 &&
               count < kMost)
            count = 10 * count + static_cast<std::size_t>(text_[at_++] - '0');
        if (at_ == begin) stop("no number after '*'");
        if (count * length > kMost) stop("too long a repetition");
        return broken_.empty() ? static_cast<int>(count) : 0;
    }

    const std::string& text_;
    std::size_t at_ = 0;
    std::string broken_;
};

std::vector<std::string> split(const std::string& letters) {
    std::vector<std::string> stages(1);
    for (const char c : letters) {
        if (c == '|')
            stages.emplace_back();
        else
            stages.back() += c;
    }
    return stages;
}

int count(const std::string& letters, char c) {
    int n = 0;
    for (const char x : letters) n += x == c ? 1 : 0;
    return n;
}

// Megatron's rules for m, and one of headway's: a table on three ranks has no price.
std::string mtp_broken(const ModelSpec& model, const Parallel& parallel,
                       const std::vector<std::string>& stages) {
    const int p = parallel.pipeline_model_parallel_size, last = static_cast<int>(stages.size()) - 1;
    for (int i = 0; i <= last && model.mtp_num_layers > 0; ++i) {
        const std::string& own = stages[static_cast<std::size_t>(i)];
        const std::size_t first = own.find('m');
        if (first == std::string::npos) continue;
        if (count(own, 'm') < model.mtp_num_layers) return "has MTP layers m on several stages";
        if (p > 1 && i <= last + 1 - p)
            return "has MTP layers m on the first rank, or not in the last chunk of theirs";
        std::string after = own.substr(first);
        for (int k = i + 1; k <= last; ++k) after += stages[static_cast<std::size_t>(k)];
        if (count(after, 't') > 0) return "has decoder layers t behind MTP layers m";
        if (model.tied_embeddings && i < last)
            return "has MTP layers m apart from L, where the embedding is the head's too";
    }
    return "";
}

std::string layout_broken(const ModelSpec& model, const Parallel& parallel, std::size_t wanted) {
    const std::string& text = parallel.pipeline_model_parallel_layout;
    const Expanded expanded = LayoutReader(text).read();
    if (!expanded.broken.empty()) return fmt::format("layout '{}' has {}", text, expanded.broken);
    const std::vector<std::string> stages = split(expanded.letters);
    if (stages.size() != wanted)
        return fmt::format("layout '{}' has {} stages, the pipeline {} ({} ranks x {} virtual)",
                           text, stages.size(), wanted, parallel.pipeline_model_parallel_size,
                           parallel.virtual_pipeline_model_parallel_size);
    const int layers = count(expanded.letters, 't');
    if (layers != model.num_layers)
        return fmt::format("layout '{}' has {} decoder layers t, the model {}", text, layers,
                           model.num_layers);
    const int mtp = count(expanded.letters, 'm');
    if (mtp != model.mtp_num_layers)
        return fmt::format("layout '{}' has {} MTP layers m, the model {} (mtp_num_layers)", text,
                           mtp, model.mtp_num_layers);
    if (const std::string broken = mtp_broken(model, parallel, stages); !broken.empty())
        return fmt::format("layout '{}' {}", text, broken);
    if (count(expanded.letters, 'E') != 1 || stages.front().substr(0, 1) != "E")
        return fmt::format("layout '{}' must begin with its only E", text);
    if (count(expanded.letters, 'L') != 1 || stages.back().empty() || stages.back().back() != 'L')
        return fmt::format("layout '{}' must end with its only L", text);
    return "";
}

}  // namespace

std::string pipeline_layout_broken(const ModelSpec& model, const Parallel& parallel) {
    const int stages =
        parallel.pipeline_model_parallel_size * parallel.virtual_pipeline_model_parallel_size;
    if (!parallel.pipeline_model_parallel_layout.empty())
        return layout_broken(model, parallel, static_cast<std::size_t>(stages));
    if (model.num_layers % stages == 0) return "";
    return fmt::format(
        "{} layers do not spread evenly over {} stages ({} ranks x {} virtual): give "
        "pipeline_model_parallel_layout, or stages that divide {}",
        model.num_layers, stages, parallel.pipeline_model_parallel_size,
        parallel.virtual_pipeline_model_parallel_size, model.num_layers);
}

std::vector<PipelineStage> pipeline_stages(const ModelSpec& model, const Parallel& parallel) {
    const auto num_stages = static_cast<std::size_t>(parallel.pipeline_model_parallel_size) *
                            static_cast<std::size_t>(parallel.virtual_pipeline_model_parallel_size);
    std::vector<PipelineStage> stages(num_stages);
    const std::string& text = parallel.pipeline_model_parallel_layout;
    std::vector<std::string> letters(num_stages);
    if (!text.empty()) letters = split(LayoutReader(text).read().letters);
    int first = 0;
    for (std::size_t i = 0; i < num_stages; ++i) {
        const int own =
            text.empty() ? model.num_layers / static_cast<int>(num_stages) : count(letters[i], 't');
        const int mtp = text.empty() ? (i + 1 == num_stages ? model.mtp_num_layers : 0)
                                     : count(letters[i], 'm');
        stages[i] = {.first_layer = first, .num_layers = own + mtp, .mtp_layers = mtp};
        first += stages[i].num_layers;
    }
    stages.front().embedding = true;
    stages.back().head_and_loss = true;
    return stages;
}

std::vector<int> rows_sent(const std::vector<PipelineStage>& stages) {
    std::vector<int> rows;
    int own = 1;
    for (const PipelineStage& stage : stages) rows.push_back(own += stage.mtp_layers);
    return rows;
}

std::vector<PipelineStage> stages_of_rank(const ModelSpec& model, const Parallel& parallel,
                                          int rank) {
    const std::vector<PipelineStage> all = pipeline_stages(model, parallel);
    const auto p = static_cast<std::size_t>(parallel.pipeline_model_parallel_size);
    std::vector<PipelineStage> own;
    for (auto i = static_cast<std::size_t>(rank); i < all.size(); i += p) own.push_back(all[i]);
    return own;
}

}  // namespace headway::inline workload
