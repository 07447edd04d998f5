// Vectors of numbers in the width of the processor that this is compiled for, through the compiler's own vector types.
// They become AVX-512, AVX2 or NEON instructions, or several narrower ones.
//
// Letters: T is what tensors hold (bf16, float or double), R what is computed in: float, or double for double.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif

// A number in bfloat16: the upper half of a float.
struct bf16 {
    uint16_t bits;
};

template <class T> struct Computed {
    using type = T;
};
template <> struct Computed<bf16> {
    using type = float;
};
template <class T> using Real = typename Computed<T>::type;

// A tag for the type of tensors.
template <class T> struct Kind {
    using type = T;
};

// Calls f with the type of the tensors: 0 is bf16, 1 float, 2 double.
template <class F> void with_type(int64_t kind, F f) {
    if (kind == 0)
        f(Kind<bf16>{});
    else if (kind == 1)
        f(Kind<float>{});
    else
        f(Kind<double>{});
}

constexpr double LOG2_E = 1.4426950408889634;

#define EXPORTED extern "C" __attribute__((visibility("default")))

template <class R> constexpr long LANES = VECTOR_BYTES / sizeof(R);
template <class R> struct VectorOf {
    typedef R type __attribute__((vector_size(VECTOR_BYTES)));
};
template <class R> using Vector = typename VectorOf<R>::type;

template <class R> inline Vector<R> load(const R *from) {
    Vector<R> x;
    std::memcpy(&x, from, sizeof x);
    return x;
}

template <class R> inline void store(R *to, Vector<R> x) { std::memcpy(to, &x, sizeof x); }

inline Vector<float> load_widened(const float *from) { return load(from); }
inline Vector<double> load_widened(const double *from) { return load(from); }
inline Vector<float> load_widened(const bf16 *from) {
    typedef uint16_t Halves __attribute__((vector_size(VECTOR_BYTES / 2)));
    Halves x;
    std::memcpy(&x, from, sizeof x);
    return (Vector<float>)(__builtin_convertvector(x, Vector<uint32_t>) << 16);
}

template <class R> inline Vector<R> all(R value) { return value - Vector<R>{}; }

inline float widened(bf16 x) {
    const uint32_t bits = uint32_t(x.bits) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}
inline float widened(float x) { return x; }
inline double widened(double x) { return x; }

inline void narrow(float x, float &to) { to = x; }
inline void narrow(double x, double &to) { to = x; }
// Rounds to the nearest, ties to even, as torch does. What is not a number stays so.
inline void narrow(float x, bf16 &to) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    to.bits = x == x ? uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16) : uint16_t(0x7fc0);
}

// The lanes of a, then of b, by their numbers.
template <class R, class I> inline Vector<R> chosen(Vector<R> a, Vector<R> b, I index) {
#if defined(__clang__)
    Vector<R> x;
    for (long l = 0; l < LANES<R>; ++l)
        x[l] = index[l] < LANES<R> ? a[index[l]] : b[index[l] - LANES<R>];
    return x;
#else
    return __builtin_shuffle(a, b, index);
#endif
}

// Exchanges the halves of neighbours of squares of side 2 S, in the rows of a square matrix.
template <class R, long S> inline void exchange(Vector<R> *rows) {
    using Index = std::conditional_t<sizeof(R) == 4, int32_t, int64_t>;
    Vector<Index> upper, lower;
    for (long l = 0; l < LANES<R>; ++l) {
        upper[l] = l & S ? LANES<R> + l - S : l;
        lower[l] = l & S ? LANES<R> + l : l + S;
    }
#pragma GCC unroll 16
    for (long i = 0; i < LANES<R>; ++i)
        if (!(i & S)) {
            const Vector<R> a = rows[i], b = rows[i + S];
            rows[i] = chosen<R>(a, b, upper);
            rows[i + S] = chosen<R>(a, b, lower);
        }
}

// Transposes a square of as many rows as a vector has lanes. After Eklundh 1972.
template <class R> inline void transpose(Vector<R> *rows) {
    exchange<R, 1>(rows);
    if constexpr (LANES<R> > 2)
        exchange<R, 2>(rows);
    if constexpr (LANES<R> > 4)
        exchange<R, 4>(rows);
    if constexpr (LANES<R> > 8)
        exchange<R, 8>(rows);
}

// Returns 2^x for x up to about 1; 0 for x below -126, where float has no normal numbers. Relative error below 2e-7.
inline Vector<float> power_of_2(Vector<float> x) {
    const Vector<float> low = all(-126.0f), shifter = all(12582912.0f); // 1.5 * 2^23: adding it rounds to integers
    const Vector<float> kept = x < low ? low : x;
    const Vector<float> rounded = (kept + shifter) - shifter;
    const Vector<float> rest = kept - rounded; // -0.5 to 0.5
    // The series of 2^rest.
    Vector<float> y = all(1.5403530e-4f);
    y = y * rest + all(1.3333558e-3f);
    y = y * rest + all(9.6181291e-3f);
    y = y * rest + all(5.5504109e-2f);
    y = y * rest + all(2.4022651e-1f);
    y = y * rest + all(6.9314718e-1f);
    y = y * rest + all(1.0f);
    const auto exponent = __builtin_convertvector(rounded, Vector<int32_t>) + 127;
    const auto scale = (Vector<float>)(exponent << 23);
    return x < low ? Vector<float>{} : y * scale;
}

inline Vector<double> power_of_2(Vector<double> x) {
    for (long i = 0; i < LANES<double>; ++i)
        x[i] = std::exp2(x[i]);
    return x;
}
