// AVX-512 with VNNI, which servers have had since 2019: floats for half precision, products of bytes for int8.

#include "include.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "target.h"
VIDGRAIN_TARGET("avx,avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")

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

namespace {
double peak(Store store, int64_t rounds) {
    return store == kInt8 ? peak_of<Int8Dot>(rounds) : peak_of<FloatDot>(rounds);
}
using Paths = PathOf<Fp16AsFloat, Int8Vnni>;
}  // namespace

VIDGRAIN_TARGET_END

namespace {
bool is_available() {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni");
}
}  // namespace

const Path kAvx512Path = {"avx512", is_available, Paths::prepare, Paths::release, Paths::score, peak};

#else
const Path kAvx512Path = {"avx512", [] { return false; }, nullptr, nullptr, nullptr, nullptr};
#endif
