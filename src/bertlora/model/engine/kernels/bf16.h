// Attention with products of pairs in bf16 (AVX512-BF16), for processors without products in fp16. Sums, scores and softmax
// are in float.

#pragma once

#include "paired_attention.h"
#include "products.h"

#if defined(HAS_PAIRED_ATTENTION)

// Two numbers; a product adds both products of two pairs to a float.
struct Pair {
    uint32_t both;
};

inline __m512i load(const Pair *from) { return _mm512_loadu_si512(from); }
inline __m512i all(Pair x) { return _mm512_set1_epi32(x.both); }

template <> struct Element<Pair> {
    using Sum = float;

    static void add(Vector<float> &sum, __m512i left, __m512i right) {
        asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(left), "v"(right));
    }
};

namespace paired {

struct Bf16 {
    // In this order.
    static __m512i narrowed(__m512 lower, __m512 upper) {
        __m512i both;
        asm("vcvtne2ps2bf16 %1, %2, %0" : "=v"(both) : "v"(lower), "v"(upper));
        return both;
    }

    // The pairs of rows x and y: of columns 0 to 15, and of 16 to 31.
    static void zip(__m512i x, __m512i y, __m512i &first, __m512i &second) {
        first = _mm512_permutex2var_epi16(x, places(0, 32), y);
        second = _mm512_permutex2var_epi16(x, places(16, 48), y);
    }

    // The pairs of x and y, number by number.
    static __m512i pairs_of(__m512 x, __m512 y) { return _mm512_permutexvar_epi16(places(0, 16), narrowed(x, y)); }

    // The places (even, odd), (even + 1, odd + 1), ..
    static __m512i places(int even, int odd) {
        const __m512i numbers = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
        const __m512i both = _mm512_mullo_epi32(numbers, _mm512_set1_epi32(1 << 16 | 1));
        return _mm512_add_epi32(both, _mm512_set1_epi32(odd << 16 | even));
    }

    // C (rows, dim) = A B, or is added to; b has `steps` rows of pairs.
    static void product(const uint32_t *a, long across, long along, const uint32_t *b, long rows, long dim, long steps,
                        bool add, float *c) {
        ::product((const Pair *)a, across, along, (const Pair *)b, dim, c, dim, rows, dim, steps, add);
    }

    // Scores of keys for 32 queries, in float. The last key of an odd number has no neighbour, and may be hidden.
    static void scores(const uint32_t *keys, const uint32_t *asked, long count, long dim, bool hide, uint32_t *to) {
        product(keys, dim / 2, 1, asked, even(count), ASKING, dim / 2, false, (float *)to);
        for (long i = count * ASKING; hide && i < even(count) * ASKING; ++i)
            ((float *)to)[i] = -1e30f;
    }

    // Replaces scores by 2^(score - maximum of the query), as pairs of rows.
    static void soften(uint32_t *scores, long pairs, float *most, float *sums) {
        const float *from = (const float *)scores;
        Vector<float> high[2] = {load(from), load(from + 16)}, totals[2] = {};
        for (long k = 1; k < 2 * pairs; ++k)
            for (int n = 0; n < 2; ++n)
                high[n] = (Vector<float>)_mm512_max_ps((__m512)high[n], _mm512_loadu_ps(from + k * ASKING + n * 16));
        for (long j = 0; j < pairs; ++j)
            for (int n = 0; n < 2; ++n) {
                const float *at = from + 2 * j * ASKING + n * 16;
                const Vector<float> first = power(load(at) - high[n]), second = power(load(at + ASKING) - high[n]);
                totals[n] += first + second;
                _mm512_storeu_si512(scores + j * ASKING + n * PAIRS, pairs_of((__m512)first, (__m512)second));
            }
        for (int n = 0; n < 2; ++n) {
            store(most + n * 16, high[n]);
            store(sums + n * 16, totals[n]);
        }
    }

    // Replaces the changes of P by those of S, also as rows in `slopes`, and scores by P, as rows.
    static void slope(uint32_t *scores, uint32_t *changes, uint32_t *slopes, long pairs, const float *log_sums) {
        float *weights = (float *)scores, *wanted = (float *)changes;
        const Vector<float> shift[2] = {load(log_sums), load(log_sums + 16)};
        Vector<float> due[2] = {};
        for (long k = 0; k < 2 * pairs; ++k)
            for (int n = 0; n < 2; ++n) {
                const long at = k * ASKING + n * 16;
                const Vector<float> weight = power(load(weights + at) - shift[n]);
                store(weights + at, weight);
                due[n] += weight * load(wanted + at);
            }
        for (long j = 0; j < pairs; ++j) {
            Vector<float> weight[2][2], change[2][2]; // of two keys
            for (int n = 0; n < 4; ++n) {
                const long at = 2 * j * ASKING + n * 16;
                weight[n / 2][n % 2] = load(weights + at);
                change[n / 2][n % 2] = weight[n / 2][n % 2] * (load(wanted + at) - due[n % 2]);
            }
            for (int n = 0; n < 2; ++n) {
                const auto put = [](uint32_t *to, Vector<float> x, Vector<float> y) {
                    _mm512_storeu_si512(to, pairs_of((__m512)x, (__m512)y));
                };
                put(scores + (2 * j + n) * PAIRS, weight[n][0], weight[n][1]); // queries i and i + 16
                put(slopes + (2 * j + n) * PAIRS, change[n][0], change[n][1]);
                put(changes + j * ASKING + n * PAIRS, change[0][n], change[1][n]);
            }
        }
    }

    // 2^x for x up to about 0, right up to 5e-5: bf16 rounds more.
    static Vector<float> power(Vector<float> x) {
        const __m512 held = _mm512_max_ps(_mm512_set1_ps(-126), (__m512)x), whole = _mm512_roundscale_ps(held, 8);
        const Vector<float> rest = (Vector<float>)_mm512_sub_ps(held, whole);
        Vector<float> y = all(9.6181291e-3f);
        y = y * rest + all(5.5504109e-2f);
        y = y * rest + all(2.4022651e-1f);
        y = y * rest + all(6.9314718e-1f);
        y = y * rest + all(1.0f);
        return (Vector<float>)_mm512_scalef_ps((__m512)y, whole);
    }
};

} // namespace paired

#endif
