// The C functions that model/resampling/native.py calls.

#include "shapes.h"

#define VIDGRAIN_EXPORT extern "C" __attribute__((visibility("default")))

static const Path* const kPaths[] = {&kAvx512Path, &kAvx2Path, &kPortablePath};  // best first
constexpr int kNumPaths = sizeof kPaths / sizeof *kPaths;

VIDGRAIN_EXPORT int32_t vidgrain_abi_version() {
    return kAbiVersion;
}

VIDGRAIN_EXPORT int32_t vidgrain_num_paths() {
    return kNumPaths;
}

VIDGRAIN_EXPORT const char* vidgrain_path_name(int32_t path) {
    return kPaths[path]->name;
}

VIDGRAIN_EXPORT int32_t vidgrain_has_path(int32_t path) {
    return kPaths[path]->is_available();
}

VIDGRAIN_EXPORT int32_t vidgrain_resize(int32_t path, const Picture* picture) {
    return kPaths[path]->resize(*picture);
}
