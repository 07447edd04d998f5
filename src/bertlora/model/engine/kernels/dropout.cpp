// Dropout masks. A place's random number is a hash of its number and a seed, so threads share the places out freely.
//
// The hash is two rounds of "lowbias32": Wellons 2018, "Prospecting for hash functions".

#include "vectors.h"

#include <omp.h>

namespace {

struct Draw {
    int64_t count, threads;
    uint32_t seed[2];
    double rate; // of dropped places, below 1
};

template <class I> I hashed(I x) {
    x ^= x >> 16;
    x *= 0x7feb352d;
    x ^= x >> 15;
    x *= 0x846ca68b;
    return x ^ x >> 16;
}

template <class T> void draw(Kind<T>, const Draw &d, T *mask) {
    constexpr long WIDE = LANES<uint32_t>;
    const auto limit = uint32_t(d.rate * 4294967296.0);
    const float kept = 1 / (1 - d.rate);
    Vector<uint32_t> ahead;
    for (long l = 0; l < WIDE; ++l)
        ahead[l] = l;
    const auto value = [=](long first) {
        const Vector<uint32_t> places = ahead + uint32_t(first);
        const auto drawn = hashed<Vector<uint32_t>>(hashed<Vector<uint32_t>>(places ^ d.seed[0]) + d.seed[1]);
        return drawn < limit ? Vector<float>{} : all(kept);
    };
    const long whole = d.count / WIDE * WIDE;
#pragma omp parallel for num_threads(d.threads) schedule(static)
    for (long first = 0; first < whole; first += WIDE) {
        const Vector<float> values = value(first);
        if constexpr (std::is_same_v<T, float>)
            store(mask + first, values);
        else
            for (long l = 0; l < WIDE; ++l)
                narrow(values[l], mask[first + l]);
    }
    for (long i = whole; i < d.count; ++i)
        narrow(value(whole)[i - whole], mask[i]);
}

} // namespace

EXPORTED void dropout_draw(int64_t kind, const Draw *d, void *mask, void *) {
    with_type(kind, [&](auto of) { draw(of, *d, (typename decltype(of)::type *)mask); });
}
