// What crosses from Python into C++, and what each path of instructions offers.
#pragma once

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

// Raised whenever one of the structures or functions below changes; model/resampling/native.py holds the same number.
constexpr int kAbiVersion = 1;

// Coefficients are whole numbers, of which 2^22 make one.
constexpr int kPrecisionBits = 22;

// One axis of a resize: output i is the sum of `taps` samples from starts[i] on, all of them inside the source.
struct Axis {
    const int32_t* starts;  // count; never falling for rows
    const int32_t* coefs;   // count x taps, each smaller than 2^23 - 2^15 in size
    int32_t count;
    int32_t taps;
};

struct Picture {
    const uint8_t* pixels;  // the first row; three bytes a pixel, side by side
    int64_t row_bytes;      // from one row to the next, possibly negative
    int32_t width;
    int32_t height;
    Axis columns;
    Axis rows;
    int32_t is_rows_first;  // which axis is summed, rounded and clipped first
    uint8_t* out;           // rows.count x columns.count x 3 bytes
    int64_t out_row_bytes;
};

struct Path {
    const char* name;
    bool (*is_available)();
    bool (*resize)(const Picture&);  // false where memory is short
};

extern const Path kAvx512Path, kAvx2Path, kPortablePath;
