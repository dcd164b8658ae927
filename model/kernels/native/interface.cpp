// The C functions that model/kernels/native.py calls.

#include <stdlib.h>
#include <string.h>

#include "shapes.h"

#define VIDGRAIN_EXPORT extern "C" __attribute__((visibility("default")))

constexpr int kNumPaths = 5;

// Best first. On Intel's vector units a product of two bf16 takes twice as long as one of floats, so that halving their
// number saves nothing, and rounding comes on top.
static const Path* const* paths() {
    static const Path* const kIntel[] = {&kAmxPath, &kAvx512Path, &kAvx512Bf16Path, &kAvx2Path, &kPortablePath};
    static const Path* const kOther[] = {&kAmxPath, &kAvx512Bf16Path, &kAvx512Path, &kAvx2Path, &kPortablePath};
#if defined(__x86_64__)
    static const bool is_intel = __builtin_cpu_is("intel");
    if (is_intel) return kIntel;
#endif
    return kOther;
}

static const Path* path_at(int32_t number) {
    return number >= 0 && number < kNumPaths && paths()[number]->is_available() ? paths()[number] : nullptr;
}

VIDGRAIN_EXPORT int32_t vidgrain_abi_version() {
    return kAbiVersion;
}

VIDGRAIN_EXPORT int32_t vidgrain_num_paths() {
    return kNumPaths;
}

VIDGRAIN_EXPORT const char* vidgrain_path_name(int32_t number) {
    return number >= 0 && number < kNumPaths ? paths()[number]->name : nullptr;
}

VIDGRAIN_EXPORT int32_t vidgrain_has_path(int32_t number) {
    return path_at(number) != nullptr;
}

// Null where memory is short or this CPU lacks the path.
VIDGRAIN_EXPORT Query* vidgrain_prepare(int32_t path, const QuerySettings* settings, const QueryRow* rows) {
    const Path* found = path_at(path);
    return found ? found->prepare(*settings, rows) : nullptr;
}

VIDGRAIN_EXPORT void vidgrain_release(int32_t path, Query* query) {
    if (query) paths()[path]->release(query);
}

VIDGRAIN_EXPORT int32_t vidgrain_score(int32_t path, const Query* query, const Features* features, const int64_t* rows,
                                       int64_t count, int32_t mode, int32_t slots, float* out) {
    return paths()[path]->score(*query, *features, rows, count, static_cast<Mode>(mode), slots, out);
}

// For benchmarks: multiply-adds done on registers, and a sum over memory that reads it as fast as it comes.
VIDGRAIN_EXPORT double vidgrain_peak(int32_t path, int32_t store, int64_t rounds) {
    const Path* found = path_at(path);
    return found ? found->peak(static_cast<Store>(store), rounds) : 0.0;
}

VIDGRAIN_EXPORT uint64_t vidgrain_read(const void* memory, int64_t num_bytes) {
    typedef uint64_t Wide __attribute__((vector_size(64)));
    Wide sums[4] = {};
    const char* at = static_cast<const char*>(memory);
    for (int64_t i = 0; i + 256 <= num_bytes; i += 256) {
        for (int v = 0; v < 4; v++) {
            Wide x;
            memcpy(&x, at + i + 64 * v, sizeof x);
            sums[v] ^= x;
        }
    }
    const Wide all = sums[0] ^ sums[1] ^ sums[2] ^ sums[3];
    uint64_t sum = 0;
    for (int i = 0; i < 8; i++) sum ^= all[i];
    return sum;
}
