// What a layer of BERT in 8 bits computes, except its attention: what comes before it, query, key and value, and all that
// comes after.
//
//     n = norm(W a + x)      y = norm(V gelu(U n) + n)      each of W, U and V with a bias, and a low-rank update if adapted
//
// What W and V give may be multiplied by dropout masks. x is the layer's input, a the attention's output. None of it mixes
// rows. So a block of rows goes through all of it while it stays in the processor's cache, forward and backward. Only what
// the backward needs goes to memory.

#pragma once

#include "int8.h"
#include "low_rank.h"

#include <initializer_list>
#include <omp.h>

#if defined(__AVX512F__)

namespace {

// Weights W and, for the gradient, W'; the layers that are adapted, and m for their input, which may be null.
struct Adapted {
    Linear forward, backward;
    Updates updates;
    const float *mask;
};

// y = (x - mean) / deviation ⊙ weight + bias
struct Norm {
    const float *weight, *bias;
    double eps;
};

// What the forward keeps for the backward: of a norm its output before weight and bias, and 1 / deviation of each row; GELU's
// slope and output in fp16; A (m ⊙ x) of each layer. All null where no gradient is wanted; GELU's output also where `down`
// is not adapted.
struct Kept {
    float *first, *first_scale;
    uint16_t *slope, *active;
    float *second, *second_scale, *low_out, *low_up, *low_down;
};

// The masks are those of dropout after `out` and `down`, (rows, hidden); they may be null.
struct Rest {
    Adapted out, up, down;
    Norm first, second;
    const float *out_mask, *down_mask;
    Kept kept;
};

// Calls f(layer, number) for the layers of a rest.
template <class F> void for_each(const Rest &r, F f) {
    long number = 0;
    for (const Adapted *l : {&r.out, &r.up, &r.down})
        f(*l, number++);
}

// Sums over rows are of some pieces of the rows, and then of the pieces, in order. So the threads do not change them. The
// number of pieces is even, for two threads.
constexpr long MOST_PIECES = 32, PIECE = TOGETHER - HIGH - 3;
long pieces_of(const Work &work) { return least(MOST_PIECES, (work.rows + 2 * PIECE - 1) / (2 * PIECE) * 2); }

// Where a part of some rows begins. Parts are whole tiles of a product, but for the last one.
long begin_of(long part, long parts, long rows) {
    return part == parts ? rows : least(rows, (rows * part / parts + HIGH / 2) / HIGH * HIGH);
}

// Calls f(piece, first, count, more) for blocks of rows of a thread's pieces; `more` if it is not the piece's first block.
template <class F> void in_pieces(const Work &work, long mine, long threads, F f) {
    const long pieces = pieces_of(work);
    for (long piece = pieces * mine / threads; piece < pieces * (mine + 1) / threads; ++piece) {
        const long begin = begin_of(piece, pieces, work.rows), size = begin_of(piece + 1, pieces, work.rows) - begin;
        const long blocks = size > TOGETHER ? (size + PIECE - 1) / PIECE : 1;
        for (long b = 0; b < blocks; ++b) {
            const long first = begin_of(b, blocks, size);
            f(piece, begin + first, begin_of(b + 1, blocks, size) - first, b > 0);
        }
    }
}

template <class T> T *row(T *x, long number, long width) { return x ? x + number * width : nullptr; }

long own_room(const Adapted &l) {
    const Updates &u = l.updates;
    const long updates = TOGETHER * (u.in + u.out + deep_of(u) + LANES<float>);
    const long products = linear_room(l.forward.in > l.forward.out ? l.forward.in : l.forward.out);
    return updates > products ? updates : products;
}

// y and h of a block; `order` wrote `down`.
void ahead(const Adapted &l, const float *down, const float *x, long first, long count, float *y, float *h, float *room) {
    const Updates &u = l.updates;
    through(l.forward, x, count, y, room);
    if (u.parts)
        add_block(u.in, u.out, ordered(u, down), count, x, row(l.mask, first, u.in), y, h, room);
}

// A block's gradient of x, unless gx is null, and its part of those of A and B; `order_back` wrote `right`.
void back(const Adapted &l, const float *right, const float *g, const float *x, const float *h, long first, long count,
          float *gx, float *sums, bool more, float *room) {
    const Updates &u = l.updates;
    if (gx)
        through(l.backward, g, count, gx, room);
    if (u.parts)
        block_gradients(u, right, count, g, x, row(l.mask, first, u.in), h, gx, sums, more, room);
}

// x += plus; its norm without weight and bias goes to `hat`, and with them to y.
void normed(const Norm &norm, float *x, const float *plus, long count, long width, float *hat, float *scales, float *y) {
    for (long r = 0; r < count; ++r, x += width, plus += width, hat += width, y += width) {
        Vector<float> sum{}, squares{};
        for (long i = 0; i < width; i += LANES<float>) {
            const Vector<float> both = load(x + i) + load(plus + i);
            store(x + i, both);
            sum += both;
        }
        const float mean = _mm512_reduce_add_ps((__m512)sum) / width;
        for (long i = 0; i < width; i += LANES<float>) {
            const Vector<float> apart = load(x + i) - mean;
            squares += apart * apart;
        }
        const float scale = 1 / std::sqrt(_mm512_reduce_add_ps((__m512)squares) / width + float(norm.eps));
        for (long i = 0; i < width; i += LANES<float>) {
            const Vector<float> one = (load(x + i) - mean) * scale;
            store(hat + i, one);
            store(y + i, one * load(norm.weight + i) + load(norm.bias + i));
        }
        if (scales)
            scales[r] = scale;
    }
}

// The gradient of what enters a norm, from g; `plus` is added to g before, if it is not null.
void norm_back(const Norm &norm, const float *g, const float *plus, const float *hat, const float *scales, long count,
               long width, float *gx) {
    for (long r = 0; r < count; ++r, g += width, hat += width, gx += width) {
        Vector<float> sum{}, along{};
        for (long i = 0; i < width; i += LANES<float>) {
            Vector<float> due = load(g + i);
            if (plus)
                due += load(plus + r * width + i);
            due *= load(norm.weight + i);
            store(gx + i, due);
            sum += due;
            along += due * load(hat + i);
        }
        const float mean = _mm512_reduce_add_ps((__m512)sum) / width;
        const float slope = _mm512_reduce_add_ps((__m512)along) / width;
        for (long i = 0; i < width; i += LANES<float>)
            store(gx + i, scales[r] * (load(gx + i) - mean - slope * load(hat + i)));
    }
}

void in_half(__m512 x, uint16_t *to) {
    const __m512 most = _mm512_set1_ps(65504); // of fp16
    const __m512 held = _mm512_max_ps(_mm512_min_ps(x, most), _mm512_sub_ps(_mm512_setzero_ps(), most));
    _mm256_storeu_si256((__m256i *)to, _mm512_cvtps_ph(held, _MM_FROUND_TO_NEAREST_INT));
}

Vector<float> from_half(const uint16_t *from) {
    return (Vector<float>)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)from));
}

// y = gelu(x), also in fp16 if it is to be kept, and its slope, if that is.
void activate(const float *x, long count, float *y, uint16_t *slope, uint16_t *kept) {
    for (long i = 0; i < count; i += LANES<float>) {
        const Vector<float> active = gelu(load(x + i));
        store(y + i, active);
        if (slope)
            in_half((__m512)gelu_slope(load(x + i)), slope + i);
        if (kept)
            in_half((__m512)active, kept + i);
    }
}

// y = weight ⊙ hat + bias
void denormed(const Norm &norm, const float *hat, long count, long width, float *y) {
    for (long r = 0; r < count; ++r)
        for (long i = 0; i < width; i += LANES<float>)
            store(y + r * width + i, load(hat + r * width + i) * load(norm.weight + i) + load(norm.bias + i));
}

// Where the parts of the working memory begin: the weights in order, the pieces' sums, and what each thread has.
struct Plan {
    long weights[3], sums[3], all_weights = 0, all_sums = 0, own = 0;

    Plan(std::initializer_list<const Adapted *> layers, long buffers) {
        long n = 0;
        for (const Adapted *l : layers) {
            weights[n] = all_weights;
            sums[n++] = all_sums;
            all_weights += weights_of(l->updates);
            all_sums += gradients_of(l->updates);
            own = own_room(*l) > own ? own_room(*l) : own;
        }
        own += buffers;
    }

    long numbers(const Work &work) const { return all_weights + pieces_of(work) * all_sums + work.threads * own; }
    float *pieces(float *rooms) const { return rooms + all_weights; }
    float *of_thread(float *rooms, const Work &work, long thread) const {
        return pieces(rooms) + pieces_of(work) * all_sums + thread * own;
    }
};

Plan plan_of(const Adapted &l) { return Plan({&l}, 0); }

long deepest(const Rest &r) {
    long low = 0;
    for_each(r, [&](const Adapted &l, long) { low = deep_of(l.updates) > low ? deep_of(l.updates) : low; });
    return low;
}

Plan plan_of(const Rest &r) {
    return Plan({&r.out, &r.up, &r.down}, TOGETHER * (2 * r.up.forward.out + 3 * r.up.forward.in + deepest(r)));
}

// A thread's buffers for a block: two wide ones, three of the hidden size, and a low one. The rest is `room`.
struct Buffers {
    float *wide, *active, *inner, *hat, *sum, *low, *room;

    Buffers(const Rest &r, float *own)
        : wide(own), active(wide + TOGETHER * r.up.forward.out), inner(active + TOGETHER * r.up.forward.out),
          hat(inner + TOGETHER * r.up.forward.in), sum(hat + TOGETHER * r.up.forward.in),
          low(sum + TOGETHER * r.up.forward.in), room(low + TOGETHER * deepest(r)) {}
};

// Rows of what is kept, or a buffer.
float *kept_or(float *kept, long first, long columns, float *buffer) { return kept ? kept + first * columns : buffer; }

// y (rows, out) of x (rows, in), and h = A (m ⊙ x), which may be null if nothing is adapted.
void linear(const Work &work, const Adapted &l, const float *x, float *y, float *h, float *rooms) {
    const Plan plan = plan_of(l);
#pragma omp parallel num_threads(work.threads)
    {
        const long mine = omp_get_thread_num(), threads = omp_get_num_threads();
        order(l.updates, rooms, mine, threads);
#pragma omp barrier
        in_pieces(work, mine, threads, [&](long, long first, long count, bool) {
            ahead(l, rooms, x + first * l.forward.in, first, count, y + first * l.forward.out,
                  row(h, first, deep_of(l.updates)), plan.of_thread(rooms, work, mine));
        });
    }
}

// The gradients of A and B, and of x, (rows, in), which may be null; `plus`, which may be null, is added to x's.
void linear_back(const Work &work, const Adapted &l, const float *g, const float *x, const float *h, const float *plus,
                 float *gx, float *rooms) {
    const Plan plan = plan_of(l);
    const long in = l.forward.in;
#pragma omp parallel num_threads(work.threads)
    {
        const long mine = omp_get_thread_num(), threads = omp_get_num_threads();
        order_back(l.updates, rooms, mine, threads);
#pragma omp barrier
        in_pieces(work, mine, threads, [&](long piece, long first, long count, bool more) {
            float *to = row(gx, first, in);
            back(l, rooms, g + first * l.forward.out, x + first * in, row(h, first, deep_of(l.updates)), first, count, to,
                 plan.pieces(rooms) + piece * plan.all_sums, more, plan.of_thread(rooms, work, mine));
            for (long i = 0; to && plus && i < count * in; ++i)
                to[i] += plus[first * in + i];
        });
#pragma omp barrier
        sum_pieces(l.updates, plan.pieces(rooms), pieces_of(work), plan.all_sums, mine, threads);
    }
}

// y of x and a; all are (rows, hidden).
void rest(const Work &work, const Rest &r, const float *a, const float *x, float *y, float *rooms) {
    const Kept &k = r.kept;
    const Plan plan = plan_of(r);
    const long width = r.up.forward.in, wide = r.up.forward.out;
#pragma omp parallel num_threads(work.threads)
    {
        const long mine = omp_get_thread_num(), threads = omp_get_num_threads();
        for_each(r, [&](const Adapted &l, long n) { order(l.updates, rooms + plan.weights[n], mine, threads); });
#pragma omp barrier
        const Buffers b(r, plan.of_thread(rooms, work, mine));
        in_pieces(work, mine, threads, [&](long, long first, long count, bool) {
            const auto low = [&](float *kept, const Adapted &l) { return kept_or(kept, first, deep_of(l.updates), b.low); };
            ahead(r.out, rooms + plan.weights[0], a + first * width, first, count, b.sum, low(k.low_out, r.out), b.room);
            masked<float>(b.sum, row(r.out_mask, first, width), count * width, b.sum);
            normed(r.first, b.sum, x + first * width, count, width, kept_or(k.first, first, width, b.hat),
                   row(k.first_scale, first, 1), b.inner);
            ahead(r.up, rooms + plan.weights[1], b.inner, first, count, b.wide, low(k.low_up, r.up), b.room);
            activate(b.wide, count * wide, b.active, row(k.slope, first, wide), row(k.active, first, wide));
            ahead(r.down, rooms + plan.weights[2], b.active, first, count, b.sum, low(k.low_down, r.down), b.room);
            masked<float>(b.sum, row(r.down_mask, first, width), count * width, b.sum);
            normed(r.second, b.sum, b.inner, count, width, kept_or(k.second, first, width, b.hat),
                   row(k.second_scale, first, 1), y + first * width);
        });
    }
}

// The gradients of x by the sum, and of a, which may be null, from g, that of y; and those of A and B.
void rest_back(const Work &work, const Rest &r, const float *g, const float *a, float *gx, float *ga, float *rooms) {
    const Kept &k = r.kept;
    const Plan plan = plan_of(r);
    const long width = r.up.forward.in, wide = r.up.forward.out;
#pragma omp parallel num_threads(work.threads)
    {
        const long mine = omp_get_thread_num(), threads = omp_get_num_threads();
        for_each(r, [&](const Adapted &l, long n) { order_back(l.updates, rooms + plan.weights[n], mine, threads); });
#pragma omp barrier
        const Buffers b(r, plan.of_thread(rooms, work, mine));
        in_pieces(work, mine, threads, [&](long piece, long first, long count, bool more) {
            float *sums = plan.pieces(rooms) + piece * plan.all_sums, *residual = gx + first * width;
            const auto low = [&](float *kept, const Adapted &l) { return row(kept, first, deep_of(l.updates)); };
            norm_back(r.second, g + first * width, nullptr, k.second + first * width, k.second_scale + first, count, width,
                      b.sum);
            for (long i = 0; k.active && i < count * wide; i += LANES<float>)
                store(b.active + i, from_half(k.active + first * wide + i));
            const float *slope = masked<float>(b.sum, row(r.down_mask, first, width), count * width, b.inner);
            back(r.down, rooms + plan.weights[2], slope, b.active, low(k.low_down, r.down), first, count, b.wide,
                 sums + plan.sums[2], more, b.room);
            for (long i = 0; i < count * wide; i += LANES<float>)
                store(b.wide + i, load(b.wide + i) * from_half(k.slope + first * wide + i));
            if (r.up.updates.parts)
                denormed(r.first, k.first + first * width, count, width, b.inner);
            back(r.up, rooms + plan.weights[1], b.wide, b.inner, low(k.low_up, r.up), first, count, b.hat,
                 sums + plan.sums[1], more, b.room);
            norm_back(r.first, b.hat, b.sum, k.first + first * width, k.first_scale + first, count, width, residual);
            slope = masked<float>(residual, row(r.out_mask, first, width), count * width, b.inner);
            back(r.out, rooms + plan.weights[0], slope, a + first * width, low(k.low_out, r.out), first, count,
                 row(ga, first, width), sums + plan.sums[0], more, b.room);
        });
#pragma omp barrier
        for_each(r, [&](const Adapted &l, long n) {
            sum_pieces(l.updates, plan.pieces(rooms) + plan.sums[n], pieces_of(work), plan.all_sums, mine, threads);
        });
    }
}

} // namespace

#endif
