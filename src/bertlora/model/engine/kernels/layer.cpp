// A layer of BERT in 8 bits: one call forward, and one backward.
//
//     x ─ query, key, value ─ attention ─ output projection, norm, feed-forward, norm ─ y
//
// Rows behind the last text are filler: they are 0 in y and in the gradient of x, and nothing is computed for them. What the
// backward needs lies in one block of memory, which the caller keeps.

#include "attention.h"
#include "layer_parts.h"

#if defined(__AVX512F__)

namespace {

// Query, key and value of the same tokens are one product. Or the query of first tokens is one, and key and value of all
// tokens are another.
struct Layer {
    Adapted asking[2];
    int64_t products;
    Adapted out, up, down;
    Norm first, second;
    int64_t heads;

    long width() const { return out.forward.in; }
    long dim() const { return width() / heads; }
};

// The texts, which begin at these offsets; `tokens` is all of them, and `rows` those of x. The masks are for the inputs of
// the layers, in their order, and of dropout after `out` and `down`; they may be null. `keep` says that a gradient is wanted.
struct Pass {
    const int32_t *offsets;
    int64_t texts, tokens, rows, longest, threads, half, keep;
    const float *masks[7];
    double seconds[3]; // what the parts took: query, key and value; attention; the rest
};

long queries(const Layer &l, const Pass &p) { return l.products == 2 ? p.texts : p.tokens; }

// Rows through a product of `asking`, and after attention.
Work asked(const Layer &l, const Pass &p, long n) { return {n == 0 ? queries(l, p) : p.tokens, p.threads}; }
Work after(const Layer &l, const Pass &p) { return {queries(l, p), p.threads}; }

// Hands out parts of some memory, whole vectors each. Without memory it only counts.
struct Shelf {
    float *memory;
    long used = 0;

    float *part(long numbers) {
        float *found = memory ? memory + used : nullptr;
        used += up_to<float>(numbers);
        return found;
    }
};

// What a forward writes: x of first tokens, if the query is theirs; what `asking` gives, with A (m ⊙ x); attention's output
// and logarithms of sums; and what the rest keeps.
struct Held {
    float *first, *made[2], *low[2], *a, *log_sums;
    Kept kept;

    Held(const Layer &l, const Pass &p, Shelf &shelf) : kept() {
        const long rows = queries(l, p), width = l.width(), wide = l.up.forward.out;
        const auto low_of = [&](const Adapted &layer, long count) { return shelf.part(count * deep_of(layer.updates)); };
        first = l.products == 2 ? shelf.part(rows * width) : nullptr;
        for (long n = 0; n < l.products; ++n) {
            made[n] = shelf.part(asked(l, p, n).rows * l.asking[n].forward.out);
            low[n] = low_of(l.asking[n], asked(l, p, n).rows);
        }
        a = shelf.part(rows * width);
        log_sums = p.keep ? shelf.part(rows * l.heads) : nullptr;
        if (!p.keep)
            return;
        kept.first = shelf.part(rows * width);
        kept.first_scale = shelf.part(rows);
        kept.slope = (uint16_t *)shelf.part(rows * wide / 2);
        kept.active = l.down.updates.parts ? (uint16_t *)shelf.part(rows * wide / 2) : nullptr;
        kept.second = shelf.part(rows * width);
        kept.second_scale = shelf.part(rows);
        kept.low_out = low_of(l.out, rows);
        kept.low_up = low_of(l.up, rows);
        kept.low_down = low_of(l.down, rows);
    }
};

Adapted masked_by(Adapted layer, const float *mask) {
    layer.mask = mask;
    return layer;
}

Adapted asking_of(const Layer &l, const Pass &p, long n) { return masked_by(l.asking[n], p.masks[n]); }

Rest rest_of(const Layer &l, const Pass &p, const Kept &kept) {
    return {masked_by(l.out, p.masks[2]), masked_by(l.up, p.masks[3]), masked_by(l.down, p.masks[4]), l.first, l.second,
            p.masks[5],                   p.masks[6],                  kept};
}

// Query, key and value in what `asking` gives, or in its gradients.
struct Heads {
    float *q, *k, *v;
    long q_stride, others_stride;

    Heads(const Layer &l, float *const (&made)[2]) {
        const long width = l.width();
        q = made[0];
        k = l.products == 2 ? made[1] : q + width;
        v = k + width;
        q_stride = l.asking[0].forward.out;
        others_stride = l.asking[l.products - 1].forward.out;
    }
};

Shape shape_of(const Layer &l, const Pass &p, const Heads &h, bool backward) {
    Shape s{};
    s.offsets = p.offsets;
    s.texts = p.texts;
    s.heads = l.heads;
    s.dim = l.dim();
    s.one_query = l.products == 2;
    s.q_stride = s.gq_stride = h.q_stride;
    s.k_stride = s.v_stride = s.gk_stride = s.gv_stride = h.others_stride;
    s.room = attention_room(1, p.longest, s.dim, backward);
    s.threads = p.threads;
    s.half = p.half;
    s.scale = 1 / std::sqrt(double(s.dim));
    return s;
}

// Working memory of the parts, which run one after the other.
long parts_room(const Layer &l, const Pass &p, bool backward) {
    long most = p.threads * attention_room(1, p.longest, l.dim(), backward);
    const auto room = [&](long numbers) { most = numbers > most ? numbers : most; };
    for (long n = 0; n < l.products; ++n)
        room(plan_of(l.asking[n]).numbers(asked(l, p, n)));
    room(plan_of(rest_of(l, p, {})).numbers(after(l, p)));
    return most;
}

// What a backward needs on the way: gradients of x by the sum, of attention's output, of what `asking` gave, and of x of
// first tokens.
struct Slopes {
    float *sum, *a, *made[2], *first;

    Slopes(const Layer &l, const Pass &p, Shelf &shelf) {
        const long numbers = queries(l, p) * l.width();
        sum = shelf.part(numbers);
        a = shelf.part(numbers);
        for (long n = 0; n < l.products; ++n)
            made[n] = shelf.part(asked(l, p, n).rows * l.asking[n].forward.out);
        first = shelf.part(l.products == 2 ? numbers : 0);
    }
};

// The layer with the gradients of A and B in this memory, in the order of the layers.
Layer with_gradients(Layer l, float *to) {
    for (Adapted *layer : {&l.asking[0], &l.asking[1], &l.out, &l.up, &l.down})
        for (long n = 0; n < layer->updates.parts; ++n) {
            Trained &part = layer->updates.part[n];
            part.ga = to;
            part.gb = part.ga + part.rank * layer->updates.in;
            to = part.gb + part.rank * part.width;
        }
    return l;
}

void clear_filler(const Pass &p, long width, float *x) {
    std::memset(x + p.tokens * width, 0, (p.rows - p.tokens) * width * sizeof *x);
}

// Adds what time has passed since the last call.
struct Watch {
    double *seconds, began = omp_get_wtime();

    void lap(long part) {
        const double now = omp_get_wtime();
        seconds[part] += now - began;
        began = now;
    }
};

} // namespace

// The numbers of memory that a forward fills.
EXPORTED int64_t layer_held(int64_t, const Pass *p, const Layer *l) {
    Shelf shelf{nullptr};
    Held(*l, *p, shelf);
    return shelf.used;
}

// The numbers of working memory.
EXPORTED int64_t layer_room(int64_t, const Pass *p, const Layer *l, int64_t backward) {
    Shelf shelf{nullptr};
    if (backward)
        Slopes(*l, *p, shelf);
    return shelf.used + parts_room(*l, *p, backward);
}

// y is (rows, width) as x is, or (texts, width), of first tokens.
EXPORTED void layer_forward(int64_t, Pass *pass, const Layer *layer, const float *x, float *y, float *held, float *rooms) {
    const Layer &l = *layer;
    const Pass &p = *pass;
    const long width = l.width();
    Watch watch{pass->seconds};
    Shelf shelf{held};
    const Held h(l, p, shelf);
    for (long n = 0; h.first && n < p.texts; ++n)
        std::memcpy(h.first + n * width, x + p.offsets[n] * width, width * sizeof *x);
    const float *inputs[] = {h.first ? h.first : x, x};
    for (long n = 0; n < l.products; ++n)
        linear(asked(l, p, n), asking_of(l, p, n), inputs[n], h.made[n], h.low[n], rooms);
    watch.lap(0);
    const Heads heads(l, h.made);
    const Shape shape = shape_of(l, p, heads, false);
    attention_forward(1, &shape, heads.q, heads.k, heads.v, h.a, h.log_sums, rooms);
    watch.lap(1);
    rest(after(l, p), rest_of(l, p, h.kept), h.a, inputs[0], y, rooms);
    if (!h.first)
        clear_filler(p, width, y);
    watch.lap(2);
}

// From g, that of y: the gradient of x, which may be null, and those of A and B, side by side in the order of the layers.
EXPORTED void layer_backward(int64_t, Pass *pass, const Layer *layer, const float *g, const float *x, float *held, float *gx,
                             float *gradients, float *rooms) {
    const Layer l = with_gradients(*layer, gradients);
    const Pass &p = *pass;
    const long width = l.width();
    Watch watch{pass->seconds};
    Shelf shelf{held}, ours{rooms};
    const Held h(l, p, shelf);
    const Slopes slopes(l, p, ours);
    rooms += ours.used;
    const bool attends = gx || l.asking[0].updates.parts || l.asking[1].updates.parts;
    rest_back(after(l, p), rest_of(l, p, h.kept), g, h.a, slopes.sum, attends ? slopes.a : nullptr, rooms);
    watch.lap(2);
    if (!attends)
        return;
    const Heads heads(l, h.made), changes(l, slopes.made);
    const Shape shape = shape_of(l, p, heads, true);
    attention_backward(1, &shape, heads.q, heads.k, heads.v, slopes.a, h.log_sums, changes.q, changes.k, changes.v, rooms);
    watch.lap(1);
    const float *inputs[] = {h.first ? h.first : x, x};
    for (long n = 0; n < l.products; ++n) {
        // What the sum adds belongs to the rows that ask.
        float *to = gx && h.first && n == 0 ? slopes.first : gx;
        linear_back(asked(l, p, n), asking_of(l, p, n), slopes.made[n], inputs[n], h.low[n], n == 0 ? slopes.sum : nullptr, to,
                    rooms);
    }
    for (long n = 0; gx && h.first && n < p.texts; ++n)
        for (long i = 0; i < width; ++i)
            gx[p.offsets[n] * width + i] += slopes.first[n * width + i];
    if (gx)
        clear_filler(p, width, gx);
    watch.lap(0);
}

#else

EXPORTED int64_t layer_held(int64_t, const void *, const void *) { return 0; }
EXPORTED int64_t layer_room(int64_t, const void *, const void *, int64_t) { return 0; }

#endif
