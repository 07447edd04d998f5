// The low-rank updates of a row that holds texts of several adapters, y[s] += s B A x[s]: each adapter's on its own rows.
//
// x (rows, in) and y (rows, out) are bf16 or float, A and B float. The rows of an adapter are neighbours, a segment. Threads
// take turns at its blocks of rows. After Chen et al. 2023, "Punica: Multi-Tenant LoRA Serving".

#include "products.h"

#include <omp.h>
#include <type_traits>

namespace {

constexpr long ROWS = 16; // computed at a time
constexpr long PARTS = 3; // query, key and value have the same input

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

template <class T>
void add_block(const Sizes &s, const Update &update, long count, const T *x, T *y, float *room) {
    float *low = room + ROWS * (s.in + s.out);
    const float *rows;
    if constexpr (std::is_same_v<T, float>)
        rows = x;
    else {
        for (long i = 0; i < count * s.in; ++i)
            room[i] = widened(x[i]);
        rows = room;
    }
    product(rows, s.in, 1L, update.down, update.deep, low, update.deep, count, update.deep, s.in, false);
    for (long p = 0, first = 0; p < update.parts; first += update.part[p++].rank) {
        const Part &part = update.part[p];
        if constexpr (std::is_same_v<T, float>)
            product(low + first, update.deep, 1L, part.up, part.width, y + part.column, s.out, count, part.width, part.rank,
                    true);
        else {
            float *sums = room + ROWS * s.in;
            product(low + first, update.deep, 1L, part.up, part.width, sums, part.width, count, part.width, part.rank, false);
            for (long i = 0; i < count; ++i)
                for (long e = 0; e < part.width; ++e) {
                    T &to = y[i * s.out + part.column + e];
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
        long block = 0;
        for (long n = 0; n < s.segments; ++n)
            for (long first = firsts[n]; updates[n] && first < firsts[n + 1]; first += ROWS)
                if (block++ % threads == mine) {
                    const long count = firsts[n + 1] - first < ROWS ? firsts[n + 1] - first : ROWS;
                    add_block(s, *updates[n], count, x + first * s.in, y + first * s.out, rooms + mine * s.room);
                }
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
