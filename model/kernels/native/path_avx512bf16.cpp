// AVX-512 with VNNI and BF16 (Cooper Lake, Zen 4 and later).

#include "include.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "target.h"
VIDGRAIN_TARGET("avx,avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16")

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

namespace {
double peak(Store store, int64_t rounds) {
    return store == kInt8 ? peak_of<Int8Dot>(rounds) : peak_of<Bf16Dot>(rounds);
}
using Paths = PathOf<Fp16AsBf16, Int8Vnni>;
}  // namespace

VIDGRAIN_TARGET_END

namespace {
bool is_available() {
    return kAvx512Path.is_available() && __builtin_cpu_supports("avx512bf16");
}
}  // namespace

const Path kAvx512Bf16Path = {"avx512bf16", is_available, Paths::prepare, Paths::release, Paths::score, peak};

#else
const Path kAvx512Bf16Path = {"avx512bf16", [] { return false; }, nullptr, nullptr, nullptr, nullptr};
#endif
