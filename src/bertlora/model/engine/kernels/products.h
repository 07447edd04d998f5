// Products of small matrices in float or double, in the layouts that the kernels need; `bf16.h` adds pairs in bf16.
//
// Letters: E is an element of A and B, R what is summed in.

#pragma once

#include "vectors.h"

constexpr long TALL = 8; // rows of a tile that stay in registers

// Rounds up to whole vectors.
template <class R> constexpr long up_to(long n) { return (n + LANES<R> - 1) / LANES<R> * LANES<R>; }

// How products of these elements are summed.
template <class E> struct Element {
    using Sum = E;

    static void add(Vector<E> &sum, Vector<E> left, Vector<E> right) { sum += left * right; }
};
template <class E> using Sum = typename Element<E>::Sum;

// C (M, N vectors) = A (M, inner) B (inner, N vectors), or is added to. A's element (m, i) is at m * across + i * along.
template <class E, int M, int N>
inline void tile(const E *a, long across, long along, const E *b, long b_row, Sum<E> *c, long c_row, long inner, bool add) {
    using R = Sum<E>;
    Vector<R> sums[M][N];
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n)
            sums[m][n] = add ? load(c + m * c_row + n * LANES<R>) : Vector<R>{};
    for (long i = 0; i < inner; ++i) {
        decltype(load(b)) right[N];
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n)
            right[n] = load(b + i * b_row + n * LANES<R>);
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m) {
            const auto left = all(a[m * across + i * along]);
#pragma GCC unroll 4
            for (int n = 0; n < N; ++n)
                Element<E>::add(sums[m][n], left, right[n]);
        }
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n)
            store(c + m * c_row + n * LANES<R>, sums[m][n]);
}

// `tile` for up to M rows.
template <class E, int M, int N>
inline void tile_of(long rows, const E *a, long across, long along, const E *b, long b_row, Sum<E> *c, long c_row, long inner,
                    bool add) {
    if (rows == M)
        tile<E, M, N>(a, across, along, b, b_row, c, c_row, inner, add);
    else if constexpr (M > 1)
        tile_of<E, M - 1, N>(rows, a, across, along, b, b_row, c, c_row, inner, add);
}

// `tile` for any number of rows.
template <class E, int N>
inline void tiles(const E *a, long across, long along, const E *b, long b_row, Sum<E> *c, long c_row, long rows, long inner,
                  bool add) {
    long m = 0;
    for (; m + TALL <= rows; m += TALL)
        tile<E, TALL, N>(a + m * across, across, along, b, b_row, c + m * c_row, c_row, inner, add);
    tile_of<E, TALL - 1, N>(rows - m, a + m * across, across, along, b, b_row, c + m * c_row, c_row, inner, add);
}

// C (rows, columns) = A B, or is added to; `columns` is a multiple of a vector's lanes.
template <class E>
void product(const E *a, long across, long along, const E *b, long b_row, Sum<E> *c, long c_row, long rows, long columns,
             long inner, bool add) {
    long n = 0;
    for (; n + 2 * LANES<Sum<E>> <= columns; n += 2 * LANES<Sum<E>>)
        tiles<E, 2>(a, across, along, b + n, b_row, c + n, c_row, rows, inner, add);
    if (n < columns)
        tiles<E, 1>(a, across, along, b + n, b_row, c + n, c_row, rows, inner, add);
}
