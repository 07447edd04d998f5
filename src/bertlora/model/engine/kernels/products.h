// Products of small matrices in float or double, in the layouts that the kernels need.

#pragma once

#include "vectors.h"

constexpr long TALL = 8; // rows of a tile that stay in registers

// Rounds up to whole vectors.
template <class R> constexpr long up_to(long n) { return (n + LANES<R> - 1) / LANES<R> * LANES<R>; }

// C (M, N vectors) = A (M, inner) B (inner, N vectors), or is added to. A's element (m, i) is at m * across + i * along.
template <class R, int M, int N>
inline void tile(const R *a, long across, long along, const R *b, long b_row, R *c, long c_row, long inner, bool add) {
    Vector<R> sums[M][N];
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n)
            sums[m][n] = add ? load(c + m * c_row + n * LANES<R>) : Vector<R>{};
    for (long i = 0; i < inner; ++i) {
        Vector<R> right[N];
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n)
            right[n] = load(b + i * b_row + n * LANES<R>);
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m) {
            const Vector<R> left = all(a[m * across + i * along]);
#pragma GCC unroll 4
            for (int n = 0; n < N; ++n)
                sums[m][n] += left * right[n];
        }
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n)
            store(c + m * c_row + n * LANES<R>, sums[m][n]);
}

// `tile` for up to M rows.
template <class R, int M, int N>
inline void tile_of(long rows, const R *a, long across, long along, const R *b, long b_row, R *c, long c_row, long inner,
                    bool add) {
    if (rows == M)
        tile<R, M, N>(a, across, along, b, b_row, c, c_row, inner, add);
    else if constexpr (M > 1)
        tile_of<R, M - 1, N>(rows, a, across, along, b, b_row, c, c_row, inner, add);
}

// `tile` for any number of rows.
template <class R, int N>
inline void tiles(const R *a, long across, long along, const R *b, long b_row, R *c, long c_row, long rows, long inner,
                  bool add) {
    long m = 0;
    for (; m + TALL <= rows; m += TALL)
        tile<R, TALL, N>(a + m * across, across, along, b, b_row, c + m * c_row, c_row, inner, add);
    tile_of<R, TALL - 1, N>(rows - m, a + m * across, across, along, b, b_row, c + m * c_row, c_row, inner, add);
}

// C (rows, columns) = A B, or is added to; `columns` is a multiple of a vector's lanes.
template <class R>
void product(const R *a, long across, long along, const R *b, long b_row, R *c, long c_row, long rows, long columns,
             long inner, bool add) {
    long n = 0;
    for (; n + 2 * LANES<R> <= columns; n += 2 * LANES<R>)
        tiles<R, 2>(a, across, along, b + n, b_row, c + n, c_row, rows, inner, add);
    if (n < columns)
        tiles<R, 1>(a, across, along, b + n, b_row, c + n, c_row, rows, inner, add);
}
