// Sixteen floats at a time: the few operations that the epilogues and the register tiles need. AVX-512 F, BW, DQ, VL.
// Arithmetic is written with operators; the compiler contracts a * b + c.
#pragma once

namespace {

struct Vec {
    using F = __m512;
    static constexpr int kWidth = 16;

    static F load(const float* p) { return _mm512_loadu_ps(p); }
    static void store(float* p, F x) { _mm512_storeu_ps(p, x); }
    static F all(float x) { return _mm512_set1_ps(x); }
    static F max(F a, F b) { return _mm512_max_ps(a, b); }
    static float largest(F a) { return _mm512_reduce_max_ps(a); }

    // a / b, NaN where b isn't above `least`: the sign that an exponential underflowed.
    static F divide(F a, F b, float least) {
        const __mmask16 ok = _mm512_cmp_ps_mask(b, all(least), _CMP_GT_OQ);
        return _mm512_mask_div_ps(all(__builtin_nanf("")), ok, a, b);
    }

    // 2^t to 4e-6 relative; 0 far below, infinity far above, NaN for NaN.
    static F exp2(F t) {
        const F whole = _mm512_roundscale_ps(t, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
        const F r = t - whole;
        F p = all(kExp4) * r + all(kExp3);
        p = p * r + all(kExp2);
        p = p * r + all(kExp1);
        p = p * r + all(kExp0);
        return _mm512_scalef_ps(p, whole);
    }

    // Sixteen vectors -> the vector of their sums.
    static F sums(const F* x) {
        F quads[4];
        for (int i = 0; i < 4; i++) {
            const F a = pairs(x[4 * i], x[4 * i + 1]), b = pairs(x[4 * i + 2], x[4 * i + 3]);
            const __m512d c = _mm512_castps_pd(a), d = _mm512_castps_pd(b);
            quads[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(c, d)) + _mm512_castpd_ps(_mm512_unpackhi_pd(c, d));
        }
        return halves(halves(quads[0], quads[1]), halves(quads[2], quads[3]));
    }

 private:
    static F pairs(F a, F b) { return _mm512_unpacklo_ps(a, b) + _mm512_unpackhi_ps(a, b); }
    static F halves(F a, F b) { return _mm512_shuffle_f32x4(a, b, 0x88) + _mm512_shuffle_f32x4(a, b, 0xdd); }
};

// Rows into the form that is multiplied. `words` is padded to `steps` by zeros.
inline void widen_fp16(const uint16_t* row, int width, float* out, int steps) {
    int d = 0;
    for (; d + 16 <= width; d += 16) {
        _mm512_storeu_ps(out + d, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)(row + d))));
    }
    if (d < steps) {
        for (int rest = d; rest < steps; rest += 16) {
            const int left = width - rest;
            const __mmask16 real = left >= 16 ? 0xffff : left > 0 ? (1u << left) - 1 : 0;
            _mm512_storeu_ps(out + rest, _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(real, row + rest)));
        }
    }
}

}  // namespace
