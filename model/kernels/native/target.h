// Switches an instruction set on for what lies between the two macros: a package's build gives all files the same
// flags.
#pragma once

#define VIDGRAIN_PRAGMA(x) _Pragma(#x)
#if defined(__clang__)
#define VIDGRAIN_TARGET(set) VIDGRAIN_PRAGMA(clang attribute push(__attribute__((target(set))), apply_to = function))
#define VIDGRAIN_TARGET_END VIDGRAIN_PRAGMA(clang attribute pop)
#else
#define VIDGRAIN_TARGET(set) VIDGRAIN_PRAGMA(GCC push_options) VIDGRAIN_PRAGMA(GCC target(set))
#define VIDGRAIN_TARGET_END VIDGRAIN_PRAGMA(GCC pop_options)
#endif
