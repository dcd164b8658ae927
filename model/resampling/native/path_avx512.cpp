// AVX-512 with VNNI. A coefficient is split into three digits of eight bits, k = (d2 * 2^8 + d1) * 2^8 + d0, each from
// -128 to 127, so that one instruction multiplies four bytes of each lane and sums exactly.

#include "shapes.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "../../kernels/native/target.h"
VIDGRAIN_TARGET("avx,avx2,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")

#include "driver.h"

namespace {

inline __m128i load16(const uint8_t* at) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
}

inline __m512i total(__m512i d0, __m512i d1, __m512i d2) {
    const __m512i sum = _mm512_add_epi32(d0, _mm512_add_epi32(_mm512_slli_epi32(d1, 8), _mm512_slli_epi32(d2, 16)));
    return _mm512_srai_epi32(sum, kPrecisionBits);
}

inline void store_pixel(uint8_t* at, int32_t bytes) {
    memcpy(at, &bytes, sizeof bytes);
}

struct Ops {
    static constexpr int kRows = 4;

    // The lowest digits of the four taps, the middle ones, the highest, and a number that isn't used.
    static void pack(const int32_t* k, int32_t* out) {
        int8_t digits[4][kChunk] = {};
        for (int t = 0; t < kChunk; t++) {
            int32_t rest = k[t];
            for (int d = 0; d < 3; d++) {
                digits[d][t] = int8_t(rest & 0xff);
                rest = (rest - digits[d][t]) / 256;
            }
        }
        memcpy(out, digits, sizeof digits);
    }

    static void columns(const uint8_t* const* rows, uint8_t* const* outs, const int32_t* starts, int32_t origin,
                        const int32_t* coefs, int32_t chunks, int32_t count) {
        constexpr char Z = -128;
        const __m512i taps =
            _mm512_broadcast_i32x4(_mm_setr_epi8(0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11, Z, Z, Z, Z));
        const __m512i half = _mm512_set1_epi32(1 << (kPrecisionBits - 1));
        const uint8_t *row0 = rows[0], *row1 = rows[1], *row2 = rows[2], *row3 = rows[3];
        uint8_t *out0 = outs[0], *out1 = outs[1], *out2 = outs[2], *out3 = outs[3];
        for (int32_t i = 0; i < count; i++) {
            int64_t at = int64_t(starts[i] - origin) * 3;
            __m512i d0 = half, d1 = _mm512_setzero_si512(), d2 = d1;
            for (int32_t chunk = 0; chunk < chunks; chunk++, at += 3 * kChunk, coefs += kChunk) {
                __m512i four = _mm512_castsi128_si512(load16(row0 + at));
                four = _mm512_inserti32x4(four, load16(row1 + at), 1);
                four = _mm512_inserti32x4(four, load16(row2 + at), 2);
                four = _mm512_shuffle_epi8(_mm512_inserti32x4(four, load16(row3 + at), 3), taps);
                d0 = _mm512_dpbusd_epi32(d0, four, _mm512_set1_epi32(coefs[0]));
                d1 = _mm512_dpbusd_epi32(d1, four, _mm512_set1_epi32(coefs[1]));
                d2 = _mm512_dpbusd_epi32(d2, four, _mm512_set1_epi32(coefs[2]));
            }
            const __m512i sums = _mm512_max_epi32(total(d0, d1, d2), _mm512_setzero_si512());
            const __m128i bytes = _mm512_cvtusepi32_epi8(sums);
            store_pixel(out0 + 3 * i, _mm_cvtsi128_si32(bytes));
            store_pixel(out1 + 3 * i, _mm_extract_epi32(bytes, 1));
            store_pixel(out2 + 3 * i, _mm_extract_epi32(bytes, 2));
            store_pixel(out3 + 3 * i, _mm_extract_epi32(bytes, 3));
        }
    }

    static void rows(const uint8_t* const* lines, const int32_t* coefs, int32_t chunks, int64_t from, int64_t num_bytes,
                     uint8_t* out) {
        constexpr int64_t kBlock = 64;
        for (int64_t at = 0; at < num_bytes; at += kBlock) {
            const int64_t left = num_bytes - at;
            block(lines, coefs, chunks, from + at, left < kBlock ? (uint64_t(1) << left) - 1 : ~uint64_t(0), out + at);
        }
    }

    static void block(const uint8_t* const* lines, const int32_t* coefs, int32_t chunks, int64_t at, __mmask64 mask,
                      uint8_t* out) {
        __m512i d0[4], d1[4], d2[4];
        for (int i = 0; i < 4; i++) {
            d0[i] = _mm512_set1_epi32(1 << (kPrecisionBits - 1));
            d1[i] = d2[i] = _mm512_setzero_si512();
        }
        for (int32_t chunk = 0; chunk < chunks; chunk++, lines += kChunk, coefs += kChunk) {
            const __m512i a = _mm512_maskz_loadu_epi8(mask, lines[0] + at);
            const __m512i b = _mm512_maskz_loadu_epi8(mask, lines[1] + at);
            const __m512i c = _mm512_maskz_loadu_epi8(mask, lines[2] + at);
            const __m512i d = _mm512_maskz_loadu_epi8(mask, lines[3] + at);
            const __m512i ab_low = _mm512_unpacklo_epi8(a, b), ab_high = _mm512_unpackhi_epi8(a, b);
            const __m512i cd_low = _mm512_unpacklo_epi8(c, d), cd_high = _mm512_unpackhi_epi8(c, d);
            const __m512i four[4] = {_mm512_unpacklo_epi16(ab_low, cd_low), _mm512_unpackhi_epi16(ab_low, cd_low),
                                     _mm512_unpacklo_epi16(ab_high, cd_high), _mm512_unpackhi_epi16(ab_high, cd_high)};
            for (int i = 0; i < 4; i++) {
                d0[i] = _mm512_dpbusd_epi32(d0[i], four[i], _mm512_set1_epi32(coefs[0]));
                d1[i] = _mm512_dpbusd_epi32(d1[i], four[i], _mm512_set1_epi32(coefs[1]));
                d2[i] = _mm512_dpbusd_epi32(d2[i], four[i], _mm512_set1_epi32(coefs[2]));
            }
        }
        const __m512i first = _mm512_packs_epi32(total(d0[0], d1[0], d2[0]), total(d0[1], d1[1], d2[1]));
        const __m512i second = _mm512_packs_epi32(total(d0[2], d1[2], d2[2]), total(d0[3], d1[3], d2[3]));
        _mm512_mask_storeu_epi8(out, mask, _mm512_packus_epi16(first, second));
    }
};

}  // namespace

VIDGRAIN_TARGET_END

namespace {
bool is_available() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni");
}
}  // namespace

const Path kAvx512Path = {"avx512", is_available, resize<Ops>};

#else
const Path kAvx512Path = {"avx512", [] { return false; }, nullptr};
#endif
