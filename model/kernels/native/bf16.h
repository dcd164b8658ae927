// Half precision rounded to bf16: pairs of products per step.
#pragma once

namespace {

struct Bf16Dot {
    using Acc = __m512;
    using Words = __m512i;
    static constexpr int kPerStep = 2;
    static constexpr bool kIsScaled = false;
    static Words load(const uint32_t* p) { return _mm512_loadu_si512(p); }
    static Words spread(const uint32_t* p) {
        int32_t x;
        memcpy(&x, p, 4);
        return _mm512_set1_epi32(x);
    }
    static Acc zero() { return _mm512_setzero_ps(); }
    static void add(Acc& acc, Words columns, Words row) {
        asm("vdpbf16ps %2, %1, %0" : "+v"(acc) : "v"(columns), "v"(row));
    }
    static Vec::F value(Acc acc, Vec::F) { return acc; }
};

inline float encode_bf16(const float* vector, int width, uint32_t* out, int steps) {
    uint16_t* halves = reinterpret_cast<uint16_t*>(out);
    for (int d = 0; d < 2 * steps; d++) {
        uint32_t bits = 0;
        if (d < width) memcpy(&bits, vector + d, 4);
        const bool is_nan = (bits & 0x7fffffff) > 0x7f800000;
        halves[d] = static_cast<uint16_t>(is_nan ? bits >> 16 | 0x40 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16);
    }
    return 1.0f;
}

inline void stage_bf16(const char* row, int width, uint32_t* out, int steps) {
    const uint16_t* from = reinterpret_cast<const uint16_t*>(row);
    int d = 0;
    for (; d + 32 <= width; d += 32) {
        const __m512 low = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)(from + d)));
        const __m512 high = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)(from + d + 16)));
        _mm512_storeu_si512(out + d / 2, (__m512i)_mm512_cvtne2ps_pbh(high, low));
    }
    for (; d < 2 * steps; d += 32) {
        float rest[32];
        const int left = larger(0, smaller(32, width - d));
        widen_fp16(from + d, left, rest, 32);
        _mm512_storeu_si512(out + d / 2,
                            (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(rest + 16), _mm512_loadu_ps(rest)));
    }
}

struct Fp16AsBf16 {
    static constexpr int kPerStep = 2, kBytes = 2, kMaxThin = 2;
    static constexpr bool kReadsInPlace = false, kHasScales = false, kHasSums = false;
    using Dot = Bf16Dot;
    static float encode(const float* vector, int width, uint32_t* out, int steps) {
        return encode_bf16(vector, width, out, steps);
    }
    static void stage(const char* row, int width, uint32_t* out, int steps) { stage_bf16(row, width, out, steps); }
    static float norm(const char* row, int width) { return norm_fp16(row, width); }
    static void multiply(const uint32_t* rows, int count, const Columns& columns, Scaling scaling, float* corrections,
                         float* out) {
        multiply_columns<Fp16AsBf16>(rows, count, columns, scaling, corrections, out);
    }
    static void finish(int, const Columns&, Scaling, float*) {}
};

}  // namespace
