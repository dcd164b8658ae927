// The order of work for every path: which rows are summed when, and where a vector load would pass the end of a row.
//
// A path offers Ops:
//   kRows                                          rows that `columns` takes side by side
//   pack(k, out)                                   four coefficients -> the four numbers that it multiplies with
//   columns(rows, outs, starts, origin, coefs, chunks, count)   kRows rows, three bytes of each output pixel
//   rows(lines, coefs, chunks, from, num_bytes, out)            one output row
// Chunks are four taps. `columns` reads kOverread bytes past its last chunk and writes one byte past its last pixel.
#pragma once

#include "shapes.h"

namespace {

constexpr int kChunk = 4;
constexpr int kOverread = 4;
constexpr int kSlack = 64;

struct Buffer {
    explicit Buffer(int64_t num_bytes) : at(static_cast<uint8_t*>(malloc(num_bytes + kSlack))) {}
    ~Buffer() { free(at); }
    Buffer(const Buffer&) = delete;
    uint8_t* at;
};

// An axis with its coefficients as the path multiplies them; those that fill up the last chunk are zero.
template <class Ops>
struct Packed {
    explicit Packed(const Axis& axis)
        : axis(axis),
          chunks((axis.taps + kChunk - 1) / kChunk),
          buffer(sizeof(int32_t) * kChunk * chunks * axis.count) {
        if (!buffer.at) return;
        int32_t* out = reinterpret_cast<int32_t*>(buffer.at);
        for (int32_t i = 0; i < axis.count; i++) {
            for (int32_t chunk = 0; chunk < chunks; chunk++, out += kChunk) {
                int32_t four[kChunk] = {};
                const int32_t left = axis.taps - chunk * kChunk;
                memcpy(four, axis.coefs + int64_t(i) * axis.taps + chunk * kChunk,
                       sizeof(int32_t) * (left < kChunk ? left : kChunk));
                Ops::pack(four, out);
            }
        }
    }
    const int32_t* of(int32_t i) const {
        return reinterpret_cast<const int32_t*>(buffer.at) + int64_t(i) * kChunk * chunks;
    }

    const Axis& axis;
    int32_t chunks;
    Buffer buffer;
};

// Sums kRows rows along their columns. Outputs whose loads would pass the end of the row read from a copy of it.
template <class Ops>
struct ColumnPass {
    explicit ColumnPass(const Packed<Ops>& packed)
        : packed(packed), tail_bytes(3 * kChunk * packed.chunks + kSlack), tails(tail_bytes * Ops::kRows) {}

    // rows[0] begins at column `origin` and has `width` pixels.
    void run(const uint8_t* const* rows, uint8_t* const* outs, int32_t origin, int32_t width) const {
        const int32_t count = packed.axis.count;
        for (int32_t from = 0, to; from < count; from = to) {
            const bool is_inside = fits(from, origin, width);
            for (to = from + 1; to < count && fits(to, origin, width) == is_inside; to++) {}
            if (is_inside) {
                span(rows, outs, from, to, origin);
                continue;
            }
            int32_t first = packed.axis.starts[from];
            for (int32_t i = from; i < to; i++) first = packed.axis.starts[i] < first ? packed.axis.starts[i] : first;
            const uint8_t* copies[Ops::kRows];
            for (int r = 0; r < Ops::kRows; r++) {
                memcpy(tails.at + r * tail_bytes, rows[r] + int64_t(first - origin) * 3, (width + origin - first) * 3);
                copies[r] = tails.at + r * tail_bytes;
            }
            span(copies, outs, from, to, first);
        }
    }

    bool fits(int32_t i, int32_t origin, int32_t width) const {
        const int64_t start = int64_t(packed.axis.starts[i] - origin) * 3;
        return start + 3 * kChunk * packed.chunks + kOverread <= int64_t(width) * 3;
    }

    void span(const uint8_t* const* rows, uint8_t* const* outs, int32_t from, int32_t to, int32_t origin) const {
        uint8_t* at[Ops::kRows];
        for (int r = 0; r < Ops::kRows; r++) at[r] = outs[r] + int64_t(from) * 3;
        Ops::columns(rows, at, packed.axis.starts + from, origin, packed.of(from), packed.chunks, to - from);
    }

    const Packed<Ops>& packed;
    int64_t tail_bytes;
    Buffer tails;
};

// Columns first: a ring holds as many summed rows as one output row needs.
template <class Ops>
bool resize_columns_first(const Picture& picture) {
    const Packed<Ops> columns(picture.columns), rows(picture.rows);
    const ColumnPass<Ops> pass(columns);
    const int64_t num_bytes = int64_t(picture.columns.count) * 3, stride = (num_bytes + kSlack) / kSlack * kSlack;
    const int32_t slots = picture.rows.taps + Ops::kRows, num_lines = rows.chunks * kChunk;
    Buffer ring(stride * slots), pointers(sizeof(uint8_t*) * num_lines);
    if (!columns.buffer.at || !rows.buffer.at || !pass.tails.at || !ring.at || !pointers.at) return false;
    const uint8_t** lines = reinterpret_cast<const uint8_t**>(pointers.at);
    int32_t done = 0;
    for (int32_t y = 0; y < picture.rows.count; y++) {
        const int32_t start = picture.rows.starts[y], end = start + picture.rows.taps;
        if (done < start) done = start;
        while (done < end) {
            const uint8_t* from[Ops::kRows];
            uint8_t* to[Ops::kRows];
            for (int r = 0; r < Ops::kRows; r++) {  // past the last row: the last row again, to the same place
                const int32_t row = done + r < picture.height ? done + r : picture.height - 1;
                from[r] = picture.pixels + row * picture.row_bytes;
                to[r] = ring.at + row % slots * stride;
            }
            pass.run(from, to, 0, picture.width);
            done += Ops::kRows;
        }
        for (int32_t t = 0; t < num_lines; t++) {
            lines[t] = ring.at + (t < picture.rows.taps ? start + t : start) % slots * stride;
        }
        Ops::rows(lines, rows.of(y), rows.chunks, 0, num_bytes, picture.out + y * picture.out_row_bytes);
    }
    return true;
}

// Rows first: kRows summed rows at a time, no wider than the columns need.
template <class Ops>
bool resize_rows_first(const Picture& picture) {
    const Packed<Ops> columns(picture.columns), rows(picture.rows);
    const ColumnPass<Ops> pass(columns);
    int32_t left = picture.width, right = 0;
    for (int32_t i = 0; i < picture.columns.count; i++) {
        const int32_t start = picture.columns.starts[i], end = start + picture.columns.taps;
        left = start < left ? start : left;
        right = end > right ? end : right;
    }
    const int64_t in_bytes = int64_t(right - left) * 3, out_bytes = int64_t(picture.columns.count) * 3;
    const int32_t num_lines = rows.chunks * kChunk;
    Buffer summed((in_bytes + kSlack) * Ops::kRows), outs((out_bytes + kSlack) * Ops::kRows);
    Buffer pointers(sizeof(uint8_t*) * num_lines);
    if (!columns.buffer.at || !rows.buffer.at || !pass.tails.at || !summed.at || !outs.at || !pointers.at) return false;
    const uint8_t** lines = reinterpret_cast<const uint8_t**>(pointers.at);
    for (int32_t y = 0; y < picture.rows.count; y += Ops::kRows) {
        const uint8_t* from[Ops::kRows];
        uint8_t* to[Ops::kRows];
        for (int r = 0; r < Ops::kRows; r++) {
            from[r] = summed.at + r * (in_bytes + kSlack);
            to[r] = outs.at + r * (out_bytes + kSlack);
            if (y + r >= picture.rows.count) continue;  // rows that nobody reads afterwards
            const int32_t start = picture.rows.starts[y + r];
            for (int32_t t = 0; t < num_lines; t++) {
                lines[t] = picture.pixels + (t < picture.rows.taps ? start + t : start) * picture.row_bytes;
            }
            uint8_t* sums = summed.at + r * (in_bytes + kSlack);
            Ops::rows(lines, rows.of(y + r), rows.chunks, int64_t(left) * 3, in_bytes, sums);
        }
        pass.run(from, to, left, right - left);
        for (int r = 0; r < Ops::kRows && y + r < picture.rows.count; r++) {
            memcpy(picture.out + (y + r) * picture.out_row_bytes, to[r], out_bytes);
        }
    }
    return true;
}

template <class Ops>
bool resize(const Picture& picture) {
    return picture.is_rows_first ? resize_rows_first<Ops>(picture) : resize_columns_first<Ops>(picture);
}

inline uint8_t clipped(int32_t sum) {
    const int32_t value = sum >> kPrecisionBits;
    return value < 0 ? 0 : value > 255 ? 255 : value;
}

}  // namespace
