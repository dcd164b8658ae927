// Matrix products that stay in registers: M feature rows against NB blocks of columns, every product and sum of it
// accumulated before anything is stored. `Dot` is the multiply-add of a path (32 bits of a row with a vector of
// columns).
#pragma once

namespace {

// Multiply-add on floats; the other kinds are declared by the paths that have them. An accumulator becomes a float by
// `value`, given what is added to it beforehand (see Int8Dot in dots_avx512.h).
struct FloatDot {
    using Acc = Vec::F;
    using Words = Vec::F;
    static constexpr int kPerStep = 1;
    static constexpr bool kIsScaled = false;  // by a scale of each row and column, after a correction
    static Words load(const uint32_t* p) { return Vec::load(reinterpret_cast<const float*>(p)); }
    static Words spread(const uint32_t* p) {
        float x;
        memcpy(&x, p, 4);
        return Vec::all(x);
    }
    static Acc zero() { return Vec::all(0.0f); }
    static void add(Acc& acc, Words columns, Words row) { acc = columns * row + acc; }
    static Vec::F value(Acc acc, Vec::F) { return acc; }
};

// What a product is turned into when it is stored: c = (acc + corrections[m]) * row_scales[m] * column_scales[j].
struct Scaling {
    const float* corrections = nullptr;
    const float* row_scales = nullptr;
    const float* column_scales = nullptr;

    Scaling from_row(int m) const {
        return {corrections ? corrections + m : nullptr, row_scales ? row_scales + m : nullptr, column_scales};
    }
};

// Rows of the store that are read later, as many as are multiplied: a line of each is asked for whenever as much of the
// present rows has been multiplied. More at once would fill the few buffers for lines on their way.
struct Ahead {
    const char* const* rows = nullptr;
    int step_bytes = 0;  // that a step takes in the store

    Ahead from_row(int m) const { return {rows ? rows + m : nullptr, step_bytes}; }

    template <int M>
    void ask(int k) const {
        if (!rows || k * step_bytes % 64 != 0) return;
#pragma GCC unroll 12
        for (int m = 0; m < M; m++) __builtin_prefetch(rows[m] + k * step_bytes, 0, 2);
    }
};

// One step of a tile: a vector of columns meets a number of each row.
template <class Dot, int M, int V>
inline void step(typename Dot::Acc (&acc)[M][V], const uint32_t* rows, int64_t lda, const uint32_t* columns,
                 int64_t block_stride) {
    constexpr int kVecs = kBlock / Vec::kWidth;
    typename Dot::Words column[V];
#pragma GCC unroll 8
    for (int v = 0; v < V; v++) column[v] = Dot::load(columns + v / kVecs * block_stride + v % kVecs * Vec::kWidth);
#pragma GCC unroll 12
    for (int m = 0; m < M; m++) {
        const typename Dot::Words row = Dot::spread(rows + m * lda);
#pragma GCC unroll 8
        for (int v = 0; v < V; v++) Dot::add(acc[m][v], column[v], row);
    }
}

// One tile. Rows lie `lda` words apart; step k of block b lies at columns + b * block_stride + k * ldb. kUnroll divides
// the number of steps: a loop for the rest would cost a copy of the accumulators in every round.
template <class Dot, int M, int NB, int kUnroll>
inline void tile(const uint32_t* __restrict__ rows, int64_t lda, const uint32_t* __restrict__ columns, int64_t ldb,
                 int64_t block_stride, int steps, Scaling scaling, float* __restrict__ out, int64_t ldc, Ahead ahead) {
    constexpr int kAll = NB * kBlock / Vec::kWidth;
    typename Dot::Acc acc[M][kAll];
#pragma GCC unroll 12
    for (int m = 0; m < M; m++) {
#pragma GCC unroll 8
        for (int v = 0; v < kAll; v++) acc[m][v] = Dot::zero();
    }
    for (int k = 0; k < steps; k += kUnroll) {
        ahead.ask<M>(k);
#pragma GCC unroll 4
        for (int u = 0; u < kUnroll; u++)
            step<Dot, M, kAll>(acc, rows + k + u, lda, columns + (k + u) * ldb, block_stride);
    }
#pragma GCC unroll 12
    for (int m = 0; m < M; m++) {
        Vec::F scale = Vec::all(1.0f), correction = Vec::all(0.0f);
        if (Dot::kIsScaled || scaling.row_scales) scale = Vec::all(scaling.row_scales[m]);
        if constexpr (Dot::kIsScaled) correction = Vec::all(scaling.corrections[m]);
#pragma GCC unroll 8
        for (int v = 0; v < kAll; v++) {
            Vec::F x = Dot::value(acc[m][v], correction) * scale;
            if constexpr (Dot::kIsScaled) x = x * Vec::load(scaling.column_scales + v * Vec::kWidth);
            Vec::store(out + m * ldc + v * Vec::kWidth, x);
        }
    }
}

// How many rows a tile takes: as many as there are registers for.
template <class Dot, int NB, int kUnroll>
inline void tiles(const uint32_t* rows, int64_t lda, int num_rows, const uint32_t* columns, int64_t ldb,
                  int64_t block_stride, int steps, Scaling scaling, float* out, int64_t ldc, Ahead ahead) {
    for (int m = 0; m < num_rows;) {
        const uint32_t* a = rows + m * lda;
        const Scaling s = scaling.from_row(m);
        float* c = out + m * ldc;
        const Ahead later = ahead.from_row(m);
        const int left = num_rows - m;
#define VIDGRAIN_TILE(M)                                                                        \
    {                                                                                           \
        tile<Dot, M, NB, kUnroll>(a, lda, columns, ldb, block_stride, steps, s, c, ldc, later); \
        m += M;                                                                                 \
    }
        if constexpr (Vec::kWidth == 16) {
            if (left == 8 || left == 16)
                VIDGRAIN_TILE(8)
            else if (left >= 12)
                VIDGRAIN_TILE(12)
            else if (left >= 6)
                VIDGRAIN_TILE(6)
            else if (left >= 3)
                VIDGRAIN_TILE(3)
            else if (left == 2)
                VIDGRAIN_TILE(2)
            else
                VIDGRAIN_TILE(1)
        } else if constexpr (Vec::kWidth == 8) {
            if (left >= 6)
                VIDGRAIN_TILE(6)
            else if (left >= 3)
                VIDGRAIN_TILE(3)
            else
                VIDGRAIN_TILE(1)
        } else {
            if (left >= kBaselineRows)
                VIDGRAIN_TILE(kBaselineRows)
            else
                VIDGRAIN_TILE(1)
        }
#undef VIDGRAIN_TILE
    }
}

// All blocks of columns, two at a time where the registers allow it.
template <class Dot, int kUnroll = 4>
inline void multiply(const uint32_t* rows, int64_t lda, int num_rows, const uint32_t* columns, int64_t ldb,
                     int64_t block_stride, int num_blocks, int steps, Scaling scaling, float* out, int64_t ldc,
                     Ahead ahead = {}) {
    constexpr int kTogether = Vec::kWidth == 16 ? 2 : 1;
    for (int b = 0; b < num_blocks;) {
        const uint32_t* at = columns + b * block_stride;
        Scaling s = scaling;
        if (s.column_scales) s.column_scales += b * kBlock;
        float* c = out + b * kBlock;
        if (num_blocks - b >= kTogether) {
            tiles<Dot, kTogether, kUnroll>(rows, lda, num_rows, at, ldb, block_stride, steps, s, c, ldc, ahead);
            b += kTogether;
        } else {
            tiles<Dot, 1, kUnroll>(rows, lda, num_rows, at, ldb, block_stride, steps, s, c, ldc, ahead);
            b += 1;
        }
        ahead = {};
    }
}

// The dot product of each row with one column that lies as a row does. out[m] is a plain float, unscaled.
template <class Dot>
inline void multiply_thin(const uint32_t* rows, int64_t lda, int num_rows, const uint32_t* column, int steps,
                          float* out) {
    for (int m = 0; m < num_rows; m += Vec::kWidth) {
        Vec::F partial[Vec::kWidth];
        const int count = smaller(Vec::kWidth, num_rows - m);
        for (int i = 0; i < count; i++) {
            const uint32_t* row = rows + (m + i) * lda;
            typename Dot::Acc even = Dot::zero(), odd = Dot::zero();
            for (int k = 0; k < steps; k += 2 * Vec::kWidth) {  // steps is a multiple of 16
                Dot::add(even, Dot::load(column + k), Dot::load(row + k));
                if (Vec::kWidth < 16 || k + 16 < steps)
                    Dot::add(odd, Dot::load(column + k + Vec::kWidth), Dot::load(row + k + Vec::kWidth));
            }
            partial[i] = Dot::value(even, Vec::all(0.0f)) + Dot::value(odd, Vec::all(0.0f));
        }
        for (int i = count; i < Vec::kWidth; i++) partial[i] = Vec::all(0.0f);
        float sums[Vec::kWidth];
        Vec::store(sums, Vec::sums(partial));
        for (int i = 0; i < count; i++) out[m + i] = sums[i];
    }
}

}  // namespace
