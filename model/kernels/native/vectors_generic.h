// The same operations as vectors_avx512.h in the compiler's vector types: kLanes floats at a time, 8 for AVX2, 4 where
// only the baseline is known (SSE2, Arm NEON). The file that includes it defines VIDGRAIN_LANES.
#pragma once

namespace {

struct Vec {
    static constexpr int kWidth = VIDGRAIN_LANES;
    typedef float F __attribute__((vector_size(kWidth * 4)));
    typedef int32_t I __attribute__((vector_size(kWidth * 4)));

    static F load(const float* p) {
        F x;
        __builtin_memcpy(&x, p, sizeof x);
        return x;
    }
    static void store(float* p, F x) { __builtin_memcpy(p, &x, sizeof x); }
    static F all(float x) { return F{} + x; }
    static F max(F a, F b) { return a > b ? a : b; }
    static float largest(F a) {
        float best = a[0];
        for (int i = 1; i < kWidth; i++) best = a[i] > best ? a[i] : best;
        return best;
    }

    // a / b, NaN where b isn't above `least`: the sign that an exponential underflowed.
    static F divide(F a, F b, float least) { return b > all(least) ? a / b : all(__builtin_nanf("")); }

    // 2^t to 4e-6 relative; 0 far below, infinity far above, NaN for NaN. Adding kRound leaves the nearest whole number
    // in the low bits, from where it is shifted into the exponent.
    static F exp2(F t) {
        t = t < all(-127.0f) ? all(-127.0f) : t;
        t = t > all(128.0f) ? all(128.0f) : t;
        const F shifted = t + all(kRound);
        const F r = t - (shifted - all(kRound));
        F p = all(kExp4) * r + all(kExp3);
        p = p * r + all(kExp2);
        p = p * r + all(kExp1);
        p = p * r + all(kExp0);
        const I power = ((I)shifted - (I)all(kRound) + 127) << 23;
        return p * (F)power;
    }

    // kWidth vectors -> the vector of their sums.
    static F sums(const F* x) {
#if VIDGRAIN_LANES == 8
        const F a = _mm256_hadd_ps(_mm256_hadd_ps(x[0], x[1]), _mm256_hadd_ps(x[2], x[3]));
        const F b = _mm256_hadd_ps(_mm256_hadd_ps(x[4], x[5]), _mm256_hadd_ps(x[6], x[7]));
        return _mm256_permute2f128_ps(a, b, 0x20) + _mm256_permute2f128_ps(a, b, 0x31);
#else
        F out;
        for (int i = 0; i < kWidth; i++) out[i] = (x[i][0] + x[i][1]) + (x[i][2] + x[i][3]);
        return out;
#endif
    }

 private:
    static constexpr float kRound = 12582912.0f;  // 1.5 * 2^23
};

// Rows into the form that is multiplied, padded to `steps` by zeros.
inline void widen_fp16(const uint16_t* row, int width, float* out, int steps) {
    int d = 0;
#if VIDGRAIN_LANES == 8
    for (; d + 8 <= width; d += 8) {
        _mm256_storeu_ps(out + d, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)(row + d))));
    }
#endif
    for (; d < width; d++) {
        // the exponent moves by 112 (127 - 15); a product with 2^112 does so for subnormals too
        const uint32_t half = row[d], magnitude = (half & 0x7fff) << 13;
        float x;
        __builtin_memcpy(&x, &magnitude, 4);
        x *= 5.192296858534828e33f;
        uint32_t bits;
        __builtin_memcpy(&bits, &x, 4);
        bits |= (half & 0x8000) << 16 | ((half & 0x7c00) == 0x7c00 ? 0x7f800000 : 0);
        __builtin_memcpy(out + d, &bits, 4);
    }
    for (; d < steps; d++) out[d] = 0.0f;
}

}  // namespace
