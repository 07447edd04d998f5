// Linear layers with weights and inputs in 8 bits, on a block of rows: y = W x + b.
//
//     x[n] ≈ s[n] q[n] + m[n], q = 0..255, m = min x      W[o] ≈ t[o] w[o], w = -127..127
//     y[n, o] = t[o] (s[n] Σ q[n, i] w[o, i] + m[n] Σ w[o, i]) + b[o]
//
// Each row of x and of W has a scale of its own. The sums are of integers, so they are exact: a row's result depends on no
// other row, and on no order. The instruction (VNNI) multiplies bytes without a sign by bytes with one, and adds four at a
// time. After Dettmers et al. 2022, "LLM.int8()", without its split of the columns; for gradients after Wortsman et al.
// 2023, "Stable and low-precision training for large-scale vision-language models".

#pragma once

#include "vectors.h"

#if defined(__AVX512F__)
#include <immintrin.h>

namespace {

constexpr long TOGETHER = 66; // most rows that are computed at a time: they stay in the cache
constexpr int HIGH = 6, WIDE = 4; // rows and vectors of columns whose sums stay in registers
constexpr long COLUMNS = 16; // of a vector
constexpr long GROUP = 4; // inputs that one instruction sums
constexpr float LEAST = 1e-30f; // a row whose scale is below it counts as constant

// W (out, in) as [out / 16][in / 4][16][4], and what belongs to its rows; `bias` may be null.
struct Linear {
    const int8_t *values;
    const float *scales;
    const float *sums;
    const float *bias;
    int64_t in, out; // multiples of 16
};

struct Work {
    int64_t rows, threads;
};

// What a row in 8 bits means: s q + m. The scale is not a number if one of x is not finite.
struct Meaning {
    float scale, least;
};

Meaning in_bytes(const float *x, long in, uint8_t *to) {
    __m512 most = _mm512_loadu_ps(x), least = most, finite = _mm512_setzero_ps();
    for (long i = 0; i < in; i += COLUMNS) {
        const __m512 part = _mm512_loadu_ps(x + i);
        most = _mm512_max_ps(most, part);
        least = _mm512_min_ps(least, part);
        finite = _mm512_fmadd_ps(part, _mm512_setzero_ps(), finite);
    }
    const float from = _mm512_reduce_min_ps(least);
    const float scale = (_mm512_reduce_max_ps(most) - from) / 255 + _mm512_reduce_add_ps(finite);
    const __m512 by = _mm512_set1_ps(scale > LEAST ? 1 / scale : 0);
    for (long i = 0; i < in; i += COLUMNS) {
        const __m512 above = _mm512_sub_ps(_mm512_loadu_ps(x + i), _mm512_set1_ps(from));
        const __m512i whole = _mm512_cvtps_epi32(_mm512_mul_ps(above, by));
        _mm_storeu_si128((__m128i *)(to + i), _mm512_cvtusepi32_epi8(whole));
    }
    return {scale, from};
}

// Odd functions of x, as x times a polynomial in 2 x² / 4.5² - 1, lowest term first. They were fitted by least squares in
// Chebyshev's points, so they are close to the best of their degree. Beyond ±4.5 they stay as they are there.
constexpr float REACH = 4.5f;
constexpr int TERMS = 11;
// Φ(x) - 1/2, right up to 4e-6.
constexpr float NORMAL[TERMS] = {0.15690512f,   -0.077191995f, 0.054689997f,   -0.040139062f, 0.028388407f,  -0.018895569f,
                                 0.011104903f,  -0.00544259f,  0.0031461215f,  -0.002244495f, 0.00078965076f};
// GELU's slope Φ(x) + x e^(-x²/2) / √(2π) - 1/2, right up to 7e-5.
constexpr float SLOPE[TERMS] = {0.15943208f,  -0.090007994f, 0.086955378f, -0.09400524f, 0.098197203f, -0.093487993f,
                                0.068812134f, -0.036743495f, 0.029678173f, -0.029096885f, 0.01139503f};

inline Vector<float> fitted(Vector<float> x, const float (&terms)[TERMS]) {
    // A number that is none stays so.
    const auto held = (Vector<float>)_mm512_max_ps(_mm512_set1_ps(-REACH), _mm512_min_ps(_mm512_set1_ps(REACH), (__m512)x));
    const Vector<float> place = held * held * all(2 / (REACH * REACH)) - all(1.0f);
    Vector<float> y = all(terms[TERMS - 1]);
#pragma GCC unroll 11
    for (int n = TERMS - 2; n >= 0; --n)
        y = y * place + all(terms[n]);
    return held * y;
}

// x Φ(x)
inline Vector<float> gelu(Vector<float> x) { return x * (fitted(x, NORMAL) + all(0.5f)); }

inline Vector<float> gelu_slope(Vector<float> x) { return fitted(x, SLOPE) + all(0.5f); }

// y (M, N vectors), from M rows in 8 bits and the columns of y that begin at `column`.
template <int M, int N>
void tile(const Linear &w, const uint8_t *q, const Meaning *means, long column, float *y) {
    const int8_t *values = w.values + column * w.in;
    __m512i sums[M][N];
#pragma GCC unroll 6
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n)
            sums[m][n] = _mm512_setzero_si512();
    for (long i = 0; i < w.in; i += GROUP) {
        __m512i right[N];
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n)
            right[n] = _mm512_loadu_si512(values + n * COLUMNS * w.in + i * COLUMNS);
#pragma GCC unroll 6
        for (int m = 0; m < M; ++m) {
            int32_t four;
            std::memcpy(&four, q + m * w.in + i, sizeof four);
            const __m512i left = _mm512_set1_epi32(four);
#pragma GCC unroll 4
            for (int n = 0; n < N; ++n)
                // With the compiler's own function for it, GCC keeps the sums in memory.
                asm("vpdpbusd %2, %1, %0" : "+v"(sums[m][n]) : "v"(left), "v"(right[n]));
        }
    }
#pragma GCC unroll 4
    for (int n = 0; n < N; ++n) {
        const long at = column + n * COLUMNS;
        const __m512 by = _mm512_loadu_ps(w.scales + at), weights = _mm512_loadu_ps(w.sums + at);
        const __m512 bias = w.bias ? _mm512_loadu_ps(w.bias + at) : _mm512_setzero_ps();
#pragma GCC unroll 6
        for (int m = 0; m < M; ++m) {
            const __m512 rest = _mm512_mul_ps(_mm512_set1_ps(means[m].least), weights);
            const __m512 whole = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[m][n]), _mm512_set1_ps(means[m].scale), rest);
            _mm512_storeu_ps(y + m * w.out + at, _mm512_fmadd_ps(whole, by, bias));
        }
    }
}

template <int N>
void tiles(const Linear &w, const uint8_t *q, const Meaning *means, long count, long column, float *y) {
    long m = 0;
    for (; m + HIGH <= count; m += HIGH)
        tile<HIGH, N>(w, q + m * w.in, means + m, column, y + m * w.out);
    for (; m + 2 <= count; m += 2)
        tile<2, N>(w, q + m * w.in, means + m, column, y + m * w.out);
    if (m < count)
        tile<1, N>(w, q + m * w.in, means + m, column, y + m * w.out);
}

// Some rows through a layer; `room` has place for them in 8 bits, and what they mean.
void through(const Linear &w, const float *x, long count, float *y, float *room) {
    Meaning *means = (Meaning *)room;
    uint8_t *q = (uint8_t *)(means + TOGETHER);
    for (long m = 0; m < count; ++m)
        means[m] = in_bytes(x + m * w.in, w.in, q + m * w.in);
    long column = 0;
    for (; column + WIDE * COLUMNS <= w.out; column += WIDE * COLUMNS)
        tiles<WIDE>(w, q, means, count, column, y);
    for (; column < w.out; column += COLUMNS)
        tiles<1>(w, q, means, count, column, y);
}

inline long linear_room(long in) { return 2 * TOGETHER + TOGETHER * in / long(sizeof(float)); }

} // namespace

#endif
