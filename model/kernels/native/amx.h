// Products of tiles: accumulators in tiles 0 to 3, rows in tile 6, columns in tile 7.
#pragma once

namespace {

constexpr int kMaxBlocks = 4;  // as many accumulators

template <int T>
struct Number {
    constexpr operator int() const { return T; }
};

// Calls with Number<0>, Number<1>, ...: tiles have numbers that the compiler must know.
template <int N, int I = 0, class Call>
__attribute__((always_inline)) inline void static_for(Call call) {
    if constexpr (I < N) {
        call(Number<I>());
        static_for<N, I + 1>(call);
    }
}

// Calls with Number<count>, at most Number<N>.
template <int N, class Call>
__attribute__((always_inline)) inline void static_one_of(int count, Call call) {
    if constexpr (N > 1) {
        if (count < N) return static_one_of<N - 1>(count, call);
    }
    call(Number<N>());
}

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

// The line of a later row comes into the second cache, a line of this row that is read soon into the first.
inline void ask_ahead(const char* row, const char* ahead) {
    __builtin_prefetch(ahead, 0, 2);
    __builtin_prefetch(row + 4 * 64, 0, 3);
}

struct Int8Tiles {
    static constexpr int kPerStep = 4, kBytes = 1;
    template <int T>
    static void add() {
        asm volatile("tdpbssd %%tmm7, %%tmm6, %%tmm%c0" ::"i"(T));
    }
    // N lines of sixteen rows, from byte `at` of each, into N tiles; `left` bytes of a row remain.
    template <int N>
    static void stage(const char* const* rows, const char* const* ahead, int at, int left, uint32_t (*out)[16][16]) {
        const __mmask64 real = left >= N * 64 ? ~0ull : left > 0 ? (1ull << left) - 1 : 0;
        for (int m = 0; m < 16; m++) {
#pragma GCC unroll 8
            for (int c = 0; c < N; c++) {
                ask_ahead(rows[m] + at + c * 64, ahead[m] + at + c * 64);
                _mm512_store_si512(out[c][m], _mm512_maskz_loadu_epi8(real, rows[m] + at + c * 64));
            }
        }
    }
};
struct Bf16Tiles {
    static constexpr int kPerStep = 2, kBytes = 2;
    template <int T>
    static void add() {
        asm volatile("tdpbf16ps %%tmm7, %%tmm6, %%tmm%c0" ::"i"(T));
    }
    template <int N>
    static void stage(const char* const* rows, const char* const* ahead, int at, int left, uint32_t (*out)[16][16]) {
        __m512i most = _mm512_setzero_si512();
        for (int m = 0; m < 16; m++) {
#pragma GCC unroll 8
            for (int c = 0; c < N; c++) {
                ask_ahead(rows[m] + at + c * 64, ahead[m] + at + c * 64);
                const __m512i x = load_halves(rows[m] + at + c * 64, N == 1 ? left / 2 : 32);
                _mm512_store_si512(out[c][m], shift_to_bf16(x, most));
            }
        }
        if (!has_non_finite(most)) return;
        for (int m = 0; m < 16; m++) {
            for (int c = 0; c < N; c++) {
                const __m512i x = load_halves(rows[m] + at + c * 64, N == 1 ? left / 2 : 32);
                _mm512_store_si512(out[c][m], keep_non_finite(x, _mm512_load_si512(out[c][m])));
            }
        }
    }
};

struct alignas(64) TileConfig {
    uint8_t palette = 1, start = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
};

// Whether the tiles of this thread are set up: all have 16 rows.
inline bool& has_shape() {
    static thread_local bool is_set = false;
    return is_set;
}

inline void shape_tiles() {
    if (has_shape()) return;
    TileConfig config;
    for (int t = 0; t < 8; t++) {
        config.row_bytes[t] = 64;
        config.rows[t] = 16;
    }
    asm volatile("ldtilecfg %0" ::"m"(config));
    has_shape() = true;
}

inline void release_tiles() {
    if (!has_shape()) return;
    asm volatile("tilerelease");
    has_shape() = false;
}

// Sixteen rows with NB blocks of columns; the sums are stored as they are, 32 bits each. Rows become tiles two lines at
// a time: what is staged, the columns and what comes from memory have room in the first cache then, and the lines that
// are asked for with each staged line, of later rows and of the same row, are spread over the products.
template <class Tiles, int NB>
inline void amx_tiles(const char* const* rows, const char* const* ahead, int row_bytes, int steps,
                      const uint32_t* columns, int64_t block_stride, float* out, int stride) {
    constexpr int kLines = 2;
    alignas(64) uint32_t staged[kLines][kBlock][kBlock];
    static_for<NB>([](auto b) { tile_zero<b>(); });
    for (int k = 0; k < steps; k += kLines * kBlock) {
        const int lines = smaller(kLines, (steps - k) / kBlock);
        if (row_bytes >= 4 * k + kLines * 64)
            Tiles::template stage<kLines>(rows, ahead, 4 * k, kLines * 64, staged);
        else
            for (int c = 0; c < lines; c++)
                Tiles::template stage<1>(rows, ahead, 4 * k + c * 64, row_bytes - 4 * k - c * 64, staged + c);
        for (int c = 0; c < lines; c++) {
            tile_load<6>(staged[c], 64);
            static_for<NB>([&](auto b) {
                tile_load<7>(columns + b * block_stride + (k + c * kBlock) * kBlock, 64);
                Tiles::template add<b>();
            });
        }
    }
    static_for<NB>([&](auto b) { tile_store<b>(out + b * kBlock, stride * 4); });
}

template <class Tiles>
inline void amx_multiply(const Rows& rows, const Columns& columns, float* out) {
    const int steps = columns.steps, stride = columns.stride(), row_bytes = rows.width * Tiles::kBytes;
    const int64_t block = columns.block_stride();
    shape_tiles();
    for (int m = 0; m < rows.count; m += 16) {
        const char *stored[16], *ahead[16];
        for (int i = 0; i < 16; i++) {
            const int at = smaller(m + i, rows.count - 1);  // there is room for whole tiles of sums
            stored[i] = rows.stored[at];
            ahead[i] = rows.ahead[at];
        }
        for (int b = 0; b < columns.blocks; b += kMaxBlocks) {
            static_one_of<kMaxBlocks>(columns.blocks - b, [&](auto num_blocks) {
                amx_tiles<Tiles, num_blocks>(stored, b == 0 ? ahead : stored, row_bytes, steps,
                                             columns.words.data + b * block, block,
                                             out + static_cast<int64_t>(m) * stride + b * kBlock, stride);
            });
        }
    }
}

struct Fp16Amx : Fp16AsBf16 {
    static constexpr bool kStages = false;
    static constexpr int kMaxThin = 0, kStagedRows = 48;
    static void multiply(const Rows& rows, const Columns& columns, Scaling scaling, float*, float* out) {
        amx_multiply<Bf16Tiles>(rows, columns, out);
        if (!scaling.row_scales) return;
        const int stride = columns.stride();
        for (int m = 0; m < rows.count; m++) {
            for (int j = 0; j < stride; j += 16) {
                float* at = out + static_cast<int64_t>(m) * stride + j;
                Vec::store(at, Vec::load(at) * Vec::all(scaling.row_scales[m]));
            }
        }
    }
};

struct Int8Amx : Int8Vnni {
    static constexpr int kMaxThin = 0, kStagedRows = 48;
    static constexpr bool kStages = false, kHasSums = false;
    static float encode(const float* vector, int width, uint32_t* out, int steps) {
        return encode_int8(vector, width, out, steps, 0);
    }
    static void multiply(const Rows& rows, const Columns& columns, Scaling scaling, float*, float* out) {
        amx_multiply<Int8Tiles>(rows, columns, out);
        const int stride = columns.stride();
        for (int m = 0; m < rows.count; m++) {
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
    shape_tiles();
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
