// Attention of packed texts, as attention.cpp computes it.

#pragma once

#include "vectors.h"

// What both directions are given: the texts, where they begin, and how the tensors lie in memory.
struct Shape {
    const int32_t *offsets; // (texts + 1)
    const void *bias;       // (heads, distances), of the type computed in; none without
    int64_t texts, heads, dim, one_query, window, distances, q_stride, k_stride, v_stride, room, threads;
    int64_t gq_stride, gk_stride, gv_stride; // of the gradients
    int64_t half; // whether 16 bits will do, and which: what `half_serves` gives
    double scale;
};

// The numbers of working memory of a thread.
EXPORTED int64_t attention_room(int64_t kind, int64_t longest, int64_t dim, int64_t backward);

EXPORTED void attention_forward(int64_t kind, const Shape *s, const void *q, const void *k, const void *v, void *out,
                                void *log_sums, void *rooms);

// A gradient that is not wanted has no address.
EXPORTED void attention_backward(int64_t kind, const Shape *s, const void *q, const void *k, const void *v, const void *g,
                                 const void *log_sums, void *gq, void *gk, void *gv, void *rooms);
