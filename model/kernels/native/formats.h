// How rows of a store are brought into the form that is multiplied, and the products of a few rows with all columns.
//
// A format declares: kPerStep (numbers in a step of 32 bits), kBytes (of a stored number), kStagedRows (of a batch),
// kStages (the driver stages them; otherwise multiply reads them where they are stored), kHasScales
// (columns carry one), kHasSums (see Int8Dot), kMaxThin; Dot; encode (a query vector, returns its scale), stage (a
// stored row), norm (of a stored row) and multiply (rows with all columns).
#pragma once

namespace {

// Rows times all columns: tiles, then what is thin. `corrections` has room for a number per row.
template <class Format>
inline void multiply_columns(const Rows& given, const Columns& columns, Scaling scaling, float* corrections,
                             float* out) {
    using Dot = typename Format::Dot;
    const uint32_t* rows = given.staged;
    const int count = given.count, steps = columns.steps, stride = columns.stride();
    const Ahead ahead = {given.ahead, Format::kPerStep * Format::kBytes};
    if constexpr (Format::kHasSums) {
        multiply_thin<Dot>(rows, steps, count, columns.thin_words.data + static_cast<int64_t>(columns.thin) * steps,
                           steps, corrections);
        for (int m = 0; m < count; m++) corrections[m] *= -Dot::kOffset;
        scaling.corrections = corrections;
    }
    multiply<Dot>(rows, steps, count, columns.words.data, kBlock, columns.block_stride(), columns.blocks, steps,
                  scaling, out, stride, ahead);
    for (int t = 0; t < columns.thin; t++) {
        const int c = columns.blocks * kBlock + t;
        const float scale = scaling.column_scales ? scaling.column_scales[c] : 1.0f;
        for (int m = 0; m < count; m += kBlock) {
            float found[kBlock];
            const int here = smaller(kBlock, count - m);
            multiply_thin<Dot>(rows + static_cast<int64_t>(m) * steps, steps, here,
                               columns.thin_words.data + static_cast<int64_t>(t) * steps, steps, found);
            for (int i = 0; i < here; i++) {
                const float sum = found[i] + (scaling.corrections ? scaling.corrections[m + i] : 0.0f);
                out[static_cast<int64_t>(m + i) * stride + c] =
                    sum * (scaling.row_scales ? scaling.row_scales[m + i] : 1.0f) * scale;
            }
        }
    }
}

inline float norm_fp16(const char* row, int width) {
    float sum = 0.0f;
    for (int d = 0; d < width; d += kBlock) {
        float x[kBlock];
        widen_fp16(reinterpret_cast<const uint16_t*>(row) + d, smaller(kBlock, width - d), x, kBlock);
        for (int i = 0; i < kBlock; i++) sum += x[i] * x[i];
    }
    return sqrtf(sum);
}

inline float norm_int8(const char* row, int width) {
    int64_t sum = 0;
    for (int d = 0; d < width; d++) {
        const int x = static_cast<int8_t>(row[d]);
        sum += x * x;
    }
    return sqrtf(static_cast<float>(sum));
}

inline float encode_floats(const float* vector, int width, uint32_t* out, int steps) {
    memcpy(out, vector, sizeof(float) * width);
    for (int d = width; d < steps; d++) out[d] = 0;
    return 1.0f;
}

// Half precision, widened to floats.
struct Fp16AsFloat {
    static constexpr int kPerStep = 1, kBytes = 2, kMaxThin = 2, kStagedRows = 12;
    static constexpr bool kStages = true, kHasScales = false, kHasSums = false;
    using Dot = FloatDot;
    static float encode(const float* vector, int width, uint32_t* out, int steps) {
        return encode_floats(vector, width, out, steps);
    }
    static void stage(const char* row, int width, uint32_t* out, int steps) {
        widen_fp16(reinterpret_cast<const uint16_t*>(row), width, reinterpret_cast<float*>(out), steps);
    }
    static float norm(const char* row, int width) { return norm_fp16(row, width); }
    static void multiply(const Rows& rows, const Columns& columns, Scaling scaling, float* corrections, float* out) {
        multiply_columns<Fp16AsFloat>(rows, columns, scaling, corrections, out);
    }
};

// One byte a number, widened to floats: where there is no instruction for products of bytes.
struct Int8AsFloat {
    static constexpr int kPerStep = 1, kBytes = 1, kMaxThin = 2, kStagedRows = 12;
    static constexpr bool kStages = true, kHasScales = false, kHasSums = false;
    using Dot = FloatDot;
    static float encode(const float* vector, int width, uint32_t* out, int steps) {
        return encode_floats(vector, width, out, steps);
    }
    static void stage(const char* row, int width, uint32_t* out, int steps) {
        float* x = reinterpret_cast<float*>(out);
        for (int d = 0; d < width; d++) x[d] = static_cast<float>(static_cast<int8_t>(row[d]));
        for (int d = width; d < steps; d++) x[d] = 0.0f;
    }
    static float norm(const char* row, int width) { return norm_int8(row, width); }
    static void multiply(const Rows& rows, const Columns& columns, Scaling scaling, float* corrections, float* out) {
        multiply_columns<Int8AsFloat>(rows, columns, scaling, corrections, out);
    }
};

// The functions of a path, one format for each store.
template <class Fp16, class Int8>
struct PathOf {
    static Query* prepare(const QuerySettings& settings, const QueryRow* rows) {
        Packed* packed = settings.store == kInt8 ? pack<Int8>(settings, rows) : pack<Fp16>(settings, rows);
        return reinterpret_cast<Query*>(packed);
    }

    static void release(Query* query) { delete reinterpret_cast<Packed*>(query); }

    static Outcome score(const Query& query, const Features& features, const int64_t* rows, int64_t count, Mode mode,
                         int32_t slots, float* out) {
        const Packed& packed = reinterpret_cast<const Packed&>(query);
        if (packed.settings.store == kInt8) return Search<Int8>(packed, features, rows, count, mode, slots, out).run();
        return Search<Fp16>(packed, features, rows, count, mode, slots, out).run();
    }
};

// Multiply-adds on registers alone: the roof of a path. A dozen sums hide the latency of the instruction.
template <class Dot>
inline double peak_of(int64_t rounds) {
    alignas(64) uint32_t words[kBlock] = {};
    asm volatile("" : "+m"(words));  // not known to be zeros
    typename Dot::Acc acc[12];
    for (int i = 0; i < 12; i++) acc[i] = Dot::zero();
    const typename Dot::Words a = Dot::load(words), b = Dot::load(words);
    for (int64_t r = 0; r < rounds; r++) {
#pragma GCC unroll 12
        for (int i = 0; i < 12; i++) Dot::add(acc[i], a, b);
    }
    Vec::F sum = Vec::all(0.0f);
    for (int i = 0; i < 12; i++) sum = sum + Dot::value(acc[i], Vec::all(0.0f));
    float lanes[Vec::kWidth];
    Vec::store(lanes, sum);
    asm volatile("" : : "m"(lanes));
    return static_cast<double>(rounds) * 12 * Vec::kWidth * Dot::kPerStep;
}

}  // namespace
