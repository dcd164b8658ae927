// AVX2. A coefficient is split into two whole numbers of 16 bits, k = high * 2^12 + low, so that products with bytes
// are summed exactly by the multiply-add of 16-bit pairs.

#include "shapes.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "../../kernels/native/target.h"
VIDGRAIN_TARGET("avx,avx2")

#include "driver.h"

namespace {

constexpr int kLowBits = 12;

// Two 128-bit halves of two rows.
inline __m256i halves(const uint8_t* first, const uint8_t* second) {
    const __m128i low = _mm_loadu_si128(reinterpret_cast<const __m128i*>(first));
    const __m128i high = _mm_loadu_si128(reinterpret_cast<const __m128i*>(second));
    return _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
}

inline __m256i add_products(__m256i sum, __m256i pairs, int32_t coefs) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi32(coefs)));
}

inline __m256i total(__m256i high, __m256i low) {
    return _mm256_srai_epi32(_mm256_add_epi32(_mm256_slli_epi32(high, kLowBits), low), kPrecisionBits);
}

inline void store_pixel(uint8_t* at, int32_t bytes) {
    memcpy(at, &bytes, sizeof bytes);
}

struct Ops {
    static constexpr int kRows = 4;

    // Of taps 0 and 1 the high and the low parts, then of taps 2 and 3.
    static void pack(const int32_t* k, int32_t* out) {
        for (int pair = 0; pair < 2; pair++) {
            int32_t high[2], low[2];
            for (int i = 0; i < 2; i++) {
                high[i] = (k[2 * pair + i] + (1 << (kLowBits - 1))) >> kLowBits;
                low[i] = k[2 * pair + i] - high[i] * (1 << kLowBits);
            }
            out[2 * pair] = int32_t(uint32_t(high[0] & 0xffff) | uint32_t(high[1]) << 16);
            out[2 * pair + 1] = int32_t(uint32_t(low[0] & 0xffff) | uint32_t(low[1]) << 16);
        }
    }

    static void columns(const uint8_t* const* rows, uint8_t* const* outs, const int32_t* starts, int32_t origin,
                        const int32_t* coefs, int32_t chunks, int32_t count) {
        constexpr char Z = -128;
        const __m256i taps01 =
            _mm256_broadcastsi128_si256(_mm_setr_epi8(0, Z, 3, Z, 1, Z, 4, Z, 2, Z, 5, Z, Z, Z, Z, Z));
        const __m256i taps23 =
            _mm256_broadcastsi128_si256(_mm_setr_epi8(6, Z, 9, Z, 7, Z, 10, Z, 8, Z, 11, Z, Z, Z, Z, Z));
        const __m256i half = _mm256_set1_epi32(1 << (kPrecisionBits - 1));
        const uint8_t *row0 = rows[0], *row1 = rows[1], *row2 = rows[2], *row3 = rows[3];
        uint8_t *out0 = outs[0], *out1 = outs[1], *out2 = outs[2], *out3 = outs[3];
        for (int32_t i = 0; i < count; i++) {
            int64_t at = int64_t(starts[i] - origin) * 3;
            __m256i high_a = _mm256_setzero_si256(), high_b = high_a, low_a = half, low_b = half;
            for (int32_t chunk = 0; chunk < chunks; chunk++, at += 3 * kChunk, coefs += kChunk) {
                const __m256i a = halves(row0 + at, row1 + at), b = halves(row2 + at, row3 + at);
                const __m256i a01 = _mm256_shuffle_epi8(a, taps01), b01 = _mm256_shuffle_epi8(b, taps01);
                high_a = add_products(high_a, a01, coefs[0]);
                high_b = add_products(high_b, b01, coefs[0]);
                low_a = add_products(low_a, a01, coefs[1]);
                low_b = add_products(low_b, b01, coefs[1]);
                const __m256i a23 = _mm256_shuffle_epi8(a, taps23), b23 = _mm256_shuffle_epi8(b, taps23);
                high_a = add_products(high_a, a23, coefs[2]);
                high_b = add_products(high_b, b23, coefs[2]);
                low_a = add_products(low_a, a23, coefs[3]);
                low_b = add_products(low_b, b23, coefs[3]);
            }
            const __m256i words = _mm256_packs_epi32(total(high_a, low_a), total(high_b, low_b));
            const __m256i bytes = _mm256_packus_epi16(words, words);
            const __m128i even = _mm256_castsi256_si128(bytes), odd = _mm256_extracti128_si256(bytes, 1);
            store_pixel(out0 + 3 * i, _mm_cvtsi128_si32(even));
            store_pixel(out1 + 3 * i, _mm_cvtsi128_si32(odd));
            store_pixel(out2 + 3 * i, _mm_extract_epi32(even, 1));
            store_pixel(out3 + 3 * i, _mm_extract_epi32(odd, 1));
        }
    }

    static void rows(const uint8_t* const* lines, const int32_t* coefs, int32_t chunks, int64_t from, int64_t num_bytes,
                     uint8_t* out) {
        constexpr int64_t kBlock = 32;
        int64_t at = 0;
        for (; at + kBlock <= num_bytes; at += kBlock) block(lines, coefs, chunks, from + at, out + at);
        if (at == num_bytes) return;
        if (num_bytes >= kBlock) {  // the last block again, moved back to the end
            block(lines, coefs, chunks, from + num_bytes - kBlock, out + num_bytes - kBlock);
            return;
        }
        uint8_t copies[kChunk][kBlock] = {}, last[kBlock];
        const uint8_t* copied[kChunk];
        __m256i sums[8];
        start(sums);
        for (int t = 0; t < kChunk; t++) copied[t] = copies[t];
        for (int32_t chunk = 0; chunk < chunks; chunk++) {
            for (int t = 0; t < kChunk; t++) memcpy(copies[t], lines[chunk * kChunk + t] + from, num_bytes);
            add_chunk(sums, copied, coefs + chunk * kChunk, 0);
        }
        finish(sums, last);
        memcpy(out, last, num_bytes);
    }

    static void start(__m256i* sums) {
        for (int i = 0; i < 4; i++) {
            sums[2 * i] = _mm256_setzero_si256();
            sums[2 * i + 1] = _mm256_set1_epi32(1 << (kPrecisionBits - 1));
        }
    }

    // 32 bytes of four rows.
    __attribute__((always_inline)) static inline void add_chunk(__m256i* sums, const uint8_t* const* lines,
                                                                const int32_t* coefs, int64_t at) {
        const __m256i zero = _mm256_setzero_si256();
        for (int pair = 0; pair < 2; pair++) {
            const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(lines[2 * pair] + at));
            const __m256i b = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(lines[2 * pair + 1] + at));
            const __m256i low = _mm256_unpacklo_epi8(a, b), high = _mm256_unpackhi_epi8(a, b);
            const __m256i pairs[4] = {_mm256_unpacklo_epi8(low, zero), _mm256_unpackhi_epi8(low, zero),
                                      _mm256_unpacklo_epi8(high, zero), _mm256_unpackhi_epi8(high, zero)};
            for (int i = 0; i < 4; i++) {
                sums[2 * i] = add_products(sums[2 * i], pairs[i], coefs[2 * pair]);
                sums[2 * i + 1] = add_products(sums[2 * i + 1], pairs[i], coefs[2 * pair + 1]);
            }
        }
    }

    __attribute__((always_inline)) static inline void finish(const __m256i* sums, uint8_t* out) {
        const __m256i first = _mm256_packs_epi32(total(sums[0], sums[1]), total(sums[2], sums[3]));
        const __m256i second = _mm256_packs_epi32(total(sums[4], sums[5]), total(sums[6], sums[7]));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm256_packus_epi16(first, second));
    }

    static void block(const uint8_t* const* lines, const int32_t* coefs, int32_t chunks, int64_t at, uint8_t* out) {
        __m256i sums[8];
        start(sums);
        for (int32_t chunk = 0; chunk < chunks; chunk++) {
            add_chunk(sums, lines + chunk * kChunk, coefs + chunk * kChunk, at);
        }
        finish(sums, out);
    }
};

}  // namespace

VIDGRAIN_TARGET_END

namespace {
bool is_available() {
    return __builtin_cpu_supports("avx2");
}
}  // namespace

const Path kAvx2Path = {"avx2", is_available, resize<Ops>};

#else
const Path kAvx2Path = {"avx2", [] { return false; }, nullptr};
#endif
