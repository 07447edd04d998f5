// Attention of one head of one text in fp16, for processors that multiply it twice as fast as float (AVX512-FP16).
//
// A product adds two terms a number at a time, as the products of bytes in int8.h add four:
//
//     c[m, n] = Σ over r = 0, 2, ..:  a[m, r] b[r, n]  +  a[m, r + 1] b[r + 1, n]
//
// A vector holds the pairs (b[r, n], b[r + 1, n]) of 16 columns, and is multiplied by the pair of a, which is repeated.
// So there are two sums for each column, which `joined` adds. Long sums are added up in float. The scores of neighbouring
// keys are kept as pairs, which is what the next product needs.
//
// What fp16 rounds is kept small. Keys and values are given less their means: softmax and the gradients of the scores do
// not change by it. The gradient of the output is multiplied by a power of 2. Where scores may still be large, `serves`
// says no, and the text is computed in float.

#pragma once

#include "vectors.h"

// Only GCC was tried.
#if defined(__AVX512F__) && !defined(__clang__) && __GNUC__ >= 12
#define HAS_HALF_ATTENTION

#include <immintrin.h>

#pragma GCC push_options
#pragma GCC target("avx512fp16")

namespace half {

using Halves = __m512h; // 32 numbers
constexpr long ASKING = 32; // queries that are computed at a time
constexpr long PAIRS = 16; // of a vector
constexpr int HIGH = 8; // rows whose sums stay in registers
constexpr long FEW_TERMS = 64; // pairs that are added in fp16 before the sum goes on in float
constexpr long AHEAD = 8; // tokens: memory is asked for them early
constexpr float LARGEST_SCORE = 2048, LARGEST_NUMBER = 1024;

inline Halves load(const void *from) { return _mm512_castsi512_ph(_mm512_loadu_si512(from)); }
inline void store(void *to, Halves x) { _mm512_storeu_si512(to, _mm512_castph_si512(x)); }
inline Halves repeated(uint32_t pair) { return _mm512_castsi512_ph(_mm512_set1_epi32(pair)); }
inline __m512i bits(Halves x) { return _mm512_castph_si512(x); }

inline Halves narrowed(__m512 lower, __m512 upper) {
    const __m256i low = _mm256_castph_si256(_mm512_cvtxps_ph(lower)), high = _mm256_castph_si256(_mm512_cvtxps_ph(upper));
    return _mm512_castsi512_ph(_mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1));
}
inline __m512 lower(Halves x) { return _mm512_cvtxph_ps(_mm256_castsi256_ph(_mm512_castsi512_si256(bits(x)))); }
inline __m512 upper(Halves x) { return _mm512_cvtxph_ps(_mm256_castsi256_ph(_mm512_extracti64x4_epi64(bits(x), 1))); }

constexpr __mmask32 ODD = 0xaaaaaaaa;

// From rows x and y: the pairs of columns 0, 2, .., and of columns 1, 3, ..
inline void zip(Halves x, Halves y, Halves &even, Halves &odd) {
    even = _mm512_castsi512_ph(_mm512_mask_blend_epi16(ODD, bits(x), _mm512_slli_epi32(bits(y), 16)));
    odd = _mm512_castsi512_ph(_mm512_mask_blend_epi16(ODD, _mm512_srli_epi32(bits(x), 16), bits(y)));
}

// From two vectors of pairs: the sums of x's pairs in columns 0, 2, .., and those of y's in columns 1, 3, ..
inline Halves joined(Halves x, Halves y) {
    const __m512i crossed = _mm512_rol_epi32(_mm512_mask_blend_epi16(ODD, bits(y), bits(x)), 16);
    const __m512i straight = _mm512_mask_blend_epi16(ODD, bits(x), bits(y));
    return _mm512_add_ph(_mm512_castsi512_ph(straight), _mm512_castsi512_ph(crossed));
}

// 2^x for x up to 0. The cubic is right up to 1e-4.
inline Halves power_of_2(Halves x) {
    x = _mm512_max_ph(_mm512_set1_ph(-40), x);
    const Halves whole = _mm512_roundscale_ph(x, 8), rest = _mm512_sub_ph(x, whole);
    Halves y = _mm512_fmadd_ph(_mm512_set1_ph(0.055849f), rest, _mm512_set1_ph(0.242636f));
    y = _mm512_fmadd_ph(y, rest, _mm512_set1_ph(0.693147f));
    y = _mm512_fmadd_ph(y, rest, _mm512_set1_ph(0.999928f));
    return _mm512_scalef_ph(y, whole);
}

// Adds M rows of `steps` pairs times two vectors of columns; strides count pairs.
template <int M>
inline void multiply(const uint32_t *a, long across, long along, const uint32_t *b, long b_row, long steps,
                     Halves (&sums)[M][2]) {
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m)
        sums[m][0] = sums[m][1] = _mm512_setzero_ph();
    for (long i = 0; i < steps; ++i) {
        const Halves first = load(b + i * b_row), second = load(b + i * b_row + PAIRS);
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m) {
            const Halves left = repeated(a[m * across + i * along]);
            sums[m][0] = _mm512_fmadd_ph(left, first, sums[m][0]);
            sums[m][1] = _mm512_fmadd_ph(left, second, sums[m][1]);
        }
    }
}

// (M rows, 32 queries) as pairs of rows.
template <int M> inline void score_tile(const uint32_t *a, long across, const uint32_t *b, long steps, uint32_t *to) {
    Halves sums[M][2];
    multiply<M>(a, across, 1, b, ASKING, steps, sums);
#pragma GCC unroll 8
    for (int m = 0; m < M; m += 2) {
        store(to + m / 2 * ASKING, joined(sums[m][0], sums[m + 1][0]));
        store(to + m / 2 * ASKING + PAIRS, joined(sums[m][1], sums[m + 1][1]));
    }
}

// Adds (M rows, 32 columns) to sums in float.
template <int M>
inline void sum_tile(const uint32_t *a, long across, long along, const uint32_t *b, long b_row, long steps, bool add,
                     float *to, long to_row) {
    Halves sums[M][2];
    multiply<M>(a, across, along, b, b_row, steps, sums);
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m) {
        const Halves row = joined(sums[m][0], sums[m][1]);
        float *at = to + m * to_row;
        const __m512 zero = _mm512_setzero_ps();
        _mm512_storeu_ps(at, _mm512_add_ps(lower(row), add ? _mm512_loadu_ps(at) : zero));
        _mm512_storeu_ps(at + 16, _mm512_add_ps(upper(row), add ? _mm512_loadu_ps(at + 16) : zero));
    }
}

// Scores of an even number of keys for 32 queries.
inline void scores(const uint32_t *keys, const uint32_t *asked, long count, long dim, uint32_t *to) {
    const long across = dim / 2;
    long m = 0;
    for (; m + HIGH <= count; m += HIGH)
        score_tile<HIGH>(keys + m * across, across, asked, across, to + m / 2 * ASKING);
    for (; m < count; m += 2)
        score_tile<2>(keys + m * across, across, asked, across, to + m / 2 * ASKING);
}

// C (rows, dim) = A B, or is added to: `rows` is even; b has `steps` rows of pairs.
inline void product(const uint32_t *a, long across, long along, const uint32_t *b, long rows, long dim, long steps, bool add,
                    float *c) {
    for (long column = 0; column < dim; column += 32)
        for (long first = 0; first < steps; first += FEW_TERMS) {
            const long some = steps - first < FEW_TERMS ? steps - first : FEW_TERMS;
            const uint32_t *from = a + first * along, *right = b + first * dim + column;
            const bool more = add || first;
            long m = 0;
            for (; m + HIGH <= rows; m += HIGH)
                sum_tile<HIGH>(from + m * across, across, along, right, dim, some, more, c + m * dim + column, dim);
            for (; m < rows; m += 2)
                sum_tile<2>(from + m * across, across, along, right, dim, some, more, c + m * dim + column, dim);
        }
}

// Sums over rows of pairs, for 32 queries, in float.
struct Totals {
    __m512 sums[4];
    Halves some[2];

    // Written out, so that it is compiled for this processor.
    Totals() {
        for (int n = 0; n < 4; ++n)
            sums[n] = _mm512_setzero_ps();
        some[0] = some[1] = _mm512_setzero_ph();
    }

    void flush() {
        for (int n = 0; n < 2; ++n) {
            sums[2 * n] = _mm512_add_ps(sums[2 * n], lower(some[n]));
            sums[2 * n + 1] = _mm512_add_ps(sums[2 * n + 1], upper(some[n]));
            some[n] = _mm512_setzero_ph();
        }
    }

    // Both halves of each pair together.
    void of_queries(float *to) {
        flush();
        float parts[2 * ASKING];
        for (int n = 0; n < 4; ++n)
            _mm512_storeu_ps(parts + 16 * n, sums[n]);
        for (long i = 0; i < ASKING; ++i)
            to[i] = parts[2 * i] + parts[2 * i + 1];
    }
};

// 16 numbers, each as a pair with itself.
inline Halves doubled(__m512 x) {
    const __m512i pairs = _mm512_cvtepu16_epi32(_mm256_castph_si256(_mm512_cvtxps_ph(x)));
    return _mm512_castsi512_ph(_mm512_or_si512(pairs, _mm512_slli_epi32(pairs, 16)));
}

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
    void narrowed_to(const float *mean, float by, long rows, uint32_t *to) const {
        const __m512 factor = _mm512_set1_ps(by), zero = _mm512_setzero_ps();
        for (long i = 0; i < rows; ++i)
            for (long e = 0; e < dim; e += 32) {
                __m512 x[2] = {zero, zero};
                for (long half = 0; half < 2 && i < count; ++half) {
                    const __m512 less = mean ? _mm512_loadu_ps(mean + e + 16 * half) : zero;
                    x[half] = _mm512_mul_ps(_mm512_sub_ps(part(i, e + 16 * half), less), factor);
                }
                store(to + (i * dim + e) / 2, narrowed(x[0], x[1]));
            }
    }
};

// From rows in fp16: the pairs of rows i and i + apart, for i = 0 .. apart - 1, or of i and i + 1 if `apart` is 1.
inline void zip_rows(const uint32_t *rows, long count, long dim, long apart, uint32_t *to) {
    for (long i = 0; i < count / 2; ++i)
        for (long e = 0; e < dim; e += 32) {
            const long first = apart == 1 ? 2 * i : i;
            Halves even, odd;
            zip(load(rows + (first * dim + e) / 2), load(rows + ((first + apart) * dim + e) / 2), even, odd);
            store(to + i * dim + e, even);
            store(to + i * dim + e + PAIRS, odd);
        }
}

// From 32 rows in fp16: their transpose as pairs of columns, (dim / 2, 32).
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

// One head of one text.
template <class T> struct Unit {
    Tokens<T> q, k, v;
    float scale; // on the scores, times log2(e)

    long keys() const { return even(k.count); }

    // Numbers of working memory, of 4 bytes, for a text of this length: what the backward needs, which is more.
    static long room(long longest, long dim) {
        const long keys = even(longest);
        return 5 * dim + 7 * keys * dim / 2 + 3 * keys / 2 * ASKING + 7 * ASKING * dim / 2;
    }

    // Whether fp16 holds all this well. Brings the means of keys and values into the room.
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
        uint32_t *key_rows = (uint32_t *)room + 5 * dim, *value_rows = key_rows + pairs * dim, *value_pairs = value_rows + pairs * dim;
        uint32_t *rows = value_pairs + pairs * dim, *asked = rows + ASKING * dim / 2;
        uint32_t *weights = asked + ASKING * dim / 2;
        float *seen = (float *)(weights + pairs * ASKING);
        k.narrowed_to(key_mean, 1, keys(), key_rows);
        v.narrowed_to(value_mean, 1, keys(), value_rows);
        zip_rows(value_rows, keys(), dim, 1, value_pairs);
        for (long first = 0; first < q.count; first += ASKING) {
            const long count = block(first);
            after(q, first, count).narrowed_to(nullptr, scale, ASKING, rows);
            columns(rows, dim, asked);
            scores(key_rows, asked, keys(), dim, weights);
            hide_filler(weights);
            float most[ASKING], sums[ASKING];
            soften(weights, pairs, most, sums);
            product(weights, 1, ASKING, value_pairs, even(count), dim, pairs, false, seen);
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
        uint32_t *key_rows = (uint32_t *)room + 5 * dim, *key_pairs = key_rows + pairs * dim, *value_rows = key_pairs + pairs * dim;
        float *key_slopes = (float *)(value_rows + pairs * dim), *value_slopes = key_slopes + keys() * dim;
        uint32_t *weights = (uint32_t *)(value_slopes + keys() * dim), *changes = weights + pairs * ASKING;
        uint32_t *slopes = changes + pairs * ASKING, *rows = slopes + pairs * ASKING, *asked = rows + ASKING * dim / 2;
        uint32_t *wanted = asked + ASKING * dim / 2, *query_pairs = wanted + ASKING * dim / 2;
        uint32_t *slope_pairs = query_pairs + ASKING * dim / 2;
        float *query_slopes = (float *)(slope_pairs + ASKING * dim / 2);
        const float up = enlarging(g, room + 2 * dim);
        k.narrowed_to(key_mean, 1, keys(), key_rows);
        zip_rows(key_rows, keys(), dim, 1, key_pairs);
        v.narrowed_to(value_mean, 1, keys(), value_rows);
        for (long first = 0; first < q.count; first += ASKING) {
            const long count = block(first);
            after(q, first, count).narrowed_to(nullptr, scale, ASKING, rows);
            columns(rows, dim, asked);
            zip_rows(rows, ASKING, dim, PAIRS, query_pairs);
            after(g, first, count).narrowed_to(nullptr, up, ASKING, rows);
            columns(rows, dim, wanted);
            zip_rows(rows, ASKING, dim, PAIRS, slope_pairs);
            scores(key_rows, asked, keys(), dim, weights);
            scores(value_rows, wanted, keys(), dim, changes);
            hide_filler(weights);
            float sums[ASKING] = {};
            std::memcpy(sums, log_sums + first, count * sizeof(float));
            slope(weights, changes, slopes, pairs, sums);
            if (gq) {
                product(changes, 1, ASKING, key_pairs, even(count), dim, pairs, false, query_slopes);
                give(query_slopes, count, scale / float(LOG2_E) / up, gq + first * gq_stride, gq_stride);
            }
            if (gk)
                product(slopes, PAIRS, 1, query_pairs, keys(), dim, PAIRS, first, key_slopes);
            if (gv)
                product(weights, PAIRS, 1, slope_pairs, keys(), dim, PAIRS, first, value_slopes);
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

    // The last key of an odd number of keys has no neighbour.
    void hide_filler(uint32_t *scores) const {
        for (long i = 0; k.count % 2 && i < ASKING; ++i)
            scores[k.count / 2 * ASKING + i] = (scores[k.count / 2 * ASKING + i] & 0xffff) | 0xf800u << 16; // -32768
    }

    // Replaces scores by 2^(score - maximum of the query).
    static void soften(uint32_t *scores, long pairs, float *most, float *sums) {
        Halves high[2] = {load(scores), load(scores + PAIRS)};
        for (long j = 1; j < pairs; ++j)
            for (int n = 0; n < 2; ++n)
                high[n] = _mm512_max_ph(high[n], load(scores + j * ASKING + n * PAIRS));
        for (int n = 0; n < 2; ++n) {
            high[n] = _mm512_max_ph(high[n], _mm512_castsi512_ph(_mm512_rol_epi32(bits(high[n]), 16)));
            const __m256i first_of_pairs = _mm512_cvtepi32_epi16(bits(high[n]));
            _mm512_storeu_ps(most + n * PAIRS, _mm512_cvtxph_ps(_mm256_castsi256_ph(first_of_pairs)));
        }
        Totals totals;
        for (long j = 0; j < pairs; ++j) {
            for (int n = 0; n < 2; ++n) {
                uint32_t *at = scores + j * ASKING + n * PAIRS;
                const Halves weight = power_of_2(_mm512_sub_ph(load(at), high[n]));
                store(at, weight);
                totals.some[n] = _mm512_add_ph(totals.some[n], weight);
            }
            if (j % 8 == 7)
                totals.flush();
        }
        totals.of_queries(sums);
    }

    // Replaces the changes of P by those of S, also as rows in `slopes`, and scores by P, as rows.
    static void slope(uint32_t *scores, uint32_t *changes, uint32_t *slopes, long pairs, const float *log_sums) {
        Halves shift[2], rest[2], due[2];
        for (int n = 0; n < 2; ++n) {
            const __m512 sum = _mm512_loadu_ps(log_sums + n * PAIRS), whole = _mm512_roundscale_ps(sum, 10); // rounded up
            shift[n] = doubled(whole);
            rest[n] = doubled((__m512)::power_of_2((Vector<float>)_mm512_sub_ps(whole, sum)));
        }
        Totals totals;
        for (long j = 0; j < pairs; ++j) {
            for (int n = 0; n < 2; ++n) {
                uint32_t *at = scores + j * ASKING + n * PAIRS;
                const Halves weight = _mm512_mul_ph(power_of_2(_mm512_sub_ph(load(at), shift[n])), rest[n]);
                store(at, weight);
                totals.some[n] = _mm512_fmadd_ph(weight, load(changes + j * ASKING + n * PAIRS), totals.some[n]);
            }
            if (j % 8 == 7)
                totals.flush();
        }
        float sums[ASKING];
        totals.of_queries(sums);
        for (int n = 0; n < 2; ++n)
            due[n] = doubled(_mm512_loadu_ps(sums + n * PAIRS));
        for (long j = 0; j < pairs; ++j) {
            Halves weight[2], change[2];
            for (int n = 0; n < 2; ++n) {
                uint32_t *at = changes + j * ASKING + n * PAIRS;
                weight[n] = load(scores + j * ASKING + n * PAIRS);
                change[n] = _mm512_mul_ph(weight[n], _mm512_sub_ph(load(at), due[n]));
                store(at, change[n]);
            }
            Halves even, odd;
            zip(weight[0], weight[1], even, odd); // rows of pairs of queries i and i + 16
            store(scores + 2 * j * PAIRS, even);
            store(scores + (2 * j + 1) * PAIRS, odd);
            zip(change[0], change[1], even, odd);
            store(slopes + 2 * j * PAIRS, even);
            store(slopes + (2 * j + 1) * PAIRS, odd);
        }
    }
};

} // namespace half

#pragma GCC pop_options

#endif
