// What is passed between Python, the driver and the paths. Plain data: every path includes it.
//
// Letters used in all files of this folder:
//   Q query rows, W words of a row (real ones only), F frames of a segment, N segments,
//   D width of frames, P width of pooled vectors,
//   C columns of a panel (what a feature row is multiplied by), in blocks of kBlock,
//   K steps of a dot product: a step is 32 bits of a row, i.e. one float, two bf16 or four int8.
#pragma once

#include <cstdint>

constexpr int kAbiVersion = 1;  // model/kernels/native.py refuses any other
constexpr int kBlock = 16;      // columns of a block: 16 words of 32 bits are one cache line

enum Scorer : int32_t { kAosm, kMultiGrained, kMaxSim, kMaxFrame, kMean, kRelevance, kClipRelevance };
enum Store : int32_t { kFp16, kInt8 };
enum Mode : int32_t { kTotals, kGrains };
enum Outcome : int32_t { kDone, kRowOutside, kFramesOutside, kTooManyFrames, kNoMemory };

// FeatureBlock of model/kernels/block.py.
struct Features {
    const void* frames;          // (num_frames, D)
    const void* pooled;          // (N, P)
    const int64_t* first_frame;  // (N,)
    const int32_t* frame_count;  // (N,)
    const float* frame_scales;   // (num_frames,) or null
    const float* pooled_scales;  // (N,) or null
    int64_t num_segments;
    int64_t num_frames;
};

// One query row as Python passes it: padding removed, columns not yet packed.
struct QueryRow {
    const float* frame_columns;   // (num_frame_columns, D)
    const float* pooled_columns;  // (num_pooled_columns, P)
    const float* words_coarse;    // (W, W) or null for the identity, like the next two
    const float* words_first;
    const float* words_second;
    int32_t num_frame_columns;
    int32_t num_pooled_columns;
    int32_t num_words;
};

// What holds for all rows of a query.
struct QuerySettings {
    const float* frames_coarse;  // (num_slots, num_slots) or null, like the next two
    const float* frames_first;
    const float* frames_second;
    float temperature;
    int32_t num_slots;  // side of the matrices over frames; 0 without any
    int32_t scorer;
    int32_t store;
    int32_t width;         // D
    int32_t pooled_width;  // P
    int32_t num_rows;      // Q
    int32_t has_unit_frames;
};

struct Query;  // packed; each path has its own

// The functions of one path (one instruction set).
struct Path {
    const char* name;
    bool (*is_available)();
    Query* (*prepare)(const QuerySettings&, const QueryRow*);
    void (*release)(Query*);
    // Score `count` segments, rows[i] or i itself where rows is null. out: kTotals (Q, count), kGrains (Q, count, G),
    // and for the two scorers of relevance (Q, count, slots).
    Outcome (*score)(const Query&, const Features&, const int64_t* rows, int64_t count, Mode, int32_t slots,
                     float* out);
    // Multiply-adds done by `rounds` rounds of the instruction that limits this path, on registers.
    double (*peak)(Store, int64_t rounds);
};

extern const Path kAmxPath, kAvx512Bf16Path, kAvx512Path, kAvx2Path, kPortablePath;
