// The low-rank part of LoRA, y += s B A (m ⊙ x), for all rows: in training, with its gradients, or of rows that hold texts
// of several adapters, each adapter's on its own rows.
//
// x (rows, in), m and y (rows, out) are bf16 or float, A (rank, in) and B (width, rank) float, and so are the sums. Query,
// key and value have the same input: the outputs of such layers stand side by side in y. The rows of an adapter are
// neighbours, a segment; threads take turns at its blocks of rows. After Chen et al. 2023, "Punica: Multi-Tenant LoRA
// Serving".

#include "products.h"

#include <omp.h>
#include <type_traits>

namespace {

constexpr long ROWS = 16; // computed at a time
constexpr long PARTS = 3; // layers with the same input

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

struct Sizes {
    int64_t segments, in, out, deepest, room, threads; // room: numbers of working memory of a thread
};

long room_of(const Sizes &s) { return ROWS * (s.in + s.out + s.deepest); }

long least(long a, long b) { return a < b ? a : b; }

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
            float *sums = room + ROWS * in;
            product(h + first, update.deep, 1L, part.up, part.width, sums, part.width, count, part.width, part.rank, false);
            for (long i = 0; i < count; ++i)
                for (long e = 0; e < part.width; ++e) {
                    T &to = y[i * out + part.column + e];
                    narrow(widened(to) + sums[i * part.width + e], to);
                }
        }
    }
}

template <class T>
void add(const Sizes &s, const T *x, T *y, const Update *const *updates, const int64_t *firsts, float *rooms) {
#pragma omp parallel num_threads(s.threads)
    {
        const long mine = omp_get_thread_num(), threads = omp_get_num_threads();
        float *room = rooms + mine * s.room, *h = room + ROWS * (s.in + s.out);
        long block = 0;
        for (long n = 0; n < s.segments; ++n)
            for (long first = firsts[n]; updates[n] && first < firsts[n + 1]; first += ROWS)
                if (block++ % threads == mine)
                    add_block<T>(s.in, s.out, *updates[n], least(ROWS, firsts[n + 1] - first), x + first * s.in, nullptr,
                                 y + first * s.out, h, room);
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
struct Training {
    int64_t rows, in, out, parts, threads;
    Trained part[PARTS];
};

long ranks_of(const Training &t) {
    long ranks = 0;
    for (long p = 0; p < t.parts; ++p)
        ranks += t.part[p].rank;
    return ranks;
}

long deep_of(const Training &t) { return up_to<float>(ranks_of(t)); }

// Sums over rows are of some pieces of the rows, and then of the pieces, in order. So the threads do not change them.
long pieces_of(const Training &t) { return least(t.rows < 1024 ? 8 : 16, (t.rows + ROWS - 1) / ROWS); }

// The numbers of the gradients of A and B of all layers.
long gradients_of(const Training &t) {
    long numbers = ranks_of(t) * t.in;
    for (long p = 0; p < t.parts; ++p)
        numbers += t.part[p].rank * t.part[p].width;
    return numbers;
}

// The weights in the order in which a product reads them: A' and s B', or s B with whole vectors.
long weights_of(const Training &t) {
    long numbers = t.in * deep_of(t);
    for (long p = 0; p < t.parts; ++p)
        numbers += up_to<float>(t.part[p].rank) * t.part[p].width;
    return numbers;
}

long thread_room(const Training &t) { return ROWS * (t.in + t.out + deep_of(t) + LANES<float>); }

// Writes A' (in, deep), and then s B' of all layers; a thread writes its own rows of A' and columns of s B'.
void order(const Training &t, float *down, long mine, long threads) {
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

template <class T> void forward(const Training &t, const T *x, const T *mask, T *y, float *h, float *rooms) {
    Update update{rooms, deep_of(t), t.parts, {}};
    float *next = rooms + t.in * update.deep;
    for (long p = 0; p < t.parts; next += t.part[p].rank * t.part[p].width, ++p)
        update.part[p] = {next, t.part[p].rank, t.part[p].column, t.part[p].width};
    float *own = rooms + weights_of(t);
#pragma omp parallel num_threads(t.threads)
    {
        const long mine = omp_get_thread_num(), threads = omp_get_num_threads(), end = t.rows * (mine + 1) / threads;
        order(t, rooms, mine, threads);
#pragma omp barrier
        for (long first = t.rows * mine / threads; first < end; first += ROWS)
            add_block(t.in, t.out, update, least(ROWS, end - first), x + first * t.in, mask ? mask + first * t.in : mask,
                      y + first * t.out, h + first * update.deep, own + mine * thread_room(t));
    }
}

// A block's part of the gradients: sums of A's, then of B's (rank, width), set or added to; gx, which may be null, is added
// to. `right` is s B of all layers, (width, rank up to whole vectors).
template <class T>
void block_gradients(const Training &t, const float *right, long count, const T *g, const T *x, const T *mask, const float *h,
                     T *gx, float *sums, bool more, float *room) {
    const long deep = deep_of(t), ranks = ranks_of(t), row = deep + LANES<float>;
    float *inner = room + ROWS * t.out, *low = inner + ROWS * t.in;
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

// Adds the pieces' sums, (pieces, numbers), and writes the gradients; a thread writes its own columns of A and rows of B.
void sum_pieces(const Training &t, const float *pieces, long mine, long threads) {
    const long count = pieces_of(t), numbers = gradients_of(t);
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

template <class T>
void backward(const Training &t, const T *g, const T *x, const T *mask, const float *h, T *gx, float *rooms) {
    const long pieces = pieces_of(t), numbers = gradients_of(t);
    float *right = rooms, *sums = rooms + weights_of(t), *own = sums + pieces * numbers;
#pragma omp parallel num_threads(t.threads)
    {
        const long mine = omp_get_thread_num(), threads = omp_get_num_threads();
        float *to = right;
        for (long p = 0; p < t.parts; ++p) {
            const Trained &layer = t.part[p];
            const long padded = up_to<float>(layer.rank);
            for (long o = layer.width * mine / threads; o < layer.width * (mine + 1) / threads; ++o)
                for (long r = 0; r < padded; ++r)
                    to[o * padded + r] = r < layer.rank ? float(layer.scale) * layer.b[o * layer.rank + r] : 0;
            to += layer.width * padded;
        }
#pragma omp barrier
        for (long piece = pieces * mine / threads; piece < pieces * (mine + 1) / threads; ++piece) {
            const long begin = t.rows * piece / pieces, end = t.rows * (piece + 1) / pieces;
            for (long first = begin; first < end; first += ROWS)
                block_gradients(t, right, least(ROWS, end - first), g + first * t.out, x + first * t.in,
                                mask ? mask + first * t.in : mask, h + first * deep_of(t), gx ? gx + first * t.in : gx,
                                sums + piece * numbers, first > begin, own + mine * thread_room(t));
        }
#pragma omp barrier
        sum_pieces(t, sums, mine, threads);
    }
}

} // namespace

EXPORTED int64_t low_rank_lanes() { return LANES<float>; }

EXPORTED int64_t low_rank_room(int64_t, const Sizes *s) { return room_of(*s); }

// `kind` is 0 for bf16, and 1 for float. An update may be null: those rows stay as they are.
EXPORTED void low_rank_add(int64_t kind, const Sizes *s, const void *x, void *y, const void *updates, const void *firsts,
                           void *rooms) {
    const auto all = (const Update *const *)updates;
    if (kind == 0)
        add(*s, (const bf16 *)x, (bf16 *)y, all, (const int64_t *)firsts, (float *)rooms);
    else
        add(*s, (const float *)x, (float *)y, all, (const int64_t *)firsts, (float *)rooms);
}

// The columns of h.
EXPORTED int64_t low_rank_deep(int64_t, const Training *t) { return deep_of(*t); }

// The working memory of all threads.
EXPORTED int64_t low_rank_training_room(int64_t, const Training *t) {
    return weights_of(*t) + pieces_of(*t) * gradients_of(*t) + t->threads * thread_room(*t);
}

// Adds to y, and writes h = A (m ⊙ x), (rows, deep); the mask may be null.
EXPORTED void low_rank_forward(int64_t kind, const Training *t, const void *x, const void *mask, void *y, float *h,
                               float *rooms) {
    if (kind == 0)
        forward(*t, (const bf16 *)x, (const bf16 *)mask, (bf16 *)y, h, rooms);
    else
        forward(*t, (const float *)x, (const float *)mask, (float *)y, h, rooms);
}

// Writes the gradients of A and B, and adds to gx, (rows, in), which may be null.
EXPORTED void low_rank_backward(int64_t kind, const Training *t, const void *g, const void *x, const void *mask,
                                const float *h, void *gx, float *rooms) {
    if (kind == 0)
        backward(*t, (const bf16 *)g, (const bf16 *)x, (const bf16 *)mask, h, (bf16 *)gx, rooms);
    else
        backward(*t, (const float *)g, (const float *)x, (const float *)mask, h, (float *)gx, rooms);
}
