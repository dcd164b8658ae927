// AVX2 with FMA and F16C: eight floats at a time.

#include "include.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "target.h"
VIDGRAIN_TARGET("avx,avx2,fma,f16c")

constexpr int kBaselineRows = 6;
#define VIDGRAIN_LANES 8

#include "memory.h"
#include "vectors_generic.h"
#include "tiles.h"
#include "query.h"
#include "aosm.h"
#include "exact.h"
#include "scorers.h"
#include "driver.h"
#include "formats.h"

namespace {
double peak(Store, int64_t rounds) {
    return peak_of<FloatDot>(rounds);
}
using Paths = PathOf<Fp16AsFloat, Int8AsFloat>;
}  // namespace

VIDGRAIN_TARGET_END

namespace {
bool is_available() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}
}  // namespace

const Path kAvx2Path = {"avx2", is_available, Paths::prepare, Paths::release, Paths::score, peak};

#else
const Path kAvx2Path = {"avx2", [] { return false; }, nullptr, nullptr, nullptr, nullptr};
#endif
