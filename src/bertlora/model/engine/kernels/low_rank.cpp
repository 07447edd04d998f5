// The low-rank part of LoRA for all rows: in training, with its gradients, or of rows that hold texts of several adapters,
// each adapter's on its own rows.
//
// The rows of an adapter are neighbours, a segment; threads take turns at its blocks of rows. After Chen et al. 2023,
// "Punica: Multi-Tenant LoRA Serving".

#include "low_rank.h"

#include <omp.h>

namespace {

constexpr long ROWS = 16; // computed at a time

struct Sizes {
    int64_t segments, in, out, deepest, room, threads; // room: numbers of working memory of a thread
};

long room_of(const Sizes &s) { return ROWS * (s.in + s.out + s.deepest); }

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

struct Training {
    int64_t rows, threads;
    Updates updates;
};

// Sums over rows are of some pieces of the rows, and then of the pieces, in order. So the threads do not change them.
long pieces_of(const Training &t) { return least(t.rows < 1024 ? 8 : 16, (t.rows + ROWS - 1) / ROWS); }

long thread_room(const Updates &u) { return ROWS * (u.in + u.out + deep_of(u) + LANES<float>); }

template <class T> void forward(const Training &t, const T *x, const T *mask, T *y, float *h, float *rooms) {
    const Updates &u = t.updates;
    const Update update = ordered(u, rooms);
    float *own = rooms + weights_of(u);
#pragma omp parallel num_threads(t.threads)
    {
        const long mine = omp_get_thread_num(), threads = omp_get_num_threads(), end = t.rows * (mine + 1) / threads;
        order(u, rooms, mine, threads);
#pragma omp barrier
        for (long first = t.rows * mine / threads; first < end; first += ROWS)
            add_block(u.in, u.out, update, least(ROWS, end - first), x + first * u.in, mask ? mask + first * u.in : mask,
                      y + first * u.out, h + first * update.deep, own + mine * thread_room(u));
    }
}

template <class T>
void backward(const Training &t, const T *g, const T *x, const T *mask, const float *h, T *gx, float *rooms) {
    const Updates &u = t.updates;
    const long pieces = pieces_of(t), numbers = gradients_of(u);
    float *right = rooms, *sums = rooms + weights_of(u), *own = sums + pieces * numbers;
#pragma omp parallel num_threads(t.threads)
    {
        const long mine = omp_get_thread_num(), threads = omp_get_num_threads();
        order_back(u, right, mine, threads);
#pragma omp barrier
        for (long piece = pieces * mine / threads; piece < pieces * (mine + 1) / threads; ++piece) {
            const long begin = t.rows * piece / pieces, end = t.rows * (piece + 1) / pieces;
            for (long first = begin; first < end; first += ROWS)
                block_gradients(u, right, least(ROWS, end - first), g + first * u.out, x + first * u.in,
                                mask ? mask + first * u.in : mask, h + first * deep_of(u), gx ? gx + first * u.in : gx,
                                sums + piece * numbers, first > begin, own + mine * thread_room(u));
        }
#pragma omp barrier
        sum_pieces(u, sums, pieces, numbers, mine, threads);
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
EXPORTED int64_t low_rank_deep(int64_t, const Training *t) { return deep_of(t->updates); }

// The working memory of all threads.
EXPORTED int64_t low_rank_training_room(int64_t, const Training *t) {
    const Updates &u = t->updates;
    return weights_of(u) + pieces_of(*t) * gradients_of(u) + t->threads * thread_room(u);
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
