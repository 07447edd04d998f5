// The low-rank part of LoRA on a block of rows, y += s B A (m ⊙ x), and its gradients.
//
// x (rows, in), m and y (rows, out) are bf16 or float, A (rank, in) and B (width, rank) float, and so are the sums. Query,
// key and value have the same input: the outputs of such layers stand side by side in y.

#pragma once

#include "products.h"

#include <type_traits>

namespace {

constexpr long PARTS = 3; // layers with the same input

inline long least(long a, long b) { return a < b ? a : b; }

// s B' (rank, width) of a layer, whose outputs begin at a column of y; the width is a multiple of a vector's lanes.
struct Part {
    const float *up;
    int64_t rank, column, width;
};

// What an adapter adds to a product: A' (in, deep) of all its parts, side by side; deep is a multiple of the lanes.
struct Update {
    const float *down;
    int64_t deep, parts;
    Part part[PARTS];
};

// m ⊙ x in float, in the room unless it is x itself; m may be null.
template <class T> const float *masked(const T *x, const T *mask, long count, float *room) {
    if constexpr (std::is_same_v<T, float>)
        if (!mask)
            return x;
    for (long i = 0; i < count; ++i)
        room[i] = mask ? widened(x[i]) * widened(mask[i]) : widened(x[i]);
    return room;
}

// h = A (m ⊙ x), (count, deep), then y += s B h. The room has place for the block of x and of y.
template <class T>
void add_block(long in, long out, const Update &update, long count, const T *x, const T *mask, T *y, float *h, float *room) {
    const float *rows = masked(x, mask, count * in, room);
    product(rows, in, 1L, update.down, update.deep, h, update.deep, count, update.deep, in, false);
    for (long p = 0, first = 0; p < update.parts; first += update.part[p++].rank) {
        const Part &part = update.part[p];
        if constexpr (std::is_same_v<T, float>)
            product(h + first, update.deep, 1L, part.up, part.width, y + part.column, out, count, part.width, part.rank, true);
        else {
            float *sums = room + count * in;
            product(h + first, update.deep, 1L, part.up, part.width, sums, part.width, count, part.width, part.rank, false);
            for (long i = 0; i < count; ++i)
                for (long e = 0; e < part.width; ++e) {
                    T &to = y[i * out + part.column + e];
                    narrow(widened(to) + sums[i * part.width + e], to);
                }
        }
    }
}

// A, B and s of a layer in training, whose outputs begin at a column of y. Only the backward has gradients.
struct Trained {
    const float *a, *b;
    float *ga, *gb;
    int64_t rank, column, width;
    double scale;
};

// Layers in training, with the same input; `in` and the widths are multiples of the lanes.
struct Updates {
    int64_t in, out, parts;
    Trained part[PARTS];
};

inline long ranks_of(const Updates &t) {
    long ranks = 0;
    for (long p = 0; p < t.parts; ++p)
        ranks += t.part[p].rank;
    return ranks;
}

long deep_of(const Updates &t) { return up_to<float>(ranks_of(t)); }

// The numbers of the gradients of A and B of all layers.
long gradients_of(const Updates &t) {
    long numbers = ranks_of(t) * t.in;
    for (long p = 0; p < t.parts; ++p)
        numbers += t.part[p].rank * t.part[p].width;
    return numbers;
}

// The weights in the order in which a product reads them: A' and s B', or s B with whole vectors.
long weights_of(const Updates &t) {
    long numbers = t.in * deep_of(t);
    for (long p = 0; p < t.parts; ++p)
        numbers += up_to<float>(t.part[p].rank) * t.part[p].width;
    return numbers;
}

// The update that `order` wrote.
Update ordered(const Updates &t, const float *down) {
    Update update{down, deep_of(t), t.parts, {}};
    const float *up = down + t.in * update.deep;
    for (long p = 0; p < t.parts; up += t.part[p].rank * t.part[p].width, ++p)
        update.part[p] = {up, t.part[p].rank, t.part[p].column, t.part[p].width};
    return update;
}

// Writes A' (in, deep), and then s B' of all layers; a thread writes its own rows of A' and columns of s B'.
void order(const Updates &t, float *down, long mine, long threads) {
    const long deep = deep_of(t);
    float *up = down + t.in * deep;
    long first = 0;
    for (long p = 0; p < t.parts; first += t.part[p++].rank) {
        const Trained &layer = t.part[p];
        for (long i = t.in * mine / threads; i < t.in * (mine + 1) / threads; ++i)
            for (long r = 0; r < layer.rank; ++r)
                down[i * deep + first + r] = layer.a[r * t.in + i];
        for (long o = layer.width * mine / threads; o < layer.width * (mine + 1) / threads; ++o)
            for (long r = 0; r < layer.rank; ++r)
                up[r * layer.width + o] = float(layer.scale) * layer.b[o * layer.rank + r];
        up += layer.rank * layer.width;
    }
    for (long i = t.in * mine / threads; i < t.in * (mine + 1) / threads; ++i)
        for (long r = first; r < deep; ++r)
            down[i * deep + r] = 0;
}

// Writes s B of all layers, (width, rank up to whole vectors); a thread writes its own rows.
void order_back(const Updates &t, float *right, long mine, long threads) {
    for (long p = 0; p < t.parts; ++p) {
        const Trained &layer = t.part[p];
        const long padded = up_to<float>(layer.rank);
        for (long o = layer.width * mine / threads; o < layer.width * (mine + 1) / threads; ++o)
            for (long r = 0; r < padded; ++r)
                right[o * padded + r] = r < layer.rank ? float(layer.scale) * layer.b[o * layer.rank + r] : 0;
        right += layer.width * padded;
    }
}

// A block's part of the gradients: sums of A's, then of B's (rank, width), set or added to; gx, which may be null, is added
// to. `right` is what `order_back` wrote. The room has place for the block of g, of x, and of h with one vector more.
template <class T>
void block_gradients(const Updates &t, const float *right, long count, const T *g, const T *x, const T *mask, const float *h,
                     T *gx, float *sums, bool more, float *room) {
    const long deep = deep_of(t), ranks = ranks_of(t), row = deep + LANES<float>;
    float *inner = room + count * t.out, *low = inner + count * t.in;
    const float *outer = masked<T>(g, nullptr, count * t.out, room), *rows = masked(x, mask, count * t.in, inner);
    float *of_b = sums + ranks * t.in;
    for (long p = 0, first = 0; p < t.parts; first += t.part[p++].rank) {
        const Trained &layer = t.part[p];
        const long padded = up_to<float>(layer.rank);
        // The columns beyond the rank belong to the next layer, which writes them then.
        product(outer + layer.column, t.out, 1L, right, padded, low + first, row, count, padded, layer.width, false);
        product(h + first, 1L, deep, outer + layer.column, t.out, of_b, layer.width, layer.rank, layer.width, count, more);
        right += layer.width * padded;
        of_b += layer.rank * layer.width;
    }
    product(low, 1L, row, rows, t.in, sums, t.in, ranks, t.in, count, more);
    const bool at_once = std::is_same_v<T, float> && !mask;
    for (long p = 0, first = 0; gx && p < t.parts; first += t.part[p++].rank)
        product(low + first, row, 1L, t.part[p].a, t.in, at_once ? (float *)gx : inner, t.in, count, t.in, t.part[p].rank,
                at_once || p);
    for (long i = 0; gx && !at_once && i < count * t.in; ++i)
        narrow(widened(gx[i]) + (mask ? widened(mask[i]) * inner[i] : inner[i]), gx[i]);
}

// Adds the sums of `count` pieces, which are `numbers` apart, and writes the gradients; a thread writes its own columns of A
// and rows of B.
void sum_pieces(const Updates &t, const float *pieces, long count, long numbers, long mine, long threads) {
    // Calls f with the totals of a thread's own vectors of a matrix's row.
    const auto totals = [=](const float *row, long columns, auto f) {
        const long vectors = columns / LANES<float>, end = vectors * (mine + 1) / threads * LANES<float>;
        for (long n = vectors * mine / threads * LANES<float>; n < end; n += LANES<float>) {
            Vector<float> sum = load(row + n);
            for (long piece = 1; piece < count; ++piece)
                sum += load(row + piece * numbers + n);
            f(n, sum);
        }
    };
    const float *a = pieces, *b = pieces + ranks_of(t) * t.in;
    for (long p = 0; p < t.parts; ++p) {
        const Trained &layer = t.part[p];
        for (long r = 0; r < layer.rank; ++r, a += t.in, b += layer.width) {
            totals(a, t.in, [&](long n, Vector<float> sum) { store(layer.ga + r * t.in + n, sum); });
            totals(b, layer.width, [&](long n, Vector<float> sum) {
                for (long l = 0; l < LANES<float>; ++l)
                    layer.gb[(n + l) * layer.rank + r] = float(layer.scale) * sum[l];
            });
        }
    }
}

} // namespace
