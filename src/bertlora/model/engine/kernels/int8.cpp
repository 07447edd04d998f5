// Linear layers with weights and inputs in 8 bits: y = W x + b, and a feed-forward y = V gelu(u) + c, u = W x + b, with
// its gradient W' (gelu'(u) ⊙ V' g).

#include "int8.h"

#include <omp.h>

#if defined(__AVX512F__)

namespace {

// Calls f(first, count, room) for blocks of rows, with some working memory for each thread.
template <class F> void in_blocks(const Work &work, float *rooms, long room, F f) {
#pragma omp parallel num_threads(work.threads)
    {
        const long mine = omp_get_thread_num(), threads = omp_get_num_threads();
        const long end = work.rows * (mine + 1) / threads;
        for (long first = work.rows * mine / threads; first < end; first += TOGETHER)
            f(first, end - first < TOGETHER ? end - first : TOGETHER, rooms + mine * room);
    }
}

// Of a feed-forward, or its gradient: the rows between, and the wider input in 8 bits.
long feed_room(const Linear &up, const Linear &down) {
    return TOGETHER * down.in + linear_room(up.in > down.in ? up.in : down.in);
}

// A weight W (out, in); its element (o, i) is at o * across + i * along.
struct Given {
    int64_t out, in, across, along, threads;
};

// 16 rows of W in 8 bits, as `Linear` has them, with their scales and sums.
void pack(const Given &g, const float *w, int8_t *values, float *scales, float *sums) {
    float by[COLUMNS];
    for (long l = 0; l < COLUMNS; ++l) {
        float most = 0; // not a number if one of the row is not
        for (long i = 0; i < g.in; ++i) {
            const float size = std::fabs(w[l * g.across + i * g.along]);
            most = size > most || size != size ? size : most;
        }
        scales[l] = most / 127;
        by[l] = scales[l] > LEAST && scales[l] < INFINITY ? 1 / scales[l] : 0;
        sums[l] = 0;
    }
    for (long i = 0; i < g.in; i += GROUP)
        for (long l = 0; l < COLUMNS; ++l)
            for (long k = 0; k < GROUP; ++k) {
                const float whole = by[l] ? std::nearbyint(w[l * g.across + (i + k) * g.along] * by[l]) : 0;
                *values++ = int8_t(whole);
                sums[l] += whole;
            }
}

} // namespace

EXPORTED int64_t int8_serves() { return __builtin_cpu_supports("avx512vnni") ? 1 : 0; }

EXPORTED void int8_pack(int64_t, const Given *g, const float *w, int8_t *values, float *scales, float *sums, void *) {
#pragma omp parallel for num_threads(g->threads) schedule(static)
    for (long o = 0; o < g->out; o += COLUMNS)
        pack(*g, w + o * g->across, values + o * g->in, scales + o, sums + o);
}

// The numbers of working memory of a thread: for one layer, or for two, which are a feed-forward or its gradient.
EXPORTED int64_t int8_room(int64_t, int64_t layers, const Linear *w) {
    return layers == 2 ? feed_room(w[0], w[1]) : linear_room(w[0].in);
}

// All tensors are float, whatever `kind` says: x (rows, in), y (rows, out).
EXPORTED void int8_linear(int64_t, const Work *work, const float *x, float *y, const Linear *w, float *rooms) {
    in_blocks(*work, rooms, linear_room(w->in), [=](long first, long count, float *room) {
        through(*w, x + first * w->in, count, y + first * w->out, room);
    });
}

// x (rows, in), y (rows, out); u (rows, wide) is kept, or null.
EXPORTED void int8_feed(int64_t, const Work *work, const float *x, float *u, float *y, const Linear *both, float *rooms) {
    const Linear &up = both[0], &down = both[1];
    in_blocks(*work, rooms, feed_room(up, down), [=](long first, long count, float *room) {
        float *rest = room + TOGETHER * down.in, *before = u ? u + first * down.in : room;
        through(up, x + first * up.in, count, before, rest);
        for (long i = 0; i < count * down.in; i += COLUMNS)
            store(room + i, gelu(load(before + i)));
        through(down, room, count, y + first * down.out, rest);
    });
}

// g (rows, out), u (rows, wide), gx (rows, in); the layers are those of V' and W'.
EXPORTED void int8_feed_back(int64_t, const Work *work, const float *g, const float *u, float *gx, const Linear *both,
                             float *rooms) {
    const Linear &up = both[0], &down = both[1];
    in_blocks(*work, rooms, feed_room(up, down), [=](long first, long count, float *room) {
        float *rest = room + TOGETHER * down.in;
        through(up, g + first * up.in, count, room, rest);
        for (long i = 0; i < count * down.in; i += COLUMNS)
            store(room + i, load(room + i) * gelu_slope(load(u + first * down.in + i)));
        through(down, room, count, gx + first * down.out, rest);
    });
}

#else

EXPORTED int64_t int8_serves() { return 0; }
EXPORTED int64_t int8_room(int64_t, int64_t, const void *) { return 0; }

#endif
