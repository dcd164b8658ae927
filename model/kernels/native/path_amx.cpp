// AMX: tiles of 16 rows by 64 bytes, multiplied by a unit of their own (Sapphire Rapids and later). What is not a
// product of tiles is AVX-512 as in the other paths.

#include "include.h"

#if defined(__x86_64__) && defined(__linux__)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "target.h"
VIDGRAIN_TARGET("avx,avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,amx-tile,amx-int8,amx-bf16")

constexpr int kBaselineRows = 12;

#include "memory.h"
#include "vectors_avx512.h"
#include "tiles.h"
#include "query.h"
#include "aosm.h"
#include "exact.h"
#include "scorers.h"
#include "driver.h"
#include "formats.h"
#include "dots_avx512.h"
#include "bf16.h"
#include "amx.h"

namespace {
double peak(Store store, int64_t rounds) {
    return store == kInt8 ? amx_peak<Int8Tiles>(rounds) : amx_peak<Bf16Tiles>(rounds);
}
using Paths = PathOf<Fp16Amx, Int8Amx>;

Outcome score(const Query& query, const Features& features, const int64_t* rows, int64_t count, Mode mode,
              int32_t slots, float* out) {
    const Outcome outcome = Paths::score(query, features, rows, count, mode, slots, out);
    release_tiles();  // so that a thread that is switched out carries no tiles
    return outcome;
}
}  // namespace

VIDGRAIN_TARGET_END

namespace {
// The kernel gives a process room for tiles when it asks: the state of a thread is 8 KiB.
bool has_permission() {
    constexpr long kAskPermission = 0x1023, kTileData = 18;
    return syscall(SYS_arch_prctl, kAskPermission, kTileData) == 0;
}

bool has_tiles() {
    unsigned a = 7, b = 0, c = 0, d = 0;
    asm volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    constexpr unsigned kBf16 = 1u << 22, kTile = 1u << 24, kInt8Bit = 1u << 25;
    return (d & kBf16) && (d & kTile) && (d & kInt8Bit);
}

bool is_available() {
    static const bool found = kAvx512Bf16Path.is_available() && has_tiles() && has_permission();
    return found;
}
}  // namespace

const Path kAmxPath = {"amx", is_available, Paths::prepare, Paths::release, score, peak};

#else
const Path kAmxPath = {"amx", [] { return false; }, nullptr, nullptr, nullptr, nullptr};
#endif
