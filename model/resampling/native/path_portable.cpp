// Plain C++, for every processor.

#include "driver.h"

namespace {

struct Ops {
    static constexpr int kRows = 1;

    static void pack(const int32_t* k, int32_t* out) {
        memcpy(out, k, sizeof(int32_t) * kChunk);
    }

    static void columns(const uint8_t* const* rows, uint8_t* const* outs, const int32_t* starts, int32_t origin,
                        const int32_t* coefs, int32_t chunks, int32_t count) {
        uint8_t* out = outs[0];
        for (int32_t i = 0; i < count; i++, out += 3) {
            const uint8_t* at = rows[0] + int64_t(starts[i] - origin) * 3;
            int32_t red = 1 << (kPrecisionBits - 1), green = red, blue = red;
            for (int32_t t = 0; t < chunks * kChunk; t++, at += 3) {
                const int32_t k = *coefs++;
                red += k * at[0];
                green += k * at[1];
                blue += k * at[2];
            }
            out[0] = clipped(red);
            out[1] = clipped(green);
            out[2] = clipped(blue);
        }
    }

    static void rows(const uint8_t* const* lines, const int32_t* coefs, int32_t chunks, int64_t from, int64_t num_bytes,
                     uint8_t* out) {
        constexpr int kBlock = 64;
        for (int64_t at = 0; at < num_bytes; at += kBlock) {
            const int size = num_bytes - at < kBlock ? int(num_bytes - at) : kBlock;
            int32_t sums[kBlock];
            for (int i = 0; i < size; i++) sums[i] = 1 << (kPrecisionBits - 1);
            for (int32_t t = 0; t < chunks * kChunk; t++) {
                const uint8_t* line = lines[t] + from + at;
                const int32_t k = coefs[t];
                for (int i = 0; i < size; i++) sums[i] += k * line[i];
            }
            for (int i = 0; i < size; i++) out[at + i] = clipped(sums[i]);
        }
    }
};

bool is_available() {
    return true;
}

}  // namespace

const Path kPortablePath = {"portable", is_available, resize<Ops>};
