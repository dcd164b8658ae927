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

// A stored number becomes bf16 by a shift: the sign stays and its five bits of exponent become the low five of eight,
// which divides it by 2^112; the query is multiplied by that much. Numbers under 2^-14 (6e-5) count as 0, since the
// products take subnormal numbers for 0. What isn't finite would become finite: see `keep_non_finite`.
constexpr float kBf16Scale = 0x1p112f;

inline float encode_bf16(const float* vector, int width, uint32_t* out, int steps) {
    uint16_t* halves = reinterpret_cast<uint16_t*>(out);
    for (int d = 0; d < 2 * steps; d++) {
        const float scaled = d < width ? vector[d] * kBf16Scale : 0.0f;
        uint32_t bits;
        memcpy(&bits, &scaled, 4);
        const bool is_nan = (bits & 0x7fffffff) > 0x7f800000;
        halves[d] = static_cast<uint16_t>(is_nan ? bits >> 16 | 0x40 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16);
    }
    return 1.0f;
}

// Thirty-two numbers -> bf16, rounded to nearest: a product with 2^12 of which the upper half is kept is the shift by
// 3. `most` becomes the largest of the numbers, their signs shifted out.
inline __m512i shift_to_bf16(__m512i x, __m512i& most) {
    most = _mm512_max_epu16(most, _mm512_add_epi16(x, x));
    return _mm512_and_si512(_mm512_mulhrs_epi16(x, _mm512_set1_epi16(0x1000)), _mm512_set1_epi16(-0x7001));
}

inline bool has_non_finite(__m512i most) {
    return _mm512_cmpge_epu16_mask(most, _mm512_set1_epi16(-0x800)) != 0;
}

// The bf16 of a line x, with NaN where x is NaN or infinite.
inline __m512i keep_non_finite(__m512i x, __m512i bf16) {
    const __mmask32 found = _mm512_cmpge_epu16_mask(_mm512_add_epi16(x, x), _mm512_set1_epi16(-0x800));
    return _mm512_mask_mov_epi16(bf16, found, _mm512_set1_epi16(0x7fc0));
}

// The first `left` of 32 stored numbers, zeros beyond.
inline __m512i load_halves(const char* from, int left) {
    return _mm512_maskz_loadu_epi16(left >= 32 ? ~0u : left > 0 ? (1u << left) - 1 : 0, from);
}

inline void stage_bf16(const char* row, int width, uint32_t* out, int steps) {
    __m512i most = _mm512_setzero_si512();
    int k = 0;
    for (; k * 2 + 32 <= width; k += kBlock)
        _mm512_storeu_si512(out + k, shift_to_bf16(_mm512_loadu_si512(row + 4 * k), most));
    for (; k < steps; k += kBlock)
        _mm512_storeu_si512(out + k, shift_to_bf16(load_halves(row + 4 * k, width - 2 * k), most));
    if (!has_non_finite(most)) return;
    for (k = 0; k < steps; k += kBlock) {
        const __m512i x = load_halves(row + 4 * k, width - 2 * k);
        _mm512_storeu_si512(out + k, keep_non_finite(x, _mm512_loadu_si512(out + k)));
    }
}

struct Fp16AsBf16 {
    static constexpr int kPerStep = 2, kBytes = 2, kMaxThin = 2, kStagedRows = 48;
    static constexpr bool kStages = true, kHasScales = false, kHasSums = false;
    using Dot = Bf16Dot;
    static float encode(const float* vector, int width, uint32_t* out, int steps) {
        return encode_bf16(vector, width, out, steps);
    }
    static void stage(const char* row, int width, uint32_t* out, int steps) { stage_bf16(row, width, out, steps); }
    static float norm(const char* row, int width) { return norm_fp16(row, width); }
    static void multiply(const Rows& rows, const Columns& columns, Scaling scaling, float* corrections, float* out) {
        multiply_columns<Fp16AsBf16>(rows, columns, scaling, corrections, out);
    }
};

}  // namespace
