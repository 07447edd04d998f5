// Attention of packed texts, forward and backward: each text over itself, a head at a time.
//
//     S = q k' / sqrt(d) + bias      P = softmax(S)      o = P v
//     D = rows of g o         dS = P (g v' - D)   gq = dS k      gk = dS' q      gv = P' g
//
// Some queries at a time see all keys, so the scores stay in the processor's cache, and the backward computes them again:
// Dao et al. 2022, "FlashAttention". All sums are in float. Exponentials are powers of 2: q is multiplied by log2(e) too.
//
// q, k, v, o and g are (tokens, heads, dim). A unit of work is one head of one text; threads share them out. The caller
// gives the working memory, so nothing is allocated here. The threads are those of the OpenMP that is loaded already.

#include "products.h"

#include <omp.h>

namespace {

constexpr long QUERIES = 16; // computed at a time
constexpr double LOG2_E = 1.4426950408889634;

// The numbers from one row to the next: an odd number of vectors. Rows at a power of 2 from each other would take the same
// few places of the nearest cache.
template <class R> constexpr long spread(long width) { return width | LANES<R>; }

// Rows of a tensor (tokens, heads, dim), for one head.
template <class T> struct Rows {
    T *first;
    long stride; // numbers from one token to the next

    T *row(long token) const { return first + token * stride; }
    Rows after(long token) const { return {row(token), stride}; }
};

template <class T> void read(Rows<const T> x, long count, long dim, long width, Real<T> by, Real<T> *to) {
    for (long i = 0; i < count; ++i) {
        const T *from = x.row(i);
        for (long e = 0; e < dim; ++e)
            to[i * width + e] = widened(from[e]) * by;
        for (long e = dim; e < width; ++e)
            to[i * width + e] = 0;
    }
}

template <class T> void read_transposed(Rows<const T> x, long count, long dim, long width, Real<T> *to) {
    for (long i = 0; i < count; ++i) {
        const T *from = x.row(i);
        for (long e = 0; e < dim; ++e)
            to[e * width + i] = widened(from[e]);
    }
    for (long e = 0; e < dim; ++e)
        for (long i = count; i < width; ++i)
            to[e * width + i] = 0;
}

template <class T> void write(const Real<T> *from, long count, long dim, long width, Real<T> by, Rows<T> x) {
    for (long i = 0; i < count; ++i)
        for (long e = 0; e < dim; ++e)
            narrow(from[i * width + e] * by, x.row(i)[e]);
}

// Some neighbouring keys.
struct Span {
    long begin, end;
};

// One head of one text.
template <class T> struct Unit {
    using R = Real<T>;
    Rows<const T> q, k, v;
    long queries, keys, dim, window;
    R scale;
    const R *bias; // of this head at distance 0, by the distance from query to key; none without

    long key_stride() const { return spread<R>(up_to<R>(keys)); }
    long dim_width() const { return up_to<R>(dim); }

    // The keys that the query at this position sees: those at distances below `window`, if it is not 0.
    Span seen_by(long position) const {
        return {window && position >= window ? position - window + 1 : 0,
                window && position + window < keys ? position + window : keys};
    }

    // All that some queries see, from the beginning of a vector on.
    Span seen_by_some(long first, long count) const {
        return {seen_by(first).begin / LANES<R> * LANES<R>, seen_by(first + count - 1).end};
    }

    void forward(Rows<T> out, R *log_sums, R *room) const {
        const long apart = key_stride(), deep = dim_width();
        R *columns = room, *values = columns + dim * apart, *asked = values + keys * deep;
        R *scores = asked + QUERIES * deep, *seen = scores + QUERIES * apart;
        read_transposed<T>(k, keys, dim, apart, columns);
        read<T>(v, keys, dim, deep, R(1), values);
        for (long first = 0; first < queries; first += QUERIES) {
            const long count = queries - first < QUERIES ? queries - first : QUERIES;
            const Span span = seen_by_some(first, count);
            const long width = span.end - span.begin;
            read<T>(q.after(first), count, dim, deep, scale * R(LOG2_E), asked);
            product(asked, deep, 1L, columns + span.begin, apart, scores, apart, count, up_to<R>(width), dim, false);
            R sums[QUERIES];
            for (long i = 0; i < count; ++i) {
                const R most = softened(scores + i * apart, first + i, span, sums[i]);
                if (log_sums)
                    log_sums[first + i] = most + std::log2(sums[i]);
            }
            product(scores, apart, 1L, values + span.begin * deep, deep, seen, deep, count, deep, width, false);
            for (long i = 0; i < count; ++i)
                write<T>(seen + i * deep, 1, dim, deep, 1 / sums[i], out.after(first + i));
        }
    }

    void backward(Rows<const T> g, Rows<const T> out, const R *log_sums, Rows<T> gq, Rows<T> gk, Rows<T> gv,
                  R *room) const {
        const long apart = key_stride(), deep = dim_width();
        R *key_columns = room, *value_columns = key_columns + dim * apart, *key_rows = value_columns + dim * apart;
        R *key_slopes = key_rows + keys * deep, *value_slopes = key_slopes + keys * deep;
        R *asked = value_slopes + keys * deep, *wanted = asked + QUERIES * deep, *slopes = wanted + QUERIES * deep;
        R *weights = slopes + QUERIES * deep, *changes = weights + QUERIES * apart;
        read_transposed<T>(k, keys, dim, apart, key_columns);
        read_transposed<T>(v, keys, dim, apart, value_columns);
        read<T>(k, keys, dim, deep, R(1), key_rows);
        std::memset(key_slopes, 0, 2 * keys * deep * sizeof(R)); // and value_slopes
        for (long first = 0; first < queries; first += QUERIES) {
            const long count = queries - first < QUERIES ? queries - first : QUERIES;
            const Span span = seen_by_some(first, count);
            const long width = span.end - span.begin, wide = up_to<R>(width), at = span.begin * deep;
            read<T>(q.after(first), count, dim, deep, scale * R(LOG2_E), asked);
            read<T>(g.after(first), count, dim, deep, R(1), wanted);
            product(asked, deep, 1L, key_columns + span.begin, apart, weights, apart, count, wide, dim, false);
            product(wanted, deep, 1L, value_columns + span.begin, apart, changes, apart, count, wide, dim, false);
            for (long i = 0; i < count; ++i) {
                R due = 0;
                for (long e = 0; e < dim; ++e)
                    due += wanted[i * deep + e] * widened(out.row(first + i)[e]);
                sloped(weights + i * apart, changes + i * apart, first + i, span, log_sums[first + i], due);
            }
            if (gq.first) {
                product(changes, apart, 1L, key_rows + at, deep, slopes, deep, count, deep, width, false);
                write<T>(slopes, count, dim, deep, scale, gq.after(first));
            }
            if (gk.first)
                product(changes, 1L, apart, asked, deep, key_slopes + at, deep, width, deep, count, true);
            if (gv.first)
                product(weights, 1L, apart, wanted, deep, value_slopes + at, deep, width, deep, count, true);
        }
        if (gk.first)
            write<T>(key_slopes, keys, dim, deep, R(1 / LOG2_E), gk);
        if (gv.first)
            write<T>(value_slopes, keys, dim, deep, R(1), gv);
    }

  private:
    // Replaces a query's scores for a span of keys by 2^(score - maximum), 0 where it sees no key. Returns the maximum.
    R softened(R *scores, long position, Span span, R &sum) const {
        const long wide = masked(scores, position, span);
        Vector<R> most = load(scores);
        for (long j = LANES<R>; j < wide; j += LANES<R>) {
            const Vector<R> x = load(scores + j);
            most = x > most ? x : most;
        }
        const R shift = largest_of<R>(most);
        Vector<R> total{};
        for (long j = 0; j < wide; j += LANES<R>) {
            const Vector<R> x = power_of_2(load(scores + j) - shift);
            store(scores + j, x);
            total += x;
        }
        sum = sum_of<R>(total);
        return shift;
    }

    // Replaces a query's scores by P, and the change of P by the change of S.
    void sloped(R *scores, R *changes, long position, Span span, R log_sum, R due) const {
        const long wide = masked(scores, position, span);
        for (long j = 0; j < wide; j += LANES<R>) {
            const Vector<R> weight = power_of_2(load(scores + j) - log_sum);
            store(scores + j, weight);
            store(changes + j, weight * (load(changes + j) - due));
        }
    }

    // Adds the bias to a query's scores for a span of keys. Hides the keys that it does not see, and what is behind the
    // span in the last vector. Returns the width of whole vectors.
    long masked(R *scores, long position, Span span) const {
        const Span seen = seen_by(position);
        const long wide = up_to<R>(span.end - span.begin);
        if (bias)
            for (long j = span.begin; j < span.end; ++j)
                scores[j - span.begin] += R(LOG2_E) * bias[j - position];
        for (long j = span.begin; j < seen.begin; ++j)
            scores[j - span.begin] = -INFINITY;
        for (long j = seen.end - span.begin; j < wide; ++j)
            scores[j] = -INFINITY;
        return wide;
    }
};

// Numbers of working memory that a thread needs.
template <class R> long room_of(long longest, long dim, bool backward) {
    const long apart = spread<R>(up_to<R>(longest)), deep = up_to<R>(dim);
    return backward ? 2 * dim * apart + 3 * longest * deep + QUERIES * (3 * deep + 2 * apart)
                    : dim * apart + longest * deep + QUERIES * (2 * deep + apart);
}

// What both directions are given: the texts, where they begin, and how the tensors lie in memory.
struct Shape {
    const int32_t *offsets; // (texts + 1)
    const void *bias;       // (heads, distances), of the type computed in; none without
    int64_t texts, heads, dim, one_query, window, distances, q_stride, k_stride, v_stride, room, threads;
    double scale;
};

template <class T> Unit<T> unit_of(const Shape &s, const void *q, const void *k, const void *v, long text, long head) {
    const long start = s.offsets[text], keys = s.offsets[text + 1] - start;
    const long asking = s.one_query ? text : start, at = head * s.dim;
    const auto *bias = (const Real<T> *)s.bias;
    return {{(const T *)q + asking * s.q_stride + at, s.q_stride},
            {(const T *)k + start * s.k_stride + at, s.k_stride},
            {(const T *)v + start * s.v_stride + at, s.v_stride},
            s.one_query ? 1 : keys,
            keys,
            s.dim,
            s.window,
            Real<T>(s.scale),
            bias ? bias + head * s.distances + s.distances / 2 : nullptr};
}

// The rows of a tensor without gaps for one head, from this token on; none without a tensor.
template <class T> Rows<T> dense(const Shape &s, void *x, long token, long head) {
    return {x ? (T *)x + (token * s.heads + head) * s.dim : nullptr, s.heads * s.dim};
}

template <class T>
void forward(Kind<T>, const Shape &s, const void *q, const void *k, const void *v, void *out, void *log_sums, void *rooms) {
    using R = Real<T>;
#pragma omp parallel num_threads(s.threads)
    {
        R *room = (R *)rooms + s.room * omp_get_thread_num();
#pragma omp for schedule(dynamic)
        for (long n = 0; n < s.texts * s.heads; ++n) {
            const long text = n / s.heads, head = n % s.heads, asking = s.one_query ? text : s.offsets[text];
            // The logarithms are (heads, queries).
            const long all_queries = s.one_query ? s.texts : s.offsets[s.texts];
            R *own = log_sums ? (R *)log_sums + head * all_queries + asking : nullptr;
            unit_of<T>(s, q, k, v, text, head).forward(dense<T>(s, out, asking, head), own, room);
        }
    }
}

template <class T>
void backward(Kind<T>, const Shape &s, const void *q, const void *k, const void *v, const void *g, const void *out,
              const void *log_sums, void *gq, void *gk, void *gv, void *rooms) {
    using R = Real<T>;
#pragma omp parallel num_threads(s.threads)
    {
        R *room = (R *)rooms + s.room * omp_get_thread_num();
#pragma omp for schedule(dynamic)
        for (long n = 0; n < s.texts * s.heads; ++n) {
            const long text = n / s.heads, head = n % s.heads, start = s.offsets[text];
            const long asking = s.one_query ? text : start;
            const long all_queries = s.one_query ? s.texts : s.offsets[s.texts];
            const Rows<T> gs = dense<T>(s, (void *)g, asking, head), outs = dense<T>(s, (void *)out, asking, head);
            unit_of<T>(s, q, k, v, text, head)
                .backward({gs.first, gs.stride}, {outs.first, outs.stride},
                          (const R *)log_sums + head * all_queries + asking, dense<T>(s, gq, asking, head),
                          dense<T>(s, gk, start, head), dense<T>(s, gv, start, head), room);
        }
    }
}

} // namespace

EXPORTED int64_t attention_room(int64_t kind, int64_t longest, int64_t dim, int64_t backward) {
    return kind == 2 ? room_of<double>(longest, dim, backward) : room_of<float>(longest, dim, backward);
}

EXPORTED void attention_forward(int64_t kind, const Shape *s, const void *q, const void *k, const void *v, void *out,
                       void *log_sums, void *rooms) {
    with_type(kind, [&](auto of) { forward(of, *s, q, k, v, out, log_sums, rooms); });
}

EXPORTED void attention_backward(int64_t kind, const Shape *s, const void *q, const void *k, const void *v, const void *g,
                        const void *out, const void *log_sums, void *gq, void *gk, void *gv, void *rooms) {
    with_type(kind, [&](auto of) { backward(of, *s, q, k, v, g, out, log_sums, gq, gk, gv, rooms); });
}
