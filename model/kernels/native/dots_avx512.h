// Multiply-adds of AVX-512 beyond floats. They are written as instructions because gcc 12 keeps accumulators of the
// intrinsics in memory when there are two dozen of them.
#pragma once

namespace {

// Sums of four products of a column's bytes, unsigned, with a row's, signed. Columns are stored with kOffset added and
// what that adds to a product is taken off afterwards: kOffset times the sum of the row.
struct Int8Dot {
    using Acc = __m512i;
    using Words = __m512i;
    static constexpr int kPerStep = 4;
    static constexpr bool kIsScaled = true;
    static constexpr float kOffset = 128.0f;
    static Words load(const uint32_t* p) { return _mm512_loadu_si512(p); }
    static Words spread(const uint32_t* p) {
        int32_t x;
        memcpy(&x, p, 4);
        return _mm512_set1_epi32(x);
    }
    static Acc zero() { return _mm512_setzero_si512(); }
    static void add(Acc& acc, Words columns, Words row) {
        asm("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(columns), "v"(row));
    }
    static Vec::F value(Acc acc, Vec::F correction) { return _mm512_cvtepi32_ps(acc) + correction; }
};

inline float encode_int8(const float* vector, int width, uint32_t* out, int steps, int offset) {
    float most = 0.0f;
    for (int d = 0; d < width; d++) most = fabsf(vector[d]) > most ? fabsf(vector[d]) : most;
    const float scale = most / 127.0f, inverse = most > 0.0f ? 127.0f / most : 0.0f;
    uint8_t* bytes = reinterpret_cast<uint8_t*>(out);
    memset(bytes, offset, static_cast<size_t>(steps) * 4);
    for (int d = 0; d < width; d++)
        bytes[d] = static_cast<uint8_t>(static_cast<int>(rintf(vector[d] * inverse)) + offset);
    return scale;
}

// One byte a number, multiplied where it lies when a row is whole lines.
struct Int8Vnni {
    static constexpr int kPerStep = 4, kBytes = 1, kMaxThin = 2, kStagedRows = 12;
    static constexpr bool kStages = true, kHasScales = true, kHasSums = true;
    using Dot = Int8Dot;
    static float encode(const float* vector, int width, uint32_t* out, int steps) {
        return encode_int8(vector, width, out, steps, 128);
    }
    static void stage(const char* row, int width, uint32_t* out, int steps) {
        memcpy(out, row, width);
        memset(reinterpret_cast<char*>(out) + width, 0, static_cast<size_t>(steps) * 4 - width);
    }
    static float norm(const char* row, int width) { return norm_int8(row, width); }
    static void multiply(const Rows& rows, const Columns& columns, Scaling scaling, float* corrections, float* out) {
        multiply_columns<Int8Vnni>(rows, columns, scaling, corrections, out);
    }
};

}  // namespace
