// The path that every machine has: what the compiler makes of four floats at a time (SSE2, Arm NEON).

#include "include.h"

#if defined(__aarch64__)
constexpr int kBaselineRows = 4;  // 32 registers
#else
constexpr int kBaselineRows = 2;
#endif
#define VIDGRAIN_LANES 4

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
bool is_available() {
    return true;
}
double peak(Store, int64_t rounds) {
    return peak_of<FloatDot>(rounds);
}
using Paths = PathOf<Fp16AsFloat, Int8AsFloat>;
}  // namespace

const Path kPortablePath = {"portable", is_available, Paths::prepare, Paths::release, Paths::score, peak};
