// A query packed for one path: its columns in the order in which tiles read them, its masks as biases, its matrices
// over attention weights transposed.
//
// Mixing is moved from the weights to the similarities: sims . (weights @ M) = weights . (M sims).
#pragma once

namespace {

constexpr float kNever = -1e30f;  // a bias under which an exponential is 0

// Columns that rows are multiplied by. Whole blocks go through the tiles; a single column left over (as a rule the
// sentence after 16 or 32 words) costs less as a plain dot product than as a block of padding: it is "thin".
struct Columns {
    int count = 0, blocks = 0, thin = 0, steps = 0;
    Buffer<uint32_t> words;       // (blocks, steps, kBlock)
    Buffer<uint32_t> thin_words;  // (thin + 1, steps): the last is all ones where a format needs sums of rows
    Buffer<float> scales;         // (stride,), ones for floats

    int stride() const { return (blocks + (thin > 0)) * kBlock; }
    int64_t block_stride() const { return static_cast<int64_t>(steps) * kBlock; }
};

// A square matrix as the columns of tiles: (blocks, side, kBlock), element [b][i][j] = matrix[b * kBlock + j][i], so
// that rows multiplied by it give matrix @ row. Empty for the identity.
struct Mix {
    int side = 0;
    Buffer<float> columns;

    explicit operator bool() const { return side > 0; }
    int blocks() const { return round_up(side, kBlock) / kBlock; }
};

struct PackedRow {
    Columns frames, pooled;
    int num_words = 0;
    Buffer<float> word_bias;  // 0 for a word, kNever beyond, to whole blocks
    Mix words_coarse, words_first, words_second;
};

struct Packed {
    QuerySettings settings;
    PackedRow* rows = nullptr;
    Mix frames_coarse, frames_second;
    Buffer<float> frames_first;  // (num_slots, num_slots) as it came; empty for the identity
    float inverse = 0.0f;        // log2(e) / temperature
    int max_stride = kBlock, max_pooled_stride = kBlock;

    ~Packed() { delete[] rows; }
};

inline bool pack_mix(Mix& mix, const float* matrix, int side) {
    if (!matrix) return true;
    mix.side = side;
    float* out = mix.columns.at_least(static_cast<int64_t>(mix.blocks()) * side * kBlock);
    if (!out) return false;
    for (int j = 0; j < side; j++) {
        float* column = out + static_cast<int64_t>(j / kBlock) * side * kBlock + j % kBlock;
        for (int i = 0; i < side; i++)
            column[static_cast<int64_t>(i) * kBlock] = matrix[static_cast<int64_t>(j) * side + i];
    }
    return true;
}

template <class Format>
bool pack_columns(Columns& columns, const float* vectors, int count, int width, int max_thin) {
    columns.count = count;
    if (count == 0) return true;
    const int rest = count % kBlock;
    columns.thin = rest == 1 || count == rest ? (rest <= max_thin ? rest : 0) : 0;
    columns.blocks = round_up(count - columns.thin, kBlock) / kBlock;
    columns.steps = round_up((width + Format::kPerStep - 1) / Format::kPerStep, kBlock);
    uint32_t* words = columns.words.at_least(columns.blocks * columns.block_stride() + kBlock);
    // one column more than is thin, for the ones that add up a row (Int8Format)
    uint32_t* thin = columns.thin_words.at_least(static_cast<int64_t>(columns.thin + 1) * columns.steps);
    float* scales = columns.scales.at_least(columns.stride() + kBlock);
    if (Format::kHasSums) {
        for (int k = 0; k < columns.steps; k++)
            thin[static_cast<int64_t>(columns.thin) * columns.steps + k] = 0x01010101;
    }
    Buffer<uint32_t> one;
    uint32_t* column = one.at_least(columns.steps);
    if (!words || !thin || !scales || !column) return false;
    for (int c = 0; c < count; c++) {
        scales[c] = Format::encode(vectors + static_cast<int64_t>(c) * width, width, column, columns.steps);
        if (c >= columns.blocks * kBlock) {
            memcpy(thin + static_cast<int64_t>(c - columns.blocks * kBlock) * columns.steps, column, 4 * columns.steps);
            continue;
        }
        uint32_t* block = words + c / kBlock * columns.block_stride() + c % kBlock;
        for (int k = 0; k < columns.steps; k++) block[k * kBlock] = column[k];
    }
    return true;
}

template <class Format>
bool pack_row(PackedRow& row, const QueryRow& given, const QuerySettings& settings) {
    row.num_words = given.num_words;
    const int slots = round_up(larger(given.num_words, 1), kBlock);
    float* bias = row.word_bias.at_least(slots);
    if (!bias) return false;
    for (int j = 0; j < slots; j++) bias[j] = j < given.num_words ? 0.0f : kNever;
    return pack_mix(row.words_coarse, given.words_coarse, given.num_words) &&
           pack_mix(row.words_first, given.words_first, given.num_words) &&
           pack_mix(row.words_second, given.words_second, given.num_words) &&
           pack_columns<Format>(row.frames, given.frame_columns, given.num_frame_columns, settings.width,
                                Format::kMaxThin) &&
           pack_columns<Format>(row.pooled, given.pooled_columns, given.num_pooled_columns, settings.pooled_width,
                                Format::kMaxThin);
}

// Null when memory is short.
template <class Format>
Packed* pack(const QuerySettings& settings, const QueryRow* given) {
    Packed* packed = new (std::nothrow) Packed;
    if (!packed) return nullptr;
    packed->settings = settings;
    packed->inverse = 1.4426950408889634f / settings.temperature;
    packed->rows = new (std::nothrow) PackedRow[settings.num_rows];
    const int side = settings.num_slots;
    bool ok = packed->rows && pack_mix(packed->frames_coarse, settings.frames_coarse, side) &&
              pack_mix(packed->frames_second, settings.frames_second, side);
    if (ok && settings.frames_first) {
        float* first = packed->frames_first.at_least(static_cast<int64_t>(side) * side);
        ok = first != nullptr;
        if (ok) memcpy(first, settings.frames_first, sizeof(float) * side * side);
    }
    for (int q = 0; ok && q < settings.num_rows; q++) {
        ok = pack_row<Format>(packed->rows[q], given[q], settings);
        packed->max_stride = larger(packed->max_stride, packed->rows[q].frames.stride());
        packed->max_pooled_stride = larger(packed->max_pooled_stride, packed->rows[q].pooled.stride());
    }
    if (!ok) {
        delete packed;
        return nullptr;
    }
    return packed;
}

}  // namespace
