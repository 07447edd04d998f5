// The low-rank part of a LoRA linear layer, y = W x + s B A (m ⊙ x), in two halves.
//
//     down    h = (m ⊙ x) A'           backward    gA = gh' (m ⊙ x)      gx += (gh A) ⊙ m
//     up      y += s h B'              backward    gB = s g' h            gh = s g B
//
// x (tokens, in), y and g (tokens, out) are bf16, float or double; m is like x, or absent; A (rank, in), B (out, rank), h and
// their gradients are float, or double for double. Each call reads its tensors once. Sums over tokens are made in parts
// whose number does not depend on the threads, so the result does not either.

#include "products.h"

#include <omp.h>

namespace {

constexpr long TOKENS = 16; // computed at a time
constexpr long PARTS = 16;  // of a sum over tokens

// The sizes of a call. Strides are numbers from one token to the next.
struct Sizes {
    int64_t tokens, width, rank, stride, low_stride, threads; // width: in or out; low: of h or gh
    double scale;
};

// Working memory: matrices that all threads read, then what each part or thread has.
template <class R> struct Room {
    long wide, narrow;
    R *by_width, *by_rank, *sums, *own;

    Room(const Sizes &s, void *room)
        : wide(up_to<R>(s.width)), narrow(up_to<R>(s.rank)), by_width((R *)room), by_rank(by_width + s.width * narrow),
          sums(by_rank + s.rank * wide), own(sums + PARTS * s.rank * wide) {}

    R *thread() const { return own + omp_get_thread_num() * per_thread(wide, narrow); }

    static long per_thread(long wide, long narrow) { return TOKENS * (2 * wide + narrow); }
    static long size(const Sizes &s) {
        const long wide = up_to<R>(s.width), narrow = up_to<R>(s.rank);
        return s.width * narrow + (1 + PARTS) * s.rank * wide + s.threads * per_thread(wide, narrow);
    }
};

// To (rows, columns up to whole vectors) from (rows, columns) whose element (i, j) is at i * across + j * along.
template <class R>
void laid(const R *from, long across, long along, long rows, long columns, long wide, R by, R *to) {
    for (long i = 0; i < rows; ++i) {
        for (long j = 0; j < columns; ++j)
            to[i * wide + j] = from[i * across + j * along] * by;
        for (long j = columns; j < wide; ++j)
            to[i * wide + j] = 0;
    }
}

template <class T>
void widen(const T *x, const T *mask, long rows, long stride, long width, long wide, Real<T> *to) {
    for (long i = 0; i < rows; ++i) {
        const T *row = x + i * stride;
        Real<T> *out = to + i * wide;
        if (mask)
            for (long e = 0; e < width; ++e)
                out[e] = widened(row[e]) * widened(mask[i * width + e]);
        else
            for (long e = 0; e < width; ++e)
                out[e] = widened(row[e]);
        for (long e = width; e < wide; ++e)
            out[e] = 0;
    }
}

long tokens_of_part(const Sizes &s) { return (s.tokens + PARTS * TOKENS - 1) / (PARTS * TOKENS) * TOKENS; }

// Calls f with the first token and the number of tokens of each block of a part.
template <class F> void in_blocks(const Sizes &s, long part, F f) {
    const long each = tokens_of_part(s);
    const long end = (part + 1) * each < s.tokens ? (part + 1) * each : s.tokens;
    for (long first = part * each; first < end; first += TOKENS)
        f(first, end - first < TOKENS ? end - first : TOKENS);
}

// Adds the sums of all parts that had tokens to the first one's, part by part.
template <class R> void add_up(const Sizes &s, R *sums, long each) {
    const long tokens = tokens_of_part(s);
    for (long part = 1; part * tokens < s.tokens; ++part)
        for (long i = 0; i < each; ++i)
            sums[i] += sums[part * each + i];
}

template <class T> void down(Kind<T>, const Sizes &s, const void *x, const void *mask, const void *a, void *h, void *rooms) {
    using R = Real<T>;
    const Room<R> room(s, rooms);
    laid((const R *)a, 1L, s.width, s.width, s.rank, room.narrow, R(1), room.by_width);
#pragma omp parallel for schedule(dynamic) num_threads(s.threads)
    for (long part = 0; part < PARTS; ++part) {
        R *rows = room.thread(), *low = rows + TOKENS * room.wide;
        in_blocks(s, part, [&](long first, long count) {
            const T *own_mask = mask ? (const T *)mask + first * s.width : nullptr;
            widen((const T *)x + first * s.stride, own_mask, count, s.stride, s.width, room.wide, rows);
            product(rows, room.wide, 1L, room.by_width, room.narrow, low, room.narrow, count, room.narrow, s.width, false);
            for (long i = 0; i < count; ++i)
                std::memcpy((R *)h + (first + i) * s.low_stride, low + i * room.narrow, s.rank * sizeof(R));
        });
    }
}

template <class T> void up(Kind<T>, const Sizes &s, const void *h, const void *b, void *y, void *rooms) {
    using R = Real<T>;
    const Room<R> room(s, rooms);
    laid((const R *)b, 1L, s.rank, s.rank, s.width, room.wide, R(s.scale), room.by_rank);
#pragma omp parallel for schedule(dynamic) num_threads(s.threads)
    for (long part = 0; part < PARTS; ++part) {
        R *rows = room.thread();
        in_blocks(s, part, [&](long first, long count) {
            product((const R *)h + first * s.low_stride, s.low_stride, 1L, room.by_rank, room.wide, rows, room.wide, count,
                    room.wide, s.rank, false);
            for (long i = 0; i < count; ++i) {
                T *row = (T *)y + (first + i) * s.stride;
                for (long e = 0; e < s.width; ++e)
                    narrow(widened(row[e]) + rows[i * room.wide + e], row[e]);
            }
        });
    }
}

template <class T>
void up_backward(Kind<T>, const Sizes &s, const void *g, const void *h, const void *b, void *gh, void *gb, void *rooms) {
    using R = Real<T>;
    const Room<R> room(s, rooms);
    laid((const R *)b, s.rank, 1L, s.width, s.rank, room.narrow, R(s.scale), room.by_width);
    const long each = s.rank * room.wide;
#pragma omp parallel for schedule(dynamic) num_threads(s.threads)
    for (long part = 0; part < PARTS; ++part) {
        R *rows = room.thread(), *low = rows + TOKENS * room.wide, *sum = room.sums + part * each;
        bool add = false;
        in_blocks(s, part, [&](long first, long count) {
            widen((const T *)g + first * s.stride, (const T *)nullptr, count, s.stride, s.width, room.wide, rows);
            product(rows, room.wide, 1L, room.by_width, room.narrow, low, room.narrow, count, room.narrow, s.width, false);
            for (long i = 0; i < count; ++i)
                std::memcpy((R *)gh + (first + i) * s.low_stride, low + i * room.narrow, s.rank * sizeof(R));
            if (gb)
                product((const R *)h + first * s.low_stride, 1L, s.low_stride, rows, room.wide, sum, room.wide, s.rank,
                        room.wide, count, add);
            add = true;
        });
    }
    if (gb) {
        add_up(s, room.sums, each);
        laid(room.sums, 1L, room.wide, s.width, s.rank, s.rank, R(s.scale), (R *)gb);
    }
}

template <class T>
void down_backward(Kind<T>, const Sizes &s, const void *x, const void *mask, const void *a, const void *gh, void *gx,
                   void *ga, void *rooms) {
    using R = Real<T>;
    const Room<R> room(s, rooms);
    laid((const R *)a, s.width, 1L, s.rank, s.width, room.wide, R(1), room.by_rank);
    const long each = s.rank * room.wide;
#pragma omp parallel for schedule(dynamic) num_threads(s.threads)
    for (long part = 0; part < PARTS; ++part) {
        R *rows = room.thread(), *change = rows + TOKENS * room.wide, *sum = room.sums + part * each;
        bool add = false;
        in_blocks(s, part, [&](long first, long count) {
            const R *low = (const R *)gh + first * s.low_stride;
            const T *own_mask = mask ? (const T *)mask + first * s.width : nullptr;
            if (ga) {
                widen((const T *)x + first * s.stride, own_mask, count, s.stride, s.width, room.wide, rows);
                product(low, 1L, s.low_stride, rows, room.wide, sum, room.wide, s.rank, room.wide, count, add);
            }
            add = true;
            if (!gx)
                return;
            product(low, s.low_stride, 1L, room.by_rank, room.wide, change, room.wide, count, room.wide, s.rank, false);
            for (long i = 0; i < count; ++i) {
                T *row = (T *)gx + (first + i) * s.width;
                const R *own = change + i * room.wide;
                for (long e = 0; e < s.width; ++e)
                    narrow(widened(row[e]) + (own_mask ? own[e] * widened(own_mask[i * s.width + e]) : own[e]), row[e]);
            }
        });
    }
    if (ga) {
        add_up(s, room.sums, each);
        laid(room.sums, room.wide, 1L, s.rank, s.width, s.width, R(1), (R *)ga);
    }
}

} // namespace

EXPORTED int64_t low_rank_room(int64_t kind, const Sizes *s) {
    return kind == 2 ? Room<double>::size(*s) : Room<float>::size(*s);
}

EXPORTED void low_rank_down(int64_t kind, const Sizes *s, const void *x, const void *mask, const void *a, void *h,
                            void *rooms) {
    with_type(kind, [&](auto of) { down(of, *s, x, mask, a, h, rooms); });
}

EXPORTED void low_rank_up(int64_t kind, const Sizes *s, const void *h, const void *b, void *y, void *rooms) {
    with_type(kind, [&](auto of) { up(of, *s, h, b, y, rooms); });
}

EXPORTED void low_rank_up_backward(int64_t kind, const Sizes *s, const void *g, const void *h, const void *b, void *gh,
                                   void *gb, void *rooms) {
    with_type(kind, [&](auto of) { up_backward(of, *s, g, h, b, gh, gb, rooms); });
}

EXPORTED void low_rank_down_backward(int64_t kind, const Sizes *s, const void *x, const void *mask, const void *a,
                                     const void *gh, void *gx, void *ga, void *rooms) {
    with_type(kind, [&](auto of) { down_backward(of, *s, x, mask, a, gh, gx, ga, rooms); });
}
