// Calls the kernels with tensors that end where their memory does, so that a sanitizer sees each step beyond.

#include "attention.cpp"
#include "dropout.cpp"
#include "int8.cpp"
#include "layer.cpp"
#include "low_rank.cpp"

#include <cstdio>
#include <vector>

namespace {

long calls = 0;

template <class T> std::vector<T> drawn(long count) {
    std::vector<T> numbers(count);
    uint32_t state = 1;
    for (T &x : numbers) {
        state = state * 1664525 + 1013904223;
        narrow(Real<T>(state >> 8) / Real<T>(1 << 23) - 1, x);
    }
    return numbers;
}

template <class T>
bool holds(int64_t kind, std::vector<int32_t> offsets, long heads, long dim, bool one_query, long window, bool biased,
           long half = 0) {
    using R = Real<T>;
    const long texts = offsets.size() - 1, tokens = offsets.back(), queries = one_query ? texts : tokens;
    long longest = 0;
    for (long i = 0; i < texts; ++i)
        longest = std::max(longest, long(offsets[i + 1] - offsets[i]));
    const long width = heads * dim;
    const long distances = 2 * longest - 1;
    const auto bias = drawn<R>(heads * distances);
    Shape shape{offsets.data(), biased ? bias.data() : nullptr, texts, heads, dim, one_query, window, distances,
                width, width, width, 0, 3, width, width, width, half <= half_serves() ? half : 0, 0.3};
    const auto q = drawn<T>(queries * width), k = drawn<T>(tokens * width), v = k, g = q;
    std::vector<T> out(q.size()), gq(q.size()), gk(k.size()), gv(k.size());
    std::vector<R> sums(queries * heads);
    for (bool backward : {false, true}) {
        shape.room = attention_room(kind, longest, dim, backward);
        std::vector<R> rooms(shape.room * shape.threads);
        if (backward)
            attention_backward(kind, &shape, q.data(), k.data(), v.data(), g.data(), sums.data(), gq.data(), gk.data(),
                               gv.data(), rooms.data());
        else
            attention_forward(kind, &shape, q.data(), k.data(), v.data(), out.data(), sums.data(), rooms.data());
        ++calls;
    }
    for (const auto *numbers : {&out, &gq, &gk, &gv})
        for (T x : *numbers)
            if (!std::isfinite(widened(x)))
                return false;
    return true;
}

// Segments of 0, 1, 15, 16, 17 and 40 rows; the first has no update.
template <class T> bool adds(int64_t kind, std::vector<long> ranks) {
    const std::vector<int64_t> firsts{0, 5, 5, 6, 21, 37, 54, 94};
    const long in = 33, width = 2 * low_rank_lanes(), out = width * ranks.size();
    long deep = 0;
    for (long rank : ranks)
        deep += rank;
    deep = up_to<float>(deep);
    const auto down = drawn<float>(in * deep), up = drawn<float>(16 * width);
    Update update{down.data(), deep, long(ranks.size()), {}};
    for (size_t p = 0; p < ranks.size(); ++p)
        update.part[p] = {up.data(), ranks[p], long(p) * width, width};
    std::vector<const Update *> updates(firsts.size() - 1, &update);
    updates[0] = nullptr;
    Sizes sizes{int64_t(updates.size()), in, out, deep, 0, 3};
    sizes.room = low_rank_room(kind, &sizes);
    std::vector<float> rooms(sizes.room * sizes.threads);
    const auto x = drawn<T>(94 * in);
    std::vector<T> y = drawn<T>(94 * out);
    low_rank_add(kind, &sizes, x.data(), y.data(), updates.data(), firsts.data(), rooms.data());
    ++calls;
    for (T value : y)
        if (!std::isfinite(widened(value)))
            return false;
    return true;
}

// Forward and backward of layers in training, with and without the mask, and the gradient of x.
template <class T> bool trains(int64_t kind, long rows, std::vector<long> ranks, bool whole) {
    const long in = 3 * low_rank_lanes(), width = 2 * low_rank_lanes(), out = width * ranks.size();
    Training t{rows, 3, {in, out, long(ranks.size()), {}}};
    std::vector<std::vector<float>> weights, gradients;
    for (size_t p = 0; p < ranks.size(); ++p) {
        for (long numbers : {ranks[p] * in, ranks[p] * width}) {
            weights.push_back(drawn<float>(numbers));
            gradients.emplace_back(numbers);
        }
        t.updates.part[p] = {weights[2 * p].data(), weights[2 * p + 1].data(), gradients[2 * p].data(), gradients[2 * p + 1].data(),
                     ranks[p], long(p) * width, width, 0.5};
    }
    const auto x = drawn<T>(rows * in), mask = x, g = drawn<T>(rows * out);
    std::vector<T> y(g), gx(x);
    std::vector<float> h(rows * low_rank_deep(kind, &t)), rooms(low_rank_training_room(kind, &t));
    low_rank_forward(kind, &t, x.data(), whole ? mask.data() : nullptr, y.data(), h.data(), rooms.data());
    low_rank_backward(kind, &t, g.data(), x.data(), whole ? mask.data() : nullptr, h.data(), whole ? gx.data() : nullptr,
                      rooms.data());
    ++calls;
    bool finite = true;
    for (const auto *numbers : {&y, &gx})
        for (T value : *numbers)
            finite &= std::isfinite(widened(value));
    for (const auto &numbers : gradients)
        for (float value : numbers)
            finite &= std::isfinite(value);
    return finite;
}

template <class T> bool drops(int64_t kind, long count) {
    const Draw draw{count, 3, {1, 2}, 0.5};
    std::vector<T> mask(count);
    dropout_draw(kind, &draw, mask.data(), nullptr);
    ++calls;
    for (T value : mask)
        if (widened(value) != 0 && widened(value) != 2)
            return false;
    return true;
}

// A linear layer, and then a feed-forward, for numbers of rows around the blocks; without VNNI there is no code for it.
bool multiplies(long rows, long in, long out) {
    if (!int8_serves())
        return true;
    const auto x = drawn<float>(rows * in), bias = drawn<float>(std::max(in, out)), weight = drawn<float>(in * out);
    std::vector<int8_t> values(in * out);
    std::vector<float> scales(std::max(in, out)), sums(scales.size());
    for (const Given &given : {Given{out, in, in, 1, 3}, Given{in, out, 1, in, 3}})
        int8_pack(1, &given, weight.data(), values.data(), scales.data(), sums.data(), nullptr);
    const Linear up{values.data(), scales.data(), bias.data(), bias.data(), in, out};
    const Linear both[] = {up, {values.data(), scales.data(), bias.data(), nullptr, out, in}};
    const Work work{rows, 3};
    std::vector<float> one(int8_room(1, 1, both) * work.threads), two(int8_room(1, 2, both) * work.threads);
    std::vector<float> y(rows * out), u(rows * out), z(rows * in), gx(rows * in);
    int8_linear(1, &work, x.data(), y.data(), both, one.data());
    int8_feed(1, &work, x.data(), u.data(), z.data(), both, two.data());
    int8_feed(1, &work, x.data(), nullptr, z.data(), both, two.data());
    int8_feed_back(1, &work, z.data(), u.data(), gx.data(), both, two.data());
    bool whole = true;
    for (const auto *numbers : {&y, &u, &z, &gx})
        for (float value : *numbers)
            whole &= std::isfinite(value);
    return whole;
}

#if defined(__AVX512F__)
// A layer in both directions, with everything adapted and masked, or nothing; the last `filler` rows are of no text.
bool finishes(std::vector<int32_t> offsets, long filler, long products, long rank, bool keep, bool wanted) {
    const long width = 32, wide = 48, tokens = offsets.back(), rows = tokens + filler, texts = offsets.size() - 1;
    if (!int8_serves())
        return true;
    const auto numbers = drawn<float>(std::max(rows, 96L) * 3 * width);
    const std::vector<int8_t> values(3 * width * wide, 127);
    long gradients = 0, longest = 0;
    for (long i = 0; i < texts; ++i)
        longest = std::max(longest, long(offsets[i + 1] - offsets[i]));
    const auto linear = [&](long in, long out) {
        const Linear ahead{values.data(), numbers.data(), numbers.data(), numbers.data(), in, out};
        Updates updates{in, out, rank ? 1 : 0, {}};
        if (rank)
            updates.part[0] = {numbers.data(), numbers.data(), nullptr, nullptr, rank, 0, out, 0.5};
        gradients += rank * (in + out);
        return Adapted{ahead, {values.data(), numbers.data(), numbers.data(), nullptr, out, in}, updates, nullptr};
    };
    const Norm norm{numbers.data(), numbers.data(), 1e-5};
    Layer layer{};
    layer.products = products;
    layer.asking[0] = linear(width, products == 1 ? 3 * width : width);
    if (products == 2)
        layer.asking[1] = linear(width, 2 * width);
    layer.out = linear(width, width);
    layer.up = linear(width, wide);
    layer.down = linear(wide, width);
    layer.first = layer.second = norm;
    layer.heads = 2;
    const std::vector<float> mask(rows * wide, 1);
    Pass pass{offsets.data(), texts, tokens, rows, longest, 3, half_serves(), keep, {}, {}};
    for (const float *&of : pass.masks)
        of = keep && rank ? mask.data() : nullptr;
    const auto x = drawn<float>(rows * width);
    std::vector<float> y((products == 1 ? rows : texts) * width), gx(rows * width), slopes(gradients);
    std::vector<float> held(layer_held(1, &pass, &layer)), ahead(layer_room(1, &pass, &layer, 0));
    layer_forward(1, &pass, &layer, x.data(), y.data(), held.data(), ahead.data());
    if (keep) {
        std::vector<float> back(layer_room(1, &pass, &layer, 1));
        layer_backward(1, &pass, &layer, y.data(), x.data(), held.data(), wanted ? gx.data() : nullptr, slopes.data(),
                       back.data());
    }
    for (const auto *found : {&y, &gx, &slopes})
        for (float value : *found)
            if (!std::isfinite(value))
                return false;
    return true;
}

// GELU and its slope are as near as fp16 can be.
bool activates() {
    const long count = 1600;
    std::vector<float> x(count), y(count);
    std::vector<uint16_t> slope(count), kept(count);
    for (long i = 0; i < count; ++i)
        x[i] = (i - count / 2) / 100.0f;
    activate(x.data(), count, y.data(), slope.data(), kept.data());
    bool near = true;
    for (long i = 0; i < count; i += LANES<float>) {
        const Vector<float> slopes = from_half(slope.data() + i), halves = from_half(kept.data() + i);
        for (long l = 0; l < LANES<float>; ++l) {
            const double at = x[i + l], normal = std::erfc(-at / std::sqrt(2.0)) / 2;
            const double exact = normal + at * std::exp(-at * at / 2) / std::sqrt(2 * M_PI);
            near &= std::abs(y[i + l] - at * normal) < 5e-5 && std::abs(halves[l] - at * normal) < 1e-3 * 8;
            near &= std::abs(slopes[l] - exact) < 1e-3;
        }
    }
    return near;
}
#else
bool finishes(std::vector<int32_t>, long, long, long, bool, bool) { return true; }
bool activates() { return true; }
#endif

} // namespace

int main() {
    const std::vector<std::vector<int32_t>> texts{{0, 1}, {0, 15, 16, 33}, {0, 100, 108}, {0, 64, 81}};
    bool whole = true;
    for (const auto &offsets : texts)
        for (long heads : {1, 3})
            for (long dim : {3, 16, 40})
                for (bool one_query : {false, true})
                    for (long window : {0, 9})
                        for (bool biased : {false, true}) {
                            whole &= holds<bf16>(0, offsets, heads, dim, one_query, window, biased);
                            whole &= holds<float>(1, offsets, heads, dim, one_query, window, biased);
                            whole &= holds<double>(2, offsets, heads, dim, one_query, window, biased);
                        }
    for (const auto &offsets : texts)
        for (long dim : {32, 96})
            for (long half : {1, 2}) {
                whole &= holds<bf16>(0, offsets, 2, dim, false, 0, false, half);
                whole &= holds<float>(1, offsets, 2, dim, false, 0, false, half);
            }
    for (const auto &ranks : std::vector<std::vector<long>>{{1}, {16}, {3, 5, 16}}) {
        whole &= adds<bf16>(0, ranks) && adds<float>(1, ranks);
        for (long rows : {1, 15, 16, 129, 1025})
            for (bool all : {false, true})
                whole &= trains<bf16>(0, rows, ranks, all) && trains<float>(1, rows, ranks, all);
    }
    for (long count : {1, 16, 17, 1000})
        whole &= drops<bf16>(0, count) && drops<float>(1, count) && drops<double>(2, count);
    for (long rows : {1, 2, 5, 6, 47, 48, 150})
        whole &= multiplies(rows, 16, 48) && multiplies(rows, 128, 80);
    for (const auto &offsets : std::vector<std::vector<int32_t>>{{0, 1}, {0, 2, 57, 66}, {0, 100, 115}, {0, 300, 2100}})
        for (long filler : {0, 5})
            for (long products : {1, 2})
                for (long rank : {0, 3, 16})
                    for (bool keep : {false, true})
                        for (bool wanted : {false, true})
                            whole &= finishes(offsets, filler, products, rank, keep, wanted);
    whole &= activates();
    std::printf("%ld calls\n", calls);
    return !whole;
}
