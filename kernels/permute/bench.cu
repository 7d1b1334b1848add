// Checks and timings of the EP row movers and map builders. Bytes counted: every input row read
// once, every output row written once, maps and weights once.
#include <algorithm>
#include <memory>
#include <random>

#include "kernels/bench/device.hpp"
#include "kernels/bench/registry.hpp"
#include "kernels/permute/bench_chain.hpp"
#include "kernels/permute/maps.hpp"
#include "kernels/permute/permute.hpp"

namespace headway::kernels::bench {
namespace {

constexpr int kRanks = 8;  // destination ranks; num_experts counts the experts of the whole layer

std::vector<Shape> permute_shapes() {
    return {{"P1", 1, 1024, 256, 1024, 32768, 4},
            {"P2", 1, 2048, 128, 1408, 16384, 8},
            {"P3", 1, 7168, 256, 2048, 8192, 8}};
}

// More than 2^31 elements in the rows: 40,000 * 8 * 7168.
std::vector<Shape> large_permute_shapes() {
    return {{"large", 1, 7168, 256, 2048, 40000, 8}};
}

std::vector<std::int32_t> random_choices(const Shape& s, std::uint64_t seed) {
    std::mt19937_64 random(seed);
    const int k = std::min(s.top_k, s.num_experts);
    std::vector<std::int32_t> index(std::size_t(s.num_tokens) * s.top_k, -1);
    for (int t = 0; t < s.num_tokens; ++t)
        for (int j = 0; j < k;) {
            const auto expert = static_cast<std::int32_t>(random() % s.num_experts);
            bool fresh = true;
            for (int i = 0; i < j; ++i) fresh &= index[std::size_t(t) * s.top_k + i] != expert;
            if (fresh) index[std::size_t(t) * s.top_k + j++] = expert;
        }
    return index;
}

// Host oracle of key_sort.
std::vector<std::int32_t> sorted_places(const std::vector<std::int32_t>& keys, int num_keys,
                                        std::vector<std::int32_t>& offsets) {
    offsets.assign(num_keys + 1, 0);
    for (const int key : keys)
        if (key >= 0) ++offsets[key + 1];
    for (int k = 0; k < num_keys; ++k) offsets[k + 1] += offsets[k];
    std::vector<std::int32_t> next(offsets.begin(), offsets.end() - 1), place(keys.size(), -1);
    for (std::size_t i = 0; i < keys.size(); ++i)
        if (keys[i] >= 0) place[i] = next[keys[i]]++;
    return place;
}

struct Rows {
    explicit Rows(const Shape& s)
        : shape{s.num_tokens, s.top_k, s.head_dim},
          num_places(std::size_t(s.num_tokens) * s.top_k),
          tokens(random_normal<bf16>(std::size_t(s.num_tokens) * s.head_dim, 1.0f, 31)),
          rows(random_normal<bf16>(num_places * s.head_dim, 1.0f, 32)),
          place(num_places),
          weight(num_places) {
        std::vector<std::int32_t> offsets;
        place.from_host(sorted_places(random_choices(s, 9), s.num_experts, offsets));
        fill_uniform(weight.get(), num_places, 0.0f, 1.0f, 33);
    }
    [[nodiscard]] SpreadMap map(bool weighted) const {
        return {.place = place.get(), .weight = weighted ? weight.get() : nullptr};
    }
    [[nodiscard]] double token_bytes() const { return double(tokens.bytes()); }
    [[nodiscard]] double row_bytes() const { return double(rows.bytes()); }
    [[nodiscard]] double map_bytes(bool weighted) const {
        return (weighted ? 8.0 : 4.0) * double(num_places);
    }

    SpreadShape shape;
    std::size_t num_places;
    DeviceBuffer<bf16> tokens, rows;
    DeviceBuffer<std::int32_t> place;
    DeviceBuffer<float> weight;
};

CheckResult compare(double error, double limit) {
    return {error <= limit, error, "rel L2 vs reference"};
}

template <typename In>
Case spread_case(const Shape& shape, PermuteImpl impl, bool weighted) {
    auto p = std::make_shared<Rows>(shape);
    auto in = std::make_shared<DeviceBuffer<In>>(random_normal<In>(p->tokens.size(), 1.0f, 34));
    auto run = [p, in, impl, weighted](cudaStream_t stream) {
        spread_rows(impl, p->shape, p->map(weighted), in->get(), p->rows.get(), stream);
    };
    auto check = [p, in, run, weighted](cudaStream_t stream) {
        DeviceBuffer<bf16> expected(p->rows.size());
        spread_rows(PermuteImpl::reference, p->shape, p->map(weighted), in->get(), expected.get(),
                    stream);
        p->rows.poison(stream);
        run(stream);
        return compare(relative_l2(p->rows.get(), expected.get(), expected.size()),
                       weighted ? 1e-4 : 0.0);
    };
    return {.check = check,
            .run = run,
            .cost = {0, double(in->bytes()) + p->row_bytes() + p->map_bytes(weighted)}};
}

Case collect_case(const Shape& shape, PermuteImpl impl, bool weighted) {
    auto p = std::make_shared<Rows>(shape);
    auto run = [p, impl, weighted](cudaStream_t stream) {
        collect_rows(impl, p->shape, p->map(weighted), p->rows.get(), p->tokens.get(), stream);
    };
    auto check = [p, run, weighted](cudaStream_t stream) {
        DeviceBuffer<bf16> expected(p->tokens.size());
        collect_rows(PermuteImpl::reference, p->shape, p->map(weighted), p->rows.get(),
                     expected.get(), stream);
        p->tokens.poison(stream);
        run(stream);
        return compare(relative_l2(p->tokens.get(), expected.get(), expected.size()), 1e-4);
    };
    return {.check = check,
            .run = run,
            .cost = {0, p->token_bytes() + p->row_bytes() + p->map_bytes(weighted)}};
}

Case collect_backward_case(const Shape& shape, PermuteImpl impl) {
    auto p = std::make_shared<Rows>(shape);
    auto din = std::make_shared<DeviceBuffer<bf16>>(p->rows.size());
    auto dweight = std::make_shared<DeviceBuffer<float>>(p->num_places);
    auto run = [p, din, dweight, impl](cudaStream_t stream) {
        collect_rows_backward(impl, p->shape, p->map(true), p->rows.get(), p->tokens.get(),
                              din->get(), dweight->get(), stream);
    };
    auto check = [p, din, dweight, run](cudaStream_t stream) {
        DeviceBuffer<bf16> expected(din->size());
        DeviceBuffer<float> expected_weight(dweight->size());
        collect_rows_backward(PermuteImpl::reference, p->shape, p->map(true), p->rows.get(),
                              p->tokens.get(), expected.get(), expected_weight.get(), stream);
        din->poison(stream);
        dweight->poison(stream);
        run(stream);
        const double rows = relative_l2(din->get(), expected.get(), expected.size());
        const double weights =
            relative_l2(dweight->get(), expected_weight.get(), expected_weight.size());
        return compare(rows + weights, 1e-4);
    };
    return {.check = check,
            .run = run,
            .cost = {0, p->token_bytes() + 2 * p->row_bytes() + 12.0 * double(p->num_places)}};
}

template <typename T>
bool same(const DeviceBuffer<T>& device, const std::vector<T>& host) {
    return device.to_host() == host;
}

Case key_sort_case(const Shape& shape) {
    struct Data {
        KeySortShape sort;
        std::vector<std::int32_t> host_keys;
        DeviceBuffer<std::int32_t> keys, place, offsets;
        DeviceBuffer<char> workspace;
    };
    auto p = std::make_shared<Data>();
    p->host_keys = random_choices(shape, 9);
    p->sort = {std::int64_t(p->host_keys.size()), shape.num_experts};
    p->keys = DeviceBuffer<std::int32_t>(p->host_keys.size());
    p->place = DeviceBuffer<std::int32_t>(p->host_keys.size());
    p->offsets = DeviceBuffer<std::int32_t>(shape.num_experts + 1);
    p->workspace = DeviceBuffer<char>(key_sort_workspace_bytes(p->sort));
    p->keys.from_host(p->host_keys);
    auto run = [p](cudaStream_t stream) {
        key_sort(p->sort, p->keys.get(), p->place.get(), p->offsets.get(), p->workspace.get(),
                 stream);
    };
    auto check = [p, run](cudaStream_t stream) -> CheckResult {
        p->place.poison(stream);
        p->offsets.poison(stream);
        run(stream);
        HEADWAY_CUDA_CHECK(cudaStreamSynchronize(stream));
        std::vector<std::int32_t> offsets;
        const auto place = sorted_places(p->host_keys, p->sort.num_keys, offsets);
        const bool ok = same(p->place, place) && same(p->offsets, offsets);
        return {ok, ok ? 0.0 : 1.0, "equal to the host's counting sort"};
    };
    return {.check = check,
            .run = run,
            .cost = {0, 8.0 * double(p->host_keys.size())},
            .workspace_bytes = p->workspace.bytes()};
}

// The whole rank-dedup map: keys, sort by rank, records.
Case dedup_case(const Shape& shape) {
    struct Data {
        DedupShape dedup;
        KeySortShape sort;
        std::vector<std::int32_t> host_index;
        DeviceBuffer<std::int32_t> index, rank_key, place, offsets, record;
        DeviceBuffer<float> gate, record_gate;
        DeviceBuffer<char> workspace;
    };
    auto p = std::make_shared<Data>();
    p->host_index = random_choices(shape, 10);
    const std::size_t n = p->host_index.size();
    p->dedup = {shape.num_tokens, shape.top_k, kRanks, shape.num_experts / kRanks};
    p->sort = {std::int64_t(n), kRanks};
    for (auto* buffer : {&p->index, &p->rank_key, &p->place})
        *buffer = DeviceBuffer<std::int32_t>(n);
    p->offsets = DeviceBuffer<std::int32_t>(kRanks + 1);
    p->record = DeviceBuffer<std::int32_t>(n * shape.top_k);
    p->gate = DeviceBuffer<float>(n);
    p->record_gate = DeviceBuffer<float>(n * shape.top_k);
    p->workspace = DeviceBuffer<char>(key_sort_workspace_bytes(p->sort));
    p->index.from_host(p->host_index);
    fill_uniform(p->gate.get(), n, 0.0f, 1.0f, 35);
    auto run = [p](cudaStream_t stream) {
        dedup_keys(p->dedup, p->index.get(), p->rank_key.get(), stream);
        key_sort(p->sort, p->rank_key.get(), p->place.get(), p->offsets.get(), p->workspace.get(),
                 stream);
        dedup_records(p->dedup, p->index.get(), p->gate.get(), p->place.get(), p->record.get(),
                      p->record_gate.get(), stream);
    };
    auto check = [p, run, n](cudaStream_t stream) -> CheckResult {
        run(stream);
        HEADWAY_CUDA_CHECK(cudaStreamSynchronize(stream));
        const int k = p->dedup.top_k, local = p->dedup.experts_per_rank;
        std::vector<std::int32_t> keys(n, -1), offsets;
        for (std::size_t i = 0; i < n; ++i) {
            const std::size_t first = i - i % k;
            bool fresh = p->host_index[i] >= 0;
            for (std::size_t j = first; j < i; ++j)
                fresh &= p->host_index[j] / local != p->host_index[i] / local;
            if (fresh) keys[i] = p->host_index[i] / local;
        }
        const auto place = sorted_places(keys, kRanks, offsets);
        bool ok = same(p->place, place) && same(p->offsets, offsets);
        const auto record = p->record.to_host();
        const auto gate = p->gate.to_host(), record_gate = p->record_gate.to_host();
        for (std::size_t i = 0; i < n; ++i)
            for (int j = 0; place[i] >= 0 && j < k; ++j) {
                const std::size_t choice = i - i % k + j, at = std::size_t(place[i]) * k + j;
                const bool here =
                    p->host_index[choice] >= 0 && p->host_index[choice] / local == keys[i];
                ok &= record[at] == (here ? p->host_index[choice] - keys[i] * local : -1);
                ok &= record_gate[at] == (here ? gate[choice] : 0.0f);
            }
        const double copies = double(offsets.back()) / double(p->dedup.num_tokens);
        return {ok, ok ? 0.0 : 1.0,
                "equal to the host; copies per token " + std::to_string(copies)};
    };
    return {.check = check, .run = run, .cost = {0, 16.0 * double(n)}};
}

// Regrouping source-rank-major rows into expert-major ones: the map, then the rows.
Case regroup_case(const Shape& shape) {
    struct Data {
        int experts;
        std::vector<std::int32_t> host_counts;
        SpreadShape rows;
        DeviceBuffer<std::int32_t> counts, place, offsets;
        DeviceBuffer<bf16> in, out;
    };
    auto p = std::make_shared<Data>();
    p->experts = std::max(1, shape.num_experts / kRanks);
    std::mt19937_64 random(11);
    p->host_counts.assign(std::size_t(kRanks) * p->experts, 0);
    for (long r = 0; r < shape.num_rows(); ++r) ++p->host_counts[random() % p->host_counts.size()];
    p->rows = {shape.num_rows() + 24, 1, shape.head_dim};  // 24 rows of slack in the receive buffer
    p->counts = DeviceBuffer<std::int32_t>(p->host_counts.size());
    p->counts.from_host(p->host_counts);
    p->place = DeviceBuffer<std::int32_t>(p->rows.num_rows);
    p->offsets = DeviceBuffer<std::int32_t>(p->experts + 1);
    p->in = random_normal<bf16>(std::size_t(p->rows.num_rows) * shape.head_dim, 1.0f, 36);
    p->out = DeviceBuffer<bf16>(p->in.size());
    auto run = [p](cudaStream_t stream) {
        regroup_map(kRanks, p->experts, p->rows.num_rows, p->counts.get(), p->place.get(),
                    p->offsets.get(), stream);
        spread_rows(PermuteImpl::vectorised, p->rows, {.place = p->place.get()}, p->in.get(),
                    p->out.get(), stream);
    };
    auto check = [p, run](cudaStream_t stream) -> CheckResult {
        p->place.poison(stream);
        p->out.poison(stream);
        run(stream);
        std::vector<std::int32_t> keys, offsets;
        for (std::size_t chunk = 0; chunk < p->host_counts.size(); ++chunk)
            keys.insert(keys.end(), p->host_counts[chunk], static_cast<int>(chunk) % p->experts);
        keys.resize(p->rows.num_rows, -1);
        HEADWAY_CUDA_CHECK(cudaStreamSynchronize(stream));
        const bool ok =
            same(p->place, sorted_places(keys, p->experts, offsets)) && same(p->offsets, offsets);
        DeviceBuffer<bf16> expected(p->out.size());
        expected.poison(stream);
        spread_rows(PermuteImpl::reference, p->rows, {.place = p->place.get()}, p->in.get(),
                    expected.get(), stream);
        HEADWAY_CUDA_CHECK(cudaStreamSynchronize(stream));
        const bool rows = bitwise_equal(p->out.get(), expected.get(), expected.bytes());
        return {ok && rows, ok && rows ? 0.0 : 1.0, "map equal to the host's, rows bitwise"};
    };
    return {.check = check,
            .run = run,
            .cost = {0, 4.0 * double(shape.num_rows()) * shape.head_dim +
                            8.0 * double(shape.num_rows())}};
}

}  // namespace

void register_permute_cases(Registry& registry) {
    const auto add = [&](const char* op, const char* impl, bool timed, auto make) {
        registry.push_back(
            {.suite = "ep",
             .op = op,
             .impl = impl,
             .make = [make](const Shape& s) -> std::optional<Case> { return make(s); },
             .shapes = permute_shapes(),
             .timed = timed});
    };
    const auto add_rows = [&](const char* impl, PermuteImpl which, bool timed) {
        add("ep_permute", impl, timed,
            [=](const Shape& s) { return spread_case<bf16>(s, which, false); });
        add("ep_permute_cast", impl, timed,
            [=](const Shape& s) { return spread_case<float>(s, which, false); });
        add("ep_permute_weighted", impl, timed,
            [=](const Shape& s) { return spread_case<bf16>(s, which, true); });
        add("ep_permute_backward", impl, timed,
            [=](const Shape& s) { return collect_case(s, which, false); });
        add("ep_unpermute", impl, timed,
            [=](const Shape& s) { return collect_case(s, which, true); });
        add("ep_unpermute_backward", impl, timed,
            [=](const Shape& s) { return collect_backward_case(s, which); });
    };
    add_rows("vectorised", PermuteImpl::vectorised, true);
    const auto add_checked = [&](const char* op, const std::vector<Shape>& shapes, auto make) {
        registry.push_back(
            {.suite = "ep",
             .op = op,
             .impl = "vectorised",
             .make = [make](const Shape& s) -> std::optional<Case> { return make(s); },
             .shapes = shapes,
             .timed = false});
    };
    add_checked("ep_permute_large", large_permute_shapes(), [](const Shape& s) {
        return spread_case<bf16>(s, PermuteImpl::vectorised, false);
    });
    add_checked("ep_unpermute_large", large_permute_shapes(),
                [](const Shape& s) { return collect_case(s, PermuteImpl::vectorised, true); });
    add_checked("ep_unpermute_backward_large", large_permute_shapes(),
                [](const Shape& s) { return collect_backward_case(s, PermuteImpl::vectorised); });
    const std::vector<Shape> chain_shapes = {{"k8", 1, 256, 64, 64, 1500, 8},
                                             {"k1", 1, 64, 8, 64, 77, 1},
                                             {"all", 1, 128, 16, 64, 301, 16}};
    add_checked("ep_dedup_chain", chain_shapes, [](const Shape& s) -> std::optional<Case> {
        if (s.num_experts % kRanks != 0 || s.top_k > s.num_experts) return std::nullopt;
        return make_dedup_chain(s, kRanks, random_choices(s, 12));
    });
    add("ep_expert_map", "counting-sort", true, key_sort_case);
    add("ep_dedup_map", "counting-sort", true, [](const Shape& s) -> std::optional<Case> {
        if (s.num_experts % kRanks != 0) return std::nullopt;
        return dedup_case(s);
    });
    add("ep_regroup", "vectorised", true, regroup_case);
}

}  // namespace headway::kernels::bench
