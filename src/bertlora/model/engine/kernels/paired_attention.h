// Attention of one head of one text in 16-bit numbers, for processors that multiply pairs of them twice as fast as float.
//
// A product adds two terms at a time, as the products of bytes in int8.h add four:
//
//     c[m, n] = Σ over r = 0, 2, ..:  a[m, r] b[r, n]  +  a[m, r + 1] b[r + 1, n]
//
// A vector holds the pairs (b[r, n], b[r + 1, n]) of 16 columns, and is multiplied by the pair of a, which is repeated. The
// arithmetic A is that of fp16.h or bf16.h: its numbers, products, softmax and the gradient of it.
//
// What 16 bits round is kept small. Keys and values are given less their means: softmax and the gradients of the scores do
// not change by it. The gradient of the output is multiplied by a power of 2. Where scores may still be large, `serves`
// says no, and the text is computed in float.

#pragma once

#include "vectors.h"

#if defined(__AVX512F__)
#define HAS_PAIRED_ATTENTION

#include <immintrin.h>

namespace paired {

constexpr long ASKING = 32; // queries that are computed at a time
constexpr long PAIRS = 16; // of a vector
constexpr long AHEAD = 8; // tokens: memory is asked for them early
constexpr float LARGEST_SCORE = 2048, LARGEST_NUMBER = 1024;

// Some tokens of one head: `dim` numbers each, a multiple of 32.
template <class T> struct Tokens {
    const T *first;
    long stride, count, dim;

    __m512 part(long token, long column) const { return (__m512)load_widened(first + token * stride + column); }

    // The mean of each column, or 0 if it is not asked for; and the largest distance from it.
    void survey(float *mean, float *largest) const {
        for (long e = 0; e < dim; e += 32) {
            __m512 sums[2], least[2], most[2];
            for (int n = 0; n < 2; ++n) {
                sums[n] = _mm512_setzero_ps();
                least[n] = most[n] = part(0, e + 16 * n);
            }
            for (long i = 0; i < count; ++i) {
                __builtin_prefetch(first + (i + AHEAD) * stride + e);
                __builtin_prefetch(first + (i + AHEAD) * stride + e + 16);
                for (int n = 0; n < 2; ++n) {
                    const __m512 x = part(i, e + 16 * n);
                    sums[n] = _mm512_add_ps(sums[n], x);
                    least[n] = _mm512_min_ps(x, least[n]);
                    most[n] = _mm512_max_ps(x, most[n]);
                }
            }
            for (int n = 0; n < 2; ++n) {
                const __m512 middle = mean ? _mm512_div_ps(sums[n], _mm512_set1_ps(count)) : _mm512_setzero_ps();
                const __m512 above = _mm512_sub_ps(most[n], middle), below = _mm512_sub_ps(middle, least[n]);
                _mm512_storeu_ps(largest + e + 16 * n, _mm512_max_ps(above, below));
                if (mean)
                    _mm512_storeu_ps(mean + e + 16 * n, middle);
            }
        }
    }

    // (x - mean) times a factor, with rows of 0 behind up to `rows`.
    template <class A> void narrowed_to(const float *mean, float by, long rows, uint32_t *to) const {
        const __m512 factor = _mm512_set1_ps(by), zero = _mm512_setzero_ps();
        for (long i = 0; i < rows; ++i)
            for (long e = 0; e < dim; e += 32) {
                __m512 x[2] = {zero, zero};
                for (long half = 0; half < 2 && i < count; ++half) {
                    const __m512 less = mean ? _mm512_loadu_ps(mean + e + 16 * half) : zero;
                    x[half] = _mm512_mul_ps(_mm512_sub_ps(part(i, e + 16 * half), less), factor);
                }
                _mm512_storeu_si512(to + (i * dim + e) / 2, A::narrowed(x[0], x[1]));
            }
    }
};

// From rows: the pairs of rows i and i + apart, for i = 0 .. apart - 1, or of i and i + 1 if `apart` is 1. The columns are in
// A's order.
template <class A> void zip_rows(const uint32_t *rows, long count, long dim, long apart, uint32_t *to) {
    for (long i = 0; i < count / 2; ++i)
        for (long e = 0; e < dim; e += 32) {
            const uint32_t *from = rows + ((apart == 1 ? 2 * i : i) * dim + e) / 2;
            __m512i first, second;
            A::zip(_mm512_loadu_si512(from), _mm512_loadu_si512(from + apart * dim / 2), first, second);
            _mm512_storeu_si512(to + i * dim + e, first);
            _mm512_storeu_si512(to + i * dim + e + PAIRS, second);
        }
}

// From 32 rows: their transpose as pairs of columns, (dim / 2, 32).
inline void columns(const uint32_t *rows, long dim, uint32_t *to) {
    for (long i = 0; i < ASKING; i += PAIRS)
        for (long e = 0; e < dim / 2; e += PAIRS) {
            Vector<float> square[PAIRS];
            for (long l = 0; l < PAIRS; ++l)
                std::memcpy(&square[l], rows + (i + l) * dim / 2 + e, sizeof square[l]);
            transpose<float>(square);
            for (long l = 0; l < PAIRS; ++l)
                std::memcpy(to + (e + l) * ASKING + i, &square[l], sizeof square[l]);
        }
}

inline long even(long n) { return n + n % 2; }

// Numbers of working memory, of 4 bytes, for a text of this length: what the backward needs, which is more.
inline long room(long longest, long dim) {
    const long keys = even(longest);
    return 5 * dim + 7 * keys * dim / 2 + 5 * keys / 2 * ASKING + 7 * ASKING * dim / 2;
}

// One head of one text, in the arithmetic A.
template <class T, class A> struct Unit {
    Tokens<T> q, k, v;
    float scale; // on the scores, times log2(e)

    long keys() const { return even(k.count); }

    // Whether 16 bits hold all this well. Brings the means of keys and values into the room.
    bool serves(float *room) const {
        const long dim = k.dim;
        float *asked = room + 2 * dim, *seen = asked + dim, *wanted = seen + dim;
        q.survey(nullptr, asked);
        k.survey(room, seen);
        v.survey(room + dim, wanted);
        float score = 0, most = 0;
        for (long e = 0; e < dim; ++e) {
            score += asked[e] * seen[e] * scale;
            most = std::fmax(most, std::fmax(wanted[e], std::fmax(asked[e], seen[e])));
        }
        return score < LARGEST_SCORE && most < LARGEST_NUMBER;
    }

    void forward(T *out, long out_stride, float *log_sums, float *room) const {
        const long dim = k.dim, pairs = keys() / 2;
        const float *key_mean = room, *value_mean = key_mean + dim;
        uint32_t *key_rows = (uint32_t *)room + 5 * dim, *value_rows = key_rows + pairs * dim;
        uint32_t *value_pairs = value_rows + pairs * dim, *rows = value_pairs + pairs * dim, *asked = rows + ASKING * dim / 2;
        uint32_t *weights = asked + ASKING * dim / 2;
        float *seen = (float *)(weights + keys() * ASKING);
        k.template narrowed_to<A>(key_mean, 1, keys(), key_rows);
        v.template narrowed_to<A>(value_mean, 1, keys(), value_rows);
        zip_rows<A>(value_rows, keys(), dim, 1, value_pairs);
        for (long first = 0; first < q.count; first += ASKING) {
            const long count = block(first);
            after(q, first, count).template narrowed_to<A>(nullptr, scale, ASKING, rows);
            columns(rows, dim, asked);
            A::scores(key_rows, asked, k.count, dim, true, weights);
            float most[ASKING], sums[ASKING];
            A::soften(weights, pairs, most, sums);
            A::product(weights, 1, ASKING, value_pairs, even(count), dim, pairs, false, seen);
            for (long i = 0; i < count; ++i) {
                for (long e = 0; e < dim; e += 16) {
                    const __m512 part = _mm512_mul_ps(_mm512_loadu_ps(seen + i * dim + e), _mm512_set1_ps(1 / sums[i]));
                    put(_mm512_add_ps(part, _mm512_loadu_ps(value_mean + e)), out + (first + i) * out_stride + e);
                }
                if (log_sums)
                    log_sums[first + i] = most[i] + std::log2(sums[i]);
            }
        }
    }

    // A gradient that is not wanted has no address.
    void backward(Tokens<T> g, const float *log_sums, T *gq, long gq_stride, T *gk, long gk_stride, T *gv, long gv_stride,
                  float *room) const {
        const long dim = k.dim, pairs = keys() / 2;
        const float *key_mean = room, *value_mean = key_mean + dim;
        uint32_t *key_rows = (uint32_t *)room + 5 * dim, *key_pairs = key_rows + pairs * dim;
        uint32_t *value_rows = key_pairs + pairs * dim;
        float *key_slopes = (float *)(value_rows + pairs * dim), *value_slopes = key_slopes + keys() * dim;
        uint32_t *weights = (uint32_t *)(value_slopes + keys() * dim), *changes = weights + keys() * ASKING;
        uint32_t *slopes = changes + keys() * ASKING, *rows = slopes + pairs * ASKING, *asked = rows + ASKING * dim / 2;
        uint32_t *wanted = asked + ASKING * dim / 2, *query_pairs = wanted + ASKING * dim / 2;
        uint32_t *slope_pairs = query_pairs + ASKING * dim / 2;
        float *query_slopes = (float *)(slope_pairs + ASKING * dim / 2);
        const float up = enlarging(g, room + 2 * dim);
        k.template narrowed_to<A>(key_mean, 1, keys(), key_rows);
        zip_rows<A>(key_rows, keys(), dim, 1, key_pairs);
        v.template narrowed_to<A>(value_mean, 1, keys(), value_rows);
        for (long first = 0; first < q.count; first += ASKING) {
            const long count = block(first);
            after(q, first, count).template narrowed_to<A>(nullptr, scale, ASKING, rows);
            columns(rows, dim, asked);
            zip_rows<A>(rows, ASKING, dim, PAIRS, query_pairs);
            after(g, first, count).template narrowed_to<A>(nullptr, up, ASKING, rows);
            columns(rows, dim, wanted);
            zip_rows<A>(rows, ASKING, dim, PAIRS, slope_pairs);
            A::scores(key_rows, asked, k.count, dim, true, weights);
            A::scores(value_rows, wanted, k.count, dim, false, changes);
            float sums[ASKING] = {};
            std::memcpy(sums, log_sums + first, count * sizeof(float));
            A::slope(weights, changes, slopes, pairs, sums);
            if (gq) {
                A::product(changes, 1, ASKING, key_pairs, even(count), dim, pairs, false, query_slopes);
                give(query_slopes, count, scale / float(LOG2_E) / up, gq + first * gq_stride, gq_stride);
            }
            if (gk)
                A::product(slopes, PAIRS, 1, query_pairs, keys(), dim, PAIRS, first, key_slopes);
            if (gv)
                A::product(weights, PAIRS, 1, slope_pairs, keys(), dim, PAIRS, first, value_slopes);
        }
        if (gk)
            give(key_slopes, k.count, 1 / float(LOG2_E) / up, gk, gk_stride);
        if (gv)
            give(value_slopes, k.count, 1 / up, gv, gv_stride);
    }

  private:
    long block(long first) const { return q.count - first < ASKING ? q.count - first : ASKING; }

    static Tokens<T> after(Tokens<T> x, long first, long count) { return {x.first + first * x.stride, x.stride, count, x.dim}; }

    static void put(__m512 x, T *to) {
        if constexpr (sizeof(T) == 4)
            _mm512_storeu_ps((float *)to, x);
        else
            for (long l = 0; l < 16; ++l)
                narrow(((Vector<float>)x)[l], to[l]);
    }

    void give(const float *from, long count, float by, T *to, long stride) const {
        for (long i = 0; i < count; ++i)
            for (long e = 0; e < k.dim; e += 16) {
                __builtin_prefetch(to + (i + AHEAD) * stride + e, 1);
                put(_mm512_mul_ps(_mm512_loadu_ps(from + i * k.dim + e), _mm512_set1_ps(by)), to + i * stride + e);
            }
    }

    // A power of 2 that brings the largest number of the gradient to 8 to 16.
    static float enlarging(Tokens<T> g, float *room) {
        g.survey(nullptr, room);
        float most = 0;
        for (long e = 0; e < g.dim; ++e)
            most = std::fmax(most, room[e]);
        return most > 1e-30f && most < 1e30f ? std::exp2(3 - std::floor(std::log2(most))) : 1;
    }
};

} // namespace paired

#endif
