// Attention of packed texts, forward and backward: each text over itself, a head at a time.
//
//     S = q k' / sqrt(d) + bias      P = softmax(S)      o = P v
//     dP = g v'   dS = P (dP - rows of P dP)   gq = dS k      gk = dS' q      gv = P' g
//
// Some queries at a time see all keys, so the scores stay in the processor's cache, and the backward computes them again:
// Dao et al. 2022, "FlashAttention". All sums are in float. Exponentials are powers of 2: q is multiplied by log2(e) too.
//
// q, k, v, o and g are (tokens, heads, dim). A unit of work is one head of one text; threads share them out. The caller
// gives the working memory, so nothing is allocated here. The threads are those of the OpenMP that is loaded already.

#include "attention.h"
#include "bf16.h"
#include "fp16.h"
#include "products.h"

#include <algorithm>
#include <omp.h>
#include <type_traits>

namespace {

// Queries that are computed at a time. A text with more than FEW queries takes MANY, which needs fewer loads.
constexpr long FEW = 16, MANY = 32;

// Rows of a tensor (tokens, heads, dim), for one head.
template <class T> struct Rows {
    T *first;
    long stride; // numbers from one token to the next

    T *row(long token) const { return first + token * stride; }
    Rows after(long token) const { return {row(token), stride}; }
};

// Whether a row is whole vectors of the type computed in, so that products can read and write the tensor itself.
template <class T> bool is_plain(long dim) { return std::is_same_v<T, Real<T>> && dim % LANES<Real<T>> == 0; }

// `count` numbers, at most a vector of them, with zeros behind.
template <class T> Vector<Real<T>> part(const T *from, long count) {
    if (count >= LANES<Real<T>>)
        return load_widened(from);
    Vector<Real<T>> x{};
    for (long e = 0; e < count; ++e)
        x[e] = widened(from[e]);
    return x;
}

// Returns the rows in whole vectors: the tensor's own, or a copy in `room`.
template <class T> Rows<const Real<T>> whole(Rows<const T> x, long count, long dim, Real<T> *room) {
    if constexpr (std::is_same_v<T, Real<T>>)
        if (is_plain<T>(dim))
            return x;
    const long width = up_to<Real<T>>(dim);
    for (long i = 0; i < count; ++i)
        for (long e = 0; e < dim; e += LANES<Real<T>>)
            store(room + i * width + e, part(x.row(i) + e, dim - e));
    return {room, width};
}

// Returns where a product may write rows: into the tensor, or into `room`, from where `put` brings them.
template <class T> Rows<Real<T>> target(Rows<T> x, long dim, Real<T> *room) {
    if constexpr (std::is_same_v<T, Real<T>>)
        if (is_plain<T>(dim))
            return x;
    return {room, up_to<Real<T>>(dim)};
}

template <class T> void put(Rows<Real<T>> from, long count, long dim, Rows<T> x) {
    if (!is_plain<T>(dim))
        for (long i = 0; i < count; ++i)
            for (long e = 0; e < dim; ++e)
                narrow(from.row(i)[e], x.row(i)[e]);
}

// Writes rows, each times a factor, as columns (dim, Q); columns without a row are 0.
template <long Q, class T> void columns(Rows<const T> x, long count, long dim, Real<T> by, Real<T> *to) {
    using R = Real<T>;
    for (long i = 0; i < Q; i += LANES<R>)
        for (long e = 0; e < dim; e += LANES<R>) {
            Vector<R> square[LANES<R>];
            for (long l = 0; l < LANES<R>; ++l)
                square[l] = i + l < count ? part(x.row(i + l) + e, dim - e) * by : Vector<R>{};
            transpose<R>(square);
            for (long l = 0; l < LANES<R> && e + l < dim; ++l)
                store(to + (e + l) * Q + i, square[l]);
        }
}

// Some neighbouring keys.
struct Span {
    long begin, end;
};

// One head of one text. Matrices of scores are (keys, queries), so that a vector has one key of several queries.
template <class T> struct Unit {
    using R = Real<T>;
    Rows<const T> q, k, v;
    long queries, keys, dim, window;
    R scale;
    const R *bias; // of this head at distance 0, by the distance from query to key; none without

    // The keys that the query at this position sees: those at distances below `window`, if it is not 0.
    Span seen_by(long position) const {
        return {window && position >= window ? position - window + 1 : 0,
                window && position + window < keys ? position + window : keys};
    }

    template <long Q> void forward(Rows<T> out, R *log_sums, R *room) const {
        const long deep = up_to<R>(dim);
        R *asked = room, *seen = asked + dim * Q, *scores = seen + Q * deep, *rest = scores + keys * Q;
        const auto key_rows = whole<T>(k, keys, dim, rest), value_rows = whole<T>(v, keys, dim, rest + keys * deep);
        for (long first = 0; first < queries; first += Q) {
            const long count = queries - first < Q ? queries - first : Q;
            const Span span{seen_by(first).begin, seen_by(first + count - 1).end};
            const long width = span.end - span.begin;
            columns<Q, T>(q.after(first), count, dim, scale * R(LOG2_E), asked);
            product(key_rows.row(span.begin), key_rows.stride, 1L, asked, Q, scores, Q, width, Q, dim, false);
            mask<Q>(scores, first, count, span);
            R shifts[Q], sums[Q];
            soften<Q>(scores, width, shifts, sums);
            product(scores, 1L, Q, value_rows.row(span.begin), value_rows.stride, seen, deep, count, deep, width, false);
            for (long i = 0; i < count; ++i) {
                scaled(seen + i * deep, 1 / sums[i], out.row(first + i));
                if (log_sums)
                    log_sums[first + i] = shifts[i] + std::log2(sums[i]);
            }
        }
    }

    template <long Q>
    void backward(Rows<const T> g, const R *log_sums, Rows<T> gq, Rows<T> gk, Rows<T> gv, R *room) const {
        const long deep = up_to<R>(dim);
        R *asked = room, *wanted = asked + dim * Q, *weights = wanted + dim * Q, *changes = weights + keys * Q;
        R *rest = changes + keys * Q; // for what is not plain
        const auto key_rows = whole<T>(k, keys, dim, rest), value_rows = whole<T>(v, keys, dim, rest + keys * deep);
        const auto key_slopes = target<T>(gk, dim, rest + 2 * keys * deep);
        const auto value_slopes = target<T>(gv, dim, rest + 3 * keys * deep);
        R *block = rest + 4 * keys * deep;
        for (long i = 0; window && i < keys; ++i) {
            std::memset(gk.first ? key_slopes.row(i) : block, 0, deep * sizeof(R));
            std::memset(gv.first ? value_slopes.row(i) : block, 0, deep * sizeof(R));
        }
        for (long first = 0; first < queries; first += Q) {
            const long count = queries - first < Q ? queries - first : Q;
            const Span span{seen_by(first).begin, seen_by(first + count - 1).end};
            const long width = span.end - span.begin;
            const bool more = window || first; // what keys and values have from other queries
            const auto query_rows = whole<T>(q.after(first), count, dim, block);
            const auto slope_rows = whole<T>(g.after(first), count, dim, block + Q * deep);
            columns<Q, R>(query_rows, count, dim, scale * R(LOG2_E), asked);
            columns<Q, R>(slope_rows, count, dim, R(1), wanted);
            product(key_rows.row(span.begin), key_rows.stride, 1L, asked, Q, weights, Q, width, Q, dim, false);
            product(value_rows.row(span.begin), value_rows.stride, 1L, wanted, Q, changes, Q, width, Q, dim, false);
            mask<Q>(weights, first, count, span);
            R shifts[Q] = {};
            std::memcpy(shifts, log_sums + first, count * sizeof(R));
            slope<Q>(weights, changes, width, shifts);
            if (gq.first) {
                const auto slopes = target<T>(gq.after(first), dim, block + 2 * Q * deep);
                product(changes, 1L, Q, key_rows.row(span.begin), key_rows.stride, slopes.first, slopes.stride, count, deep,
                        width, false);
                put<T>(slopes, count, dim, gq.after(first));
            }
            if (gk.first)
                product(changes, Q, 1L, query_rows.first, query_rows.stride, key_slopes.row(span.begin), key_slopes.stride,
                        width, deep, count, more);
            if (gv.first)
                product(weights, Q, 1L, slope_rows.first, slope_rows.stride, value_slopes.row(span.begin),
                        value_slopes.stride, width, deep, count, more);
        }
        if (gk.first)
            put<T>(key_slopes, keys, dim, gk);
        if (gv.first)
            put<T>(value_slopes, keys, dim, gv);
    }

  private:
    void scaled(const R *from, R by, T *to) const {
        long e = 0;
        if constexpr (std::is_same_v<T, R>)
            for (; e + LANES<R> <= dim; e += LANES<R>)
                store(to + e, load(from + e) * by);
        for (; e < dim; ++e)
            narrow(from[e] * by, to[e]);
    }

    // Replaces scores by 2^(score - maximum of the query).
    template <long Q> static void soften(R *scores, long width, R *shifts, R *sums) {
        for (long n = 0; n < Q; n += LANES<R>) {
            Vector<R> most = load(scores + n), total{};
            for (long j = 1; j < width; ++j) {
                const Vector<R> x = load(scores + j * Q + n);
                most = x > most ? x : most;
            }
            for (long j = 0; j < width; ++j) {
                const Vector<R> x = power_of_2(load(scores + j * Q + n) - most);
                store(scores + j * Q + n, x);
                total += x;
            }
            store(shifts + n, most);
            store(sums + n, total);
        }
    }

    // Replaces scores by P, and the change of P by the change of S, times `scale`.
    template <long Q> void slope(R *scores, R *changes, long width, const R *log_sums) const {
        for (long n = 0; n < Q; n += LANES<R>) {
            const Vector<R> shift = load(log_sums + n);
            Vector<R> due{}, total{};
            for (long j = 0; j < width; ++j) {
                const Vector<R> weight = power_of_2(load(scores + j * Q + n) - shift);
                store(scores + j * Q + n, weight);
                due += weight * load(changes + j * Q + n);
                total += weight;
            }
            // The logarithm is rounded, so the weights of a query do not quite add up to 1.
            const Vector<R> right = R(1) / total;
            due *= right;
            for (long j = 0; j < width; ++j) {
                const Vector<R> weight = load(scores + j * Q + n) * right;
                store(scores + j * Q + n, weight);
                store(changes + j * Q + n, weight * scale * (load(changes + j * Q + n) - due));
            }
        }
    }

    // Adds the bias to the scores of some queries for a span of keys, and hides the keys that a query does not see.
    template <long Q> void mask(R *scores, long first, long count, Span span) const {
        if (bias)
            for (long j = span.begin; j < span.end; ++j)
                for (long i = 0; i < count; ++i)
                    scores[(j - span.begin) * Q + i] += R(LOG2_E) * bias[j - first - i];
        for (long i = 0; window && i < count; ++i) {
            const Span seen = seen_by(first + i);
            for (long j = span.begin; j < seen.begin; ++j)
                scores[(j - span.begin) * Q + i] = -INFINITY;
            for (long j = seen.end; j < span.end; ++j)
                scores[(j - span.begin) * Q + i] = -INFINITY;
        }
    }
};

// Numbers of working memory that a thread needs.
template <class R> long room_of(long longest, long dim, bool backward) {
    const long deep = up_to<R>(dim);
    return backward ? MANY * (2 * dim + 2 * longest + 3 * deep) + 4 * longest * deep
                    : MANY * (dim + deep + longest) + 2 * longest * deep;
}

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

// The rows of a tensor for one head, from this token on; none without a tensor.
template <class T> Rows<T> rows_of(const Shape &s, void *x, long stride, long token, long head) {
    return {x ? (T *)x + token * stride + head * s.dim : nullptr, stride};
}

// What the processor multiplies twice as fast as float: 2 is fp16, 1 bf16, 0 neither.
int64_t paired_kind() {
#ifdef HAS_FP16
    if (__builtin_cpu_supports("avx512fp16"))
        return 2;
#endif
#ifdef HAS_PAIRED_ATTENTION
    return __builtin_cpu_supports("avx512bf16") ? 1 : 0;
#else
    return 0;
#endif
}

// Calls f with the unit in 16 bits, and gives true; gives false where they do not serve. A few queries would fill half of the
// vectors only.
template <class T, class F> bool in_half(const Shape &s, const Unit<T> &unit, Real<T> *room, F f) {
#ifdef HAS_PAIRED_ATTENTION
    if constexpr (std::is_same_v<Real<T>, float>) {
        const auto tokens = [&](Rows<const T> x, long count) { return paired::Tokens<T>{x.first, x.stride, count, s.dim}; };
        const auto tried = [&](auto arithmetic) {
            const paired::Unit<T, decltype(arithmetic)> same{tokens(unit.q, unit.queries), tokens(unit.k, unit.keys),
                                                             tokens(unit.v, unit.keys), unit.scale * float(LOG2_E)};
            const bool serves = same.serves(room);
            if (serves)
                f(same);
            return serves;
        };
        if (s.half && unit.queries > FEW && s.dim % 32 == 0 && !s.bias && !s.window) {
#ifdef HAS_FP16
            if (s.half == 2)
                return tried(paired::Fp16{});
#endif
            return tried(paired::Bf16{});
        }
    }
#endif
    return false;
}

// Units that a thread takes at a time: all heads of a text, whose numbers are neighbours, if there are enough texts.
long together(const Shape &s) { return s.texts >= 4 * s.threads ? s.heads : 1; }

template <class T>
void forward(Kind<T>, const Shape &s, const void *q, const void *k, const void *v, void *out, void *log_sums, void *rooms) {
    using R = Real<T>;
#pragma omp parallel num_threads(s.threads)
    {
        R *room = (R *)rooms + s.room * omp_get_thread_num();
#pragma omp for schedule(dynamic, together(s))
        for (long n = 0; n < s.texts * s.heads; ++n) {
            const long text = n / s.heads, head = n % s.heads, asking = s.one_query ? text : s.offsets[text];
            // The logarithms are (heads, queries).
            const long all_queries = s.one_query ? s.texts : s.offsets[s.texts];
            R *own = log_sums ? (R *)log_sums + head * all_queries + asking : nullptr;
            const auto unit = unit_of<T>(s, q, k, v, text, head);
            const auto outs = rows_of<T>(s, out, s.heads * s.dim, asking, head);
            if (in_half(s, unit, room, [&](const auto &same) { same.forward(outs.first, outs.stride, own, room); }))
                continue;
            unit.queries > FEW ? unit.template forward<MANY>(outs, own, room) : unit.template forward<FEW>(outs, own, room);
        }
    }
}

template <class T>
void backward(Kind<T>, const Shape &s, const void *q, const void *k, const void *v, const void *g, const void *log_sums,
              void *gq, void *gk, void *gv, void *rooms) {
    using R = Real<T>;
#pragma omp parallel num_threads(s.threads)
    {
        R *room = (R *)rooms + s.room * omp_get_thread_num();
#pragma omp for schedule(dynamic, together(s))
        for (long n = 0; n < s.texts * s.heads; ++n) {
            const long text = n / s.heads, head = n % s.heads, start = s.offsets[text];
            const long asking = s.one_query ? text : start;
            const long all_queries = s.one_query ? s.texts : s.offsets[s.texts];
            const Rows<T> g_rows = rows_of<T>(s, (void *)g, s.heads * s.dim, asking, head);
            const Rows<const T> gs{g_rows.first, g_rows.stride};
            const R *own = (const R *)log_sums + head * all_queries + asking;
            const auto unit = unit_of<T>(s, q, k, v, text, head);
            const Rows<T> q_slopes = rows_of<T>(s, gq, s.gq_stride, asking, head);
            const Rows<T> k_slopes = rows_of<T>(s, gk, s.gk_stride, start, head);
            const Rows<T> v_slopes = rows_of<T>(s, gv, s.gv_stride, start, head);
            const auto backward_in_half = [&](const auto &same) {
                same.backward({gs.first, gs.stride, unit.queries, s.dim}, own, q_slopes.first, q_slopes.stride, k_slopes.first,
                              k_slopes.stride, v_slopes.first, v_slopes.stride, room);
            };
            if (in_half(s, unit, room, backward_in_half))
                continue;
            if (unit.queries > FEW)
                unit.template backward<MANY>(gs, own, q_slopes, k_slopes, v_slopes, room);
            else
                unit.template backward<FEW>(gs, own, q_slopes, k_slopes, v_slopes, room);
        }
    }
}

} // namespace

EXPORTED int64_t half_serves() { return paired_kind(); }

EXPORTED int64_t attention_room(int64_t kind, int64_t longest, int64_t dim, int64_t backward) {
    const long room = kind == 2 ? room_of<double>(longest, dim, backward) : room_of<float>(longest, dim, backward);
#ifdef HAS_PAIRED_ATTENTION
    return std::max(room, paired::room(longest, dim));
#else
    return room;
#endif
}

EXPORTED void attention_forward(int64_t kind, const Shape *s, const void *q, const void *k, const void *v, void *out,
                       void *log_sums, void *rooms) {
    with_type(kind, [&](auto of) { forward(of, *s, q, k, v, out, log_sums, rooms); });
}

EXPORTED void attention_backward(int64_t kind, const Shape *s, const void *q, const void *k, const void *v, const void *g,
                        const void *log_sums, void *gq, void *gk, void *gv, void *rooms) {
    with_type(kind, [&](auto of) { backward(of, *s, q, k, v, g, log_sums, gq, gk, gv, rooms); });
}
