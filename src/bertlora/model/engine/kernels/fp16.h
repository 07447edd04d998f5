// Attention in fp16, for processors that multiply it twice as fast as float (AVX512-FP16).
//
// There are two sums for each column of a product, which `joined` adds. Long sums are added up in float. The scores of
// neighbouring keys are kept as pairs, which is what the next product needs.

#pragma once

#include "paired_attention.h"

// Only GCC was tried.
#if defined(HAS_PAIRED_ATTENTION) && !defined(__clang__) && __GNUC__ >= 12
#define HAS_FP16

namespace paired {

constexpr int HIGH = 8; // rows whose sums stay in registers

// What every processor with AVX-512 can do, so that it may be inlined anywhere.
inline __m512i in_fp16(__m512 lower, __m512 upper) {
    const __m256i low = _mm512_cvtps_ph(lower, _MM_FROUND_TO_NEAREST_INT);
    return _mm512_inserti64x4(_mm512_castsi256_si512(low), _mm512_cvtps_ph(upper, _MM_FROUND_TO_NEAREST_INT), 1);
}

constexpr __mmask32 ODD = 0xaaaaaaaa;

// From rows x and y: the pairs of columns 0, 2, .., and of columns 1, 3, ..
inline void zip_fp16(__m512i x, __m512i y, __m512i &even, __m512i &odd) {
    even = _mm512_mask_blend_epi16(ODD, x, _mm512_slli_epi32(y, 16));
    odd = _mm512_mask_blend_epi16(ODD, _mm512_srli_epi32(x, 16), y);
}

} // namespace paired

#pragma GCC push_options
#pragma GCC target("avx512fp16")

namespace paired {

using Halves = __m512h; // 32 numbers
constexpr long FEW_TERMS = 64; // pairs that are added in fp16 before the sum goes on in float

struct Fp16 {
    static constexpr auto narrowed = in_fp16;
    static constexpr auto zip = zip_fp16;

    static Halves load(const void *from) { return _mm512_castsi512_ph(_mm512_loadu_si512(from)); }
    static void store(void *to, Halves x) { _mm512_storeu_si512(to, _mm512_castph_si512(x)); }
    static Halves repeated(uint32_t pair) { return _mm512_castsi512_ph(_mm512_set1_epi32(pair)); }
    static __m512i bits(Halves x) { return _mm512_castph_si512(x); }

    static __m512 lower(Halves x) { return _mm512_cvtxph_ps(_mm256_castsi256_ph(_mm512_castsi512_si256(bits(x)))); }
    static __m512 upper(Halves x) { return _mm512_cvtxph_ps(_mm256_castsi256_ph(_mm512_extracti64x4_epi64(bits(x), 1))); }

    // From two vectors of pairs: the sums of x's pairs in columns 0, 2, .., and those of y's in columns 1, 3, ..
    static Halves joined(Halves x, Halves y) {
        const __m512i crossed = _mm512_rol_epi32(_mm512_mask_blend_epi16(ODD, bits(y), bits(x)), 16);
        const __m512i straight = _mm512_mask_blend_epi16(ODD, bits(x), bits(y));
        return _mm512_add_ph(_mm512_castsi512_ph(straight), _mm512_castsi512_ph(crossed));
    }

    // 2^x for x up to 0. The cubic is right up to 1e-4.
    static Halves power_of_2(Halves x) {
        x = _mm512_max_ph(_mm512_set1_ph(-40), x);
        const Halves whole = _mm512_roundscale_ph(x, 8), rest = _mm512_sub_ph(x, whole);
        Halves y = _mm512_fmadd_ph(_mm512_set1_ph(0.055849f), rest, _mm512_set1_ph(0.242636f));
        y = _mm512_fmadd_ph(y, rest, _mm512_set1_ph(0.693147f));
        y = _mm512_fmadd_ph(y, rest, _mm512_set1_ph(0.999928f));
        return _mm512_scalef_ph(y, whole);
    }

    // Adds M rows of `steps` pairs times two vectors of columns; strides count pairs.
    template <int M>
    static void multiply(const uint32_t *a, long across, long along, const uint32_t *b, long b_row, long steps,
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
    template <int M> static void score_tile(const uint32_t *a, long across, const uint32_t *b, long steps, uint32_t *to) {
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
    static void sum_tile(const uint32_t *a, long across, long along, const uint32_t *b, long b_row, long steps, bool add,
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

    // Scores of keys for 32 queries. The last key of an odd number has no neighbour, and may be hidden.
    static void scores(const uint32_t *keys, const uint32_t *asked, long count, long dim, bool hide, uint32_t *to) {
        const long across = dim / 2;
        long m = 0;
        for (; m + HIGH <= count; m += HIGH)
            score_tile<HIGH>(keys + m * across, across, asked, across, to + m / 2 * ASKING);
        for (; m < count; m += 2)
            score_tile<2>(keys + m * across, across, asked, across, to + m / 2 * ASKING);
        for (long i = count / 2 * ASKING; hide && count % 2 && i < even(count) / 2 * ASKING; ++i)
            to[i] = (to[i] & 0xffff) | 0xf800u << 16; // -32768
    }

    // C (rows, dim) = A B, or is added to: `rows` is even; b has `steps` rows of pairs.
    static void product(const uint32_t *a, long across, long along, const uint32_t *b, long rows, long dim, long steps,
                        bool add, float *c) {
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
    static Halves doubled(__m512 x) {
        const __m512i pairs = _mm512_cvtepu16_epi32(_mm256_castph_si256(_mm512_cvtxps_ph(x)));
        return _mm512_castsi512_ph(_mm512_or_si512(pairs, _mm512_slli_epi32(pairs, 16)));
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
            __m512i even, odd;
            zip(bits(weight[0]), bits(weight[1]), even, odd); // rows of pairs of queries i and i + 16
            _mm512_storeu_si512(scores + 2 * j * PAIRS, even);
            _mm512_storeu_si512(scores + (2 * j + 1) * PAIRS, odd);
            zip(bits(change[0]), bits(change[1]), even, odd);
            _mm512_storeu_si512(slopes + 2 * j * PAIRS, even);
            _mm512_storeu_si512(slopes + (2 * j + 1) * PAIRS, odd);
        }
    }
};

} // namespace paired

#pragma GCC pop_options

#endif
