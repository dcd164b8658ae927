// Products of tiles: accumulators in tiles 0 to 3, rows in tile 6, columns in tile 7.
#pragma once

namespace {

// The instructions by tile number; the intrinsics take literals only.
template <int T>
inline void tile_zero() {
    asm volatile("tilezero %%tmm%c0" ::"i"(T));
}
template <int T>
inline void tile_load(const void* from, int64_t stride) {
    asm volatile("tileloadd (%1,%2,1), %%tmm%c0" ::"i"(T), "r"(from), "r"(stride) : "memory");
}
template <int T>
inline void tile_store(void* to, int64_t stride) {
    asm volatile("tilestored %%tmm%c0, (%1,%2,1)" ::"i"(T), "r"(to), "r"(stride) : "memory");
}

struct Int8Tiles {
    static constexpr int kPerStep = 4;
    template <int T>
    static void add() {
        asm volatile("tdpbssd %%tmm7, %%tmm6, %%tmm%c0" ::"i"(T));
    }
};
struct Bf16Tiles {
    static constexpr int kPerStep = 2;
    template <int T>
    static void add() {
        asm volatile("tdpbf16ps %%tmm7, %%tmm6, %%tmm%c0" ::"i"(T));
    }
};

struct alignas(64) TileConfig {
    uint8_t palette = 1, start = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
};

// Rows that the tiles of this thread are set up for, 0 for none.
inline int& tile_rows() {
    static thread_local int rows = 0;
    return rows;
}

inline void shape_tiles(int rows) {
    if (tile_rows() == rows) return;
    TileConfig config;
    for (int t = 0; t < 8; t++) {
        config.row_bytes[t] = 64;
        config.rows[t] = static_cast<uint8_t>(t == 7 ? 16 : rows);
    }
    asm volatile("ldtilecfg %0" ::"m"(config));
    tile_rows() = rows;
}

inline void release_tiles() {
    if (tile_rows() == 0) return;
    asm volatile("tilerelease");
    tile_rows() = 0;
}

// Up to 16 rows with NB blocks of columns; the sums are stored as they are, 32 bits each.
template <class Tiles, int NB>
inline void amx_tile(const uint32_t* rows, int steps, const uint32_t* columns, int64_t block_stride, float* out,
                     int stride) {
    tile_zero<0>();
    if constexpr (NB > 1) tile_zero<1>();
    if constexpr (NB > 2) tile_zero<2>();
    if constexpr (NB > 3) tile_zero<3>();
    for (int k = 0; k < steps; k += kBlock) {
        const uint32_t* at = columns + k * kBlock;
        tile_load<6>(rows + k, steps * 4);
        tile_load<7>(at, 64);
        Tiles::template add<0>();
        if constexpr (NB > 1) {
            tile_load<7>(at + block_stride, 64);
            Tiles::template add<1>();
        }
        if constexpr (NB > 2) {
            tile_load<7>(at + 2 * block_stride, 64);
            Tiles::template add<2>();
        }
        if constexpr (NB > 3) {
            tile_load<7>(at + 3 * block_stride, 64);
            Tiles::template add<3>();
        }
    }
    tile_store<0>(out, stride * 4);
    if constexpr (NB > 1) tile_store<1>(out + kBlock, stride * 4);
    if constexpr (NB > 2) tile_store<2>(out + 2 * kBlock, stride * 4);
    if constexpr (NB > 3) tile_store<3>(out + 3 * kBlock, stride * 4);
}

template <class Tiles>
inline void amx_multiply(const uint32_t* rows, int count, const Columns& columns, float* out) {
    const int steps = columns.steps, stride = columns.stride();
    const int64_t block = columns.block_stride();
    for (int m = 0; m < count; m += 16) {
        shape_tiles(smaller(16, count - m));
        const uint32_t* a = rows + static_cast<int64_t>(m) * steps;
        for (int b = 0; b < columns.blocks;) {
            const uint32_t* at = columns.words.data + b * block;
            float* c = out + static_cast<int64_t>(m) * stride + b * kBlock;
            const int left = columns.blocks - b;
            if (left >= 4)
                amx_tile<Tiles, 4>(a, steps, at, block, c, stride);
            else if (left == 3)
                amx_tile<Tiles, 3>(a, steps, at, block, c, stride);
            else if (left == 2)
                amx_tile<Tiles, 2>(a, steps, at, block, c, stride);
            else
                amx_tile<Tiles, 1>(a, steps, at, block, c, stride);
            b += 4;
        }
    }
}

struct Fp16Amx : Fp16AsBf16 {
    static constexpr int kMaxThin = 0;
    static void multiply(const uint32_t* rows, int count, const Columns& columns, Scaling, float*, float* out) {
        amx_multiply<Bf16Tiles>(rows, count, columns, out);
    }
    static void finish(int count, const Columns& columns, Scaling scaling, float* out) {
        if (!scaling.row_scales) return;
        const int stride = columns.stride();
        for (int m = 0; m < count; m++) {
            for (int j = 0; j < stride; j += 16) {
                float* at = out + static_cast<int64_t>(m) * stride + j;
                Vec::store(at, Vec::load(at) * Vec::all(scaling.row_scales[m]));
            }
        }
    }
};

struct Int8Amx : Int8Vnni {
    static constexpr int kMaxThin = 0;
    static constexpr bool kHasSums = false;
    static float encode(const float* vector, int width, uint32_t* out, int steps) {
        return encode_int8(vector, width, out, steps, 0);
    }
    static void multiply(const uint32_t* rows, int count, const Columns& columns, Scaling, float*, float* out) {
        amx_multiply<Int8Tiles>(rows, count, columns, out);
    }
    static void finish(int count, const Columns& columns, Scaling scaling, float* out) {
        const int stride = columns.stride();
        for (int m = 0; m < count; m++) {
            const Vec::F scale = Vec::all(scaling.row_scales ? scaling.row_scales[m] : 1.0f);
            for (int j = 0; j < stride; j += 16) {
                float* at = out + static_cast<int64_t>(m) * stride + j;
                const Vec::F sums = _mm512_cvtepi32_ps(_mm512_loadu_si512(at));
                Vec::store(at, sums * scale * Vec::load(scaling.column_scales + j));
            }
        }
    }
};

template <class Tiles>
inline double amx_peak(int64_t rounds) {
    alignas(64) static uint32_t zeros[16 * kBlock];
    shape_tiles(16);
    tile_load<6>(zeros, 64);
    tile_load<7>(zeros, 64);
    for (int64_t r = 0; r < rounds; r++) {
        Tiles::template add<0>();
        Tiles::template add<1>();
        Tiles::template add<2>();
        Tiles::template add<3>();
    }
    release_tiles();
    return static_cast<double>(rounds) * 4 * 16 * kBlock * kBlock * Tiles::kPerStep;
}

}  // namespace
