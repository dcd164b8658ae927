// The epilogue of AOSM: from the similarities of a segment to the eight sums that its four grains are made of.
//
//   grain = sum_i e_i y_i / sum_i e_i,   e_i = exp((x_i - shift) / temperature),   y = x, or M x with a mixing matrix
//
// One shift serves the whole segment, its largest similarity, so that an entry of the matrix is exponentiated once for
// both directions. The exponentials are scaled by 2^kHeadroom: rows whose best is 1.2 (at a temperature of 0.01) below
// the segment's best are still exact. Below that, a sum under kLeast makes the grain NaN, and the driver turns to
// exact.h.
#pragma once

namespace {

constexpr float kHeadroom = 58.0f;
constexpr float kLeast = 1e-30f;

// What an epilogue needs of memory: one per thread.
struct Sums {
    Buffer<Vec::F> row_weights, row_values;     // (F,) each lane a share of the row's sum
    Buffer<float> sentence, by_frame, by_word;  // (F,), (F,), (W,), to whole blocks
    Buffer<float> mixed_words, mixed_frames;    // (F, stride): M over the words of a frame, over the frames of a word
    Buffer<float> mixed;                        // M x for the second step
};

// Numerators and denominators of the four grains for a vector's width of segments, each lane a share of the sum.
enum Grain { kSentenceFrame, kVideoWord, kByFrame, kByWord, kNumAttended };
struct Shares {
    Vec::F values[kNumAttended][kBlock], weights[kNumAttended][kBlock];
};

// Biases of a vector of frames: slide along 0 0 ... 0 | kNever kNever ...
struct Tail {
    float bias[2 * kBlock] = {};
    // Computed by the compiler: code that ran when the library is loaded could meet a CPU without its instructions.
    constexpr Tail() {
        for (int i = kBlock; i < 2 * kBlock; i++) bias[i] = kNever;
    }
    // For lanes at, at + 1, ... of `count`.
    Vec::F at(int at, int count) const { return Vec::load(bias + kBlock - smaller(count - at, kBlock)); }
};
constexpr Tail kTail;

// matrix @ x, to whole blocks.
inline const float* mix_one(const Mix& mix, const float* x, int count, float* out) {
    multiply<FloatDot, 1>(
        reinterpret_cast<const uint32_t*>(x), 0, 1, reinterpret_cast<const uint32_t*>(mix.columns.data), kBlock,
        static_cast<int64_t>(mix.side) * kBlock, round_up(count, kBlock) / kBlock, count, Scaling{}, out, 0);
    return out;
}

// One attention over `count` numbers -> shares of its two sums. `bias(j)` excludes the lanes beyond.
template <class Bias>
inline void attend(const float* x, const float* y, int count, float inverse, Vec::F base, Bias bias, Vec::F& values,
                   Vec::F& weights) {
    Vec::F v = Vec::all(0.0f), w = Vec::all(0.0f);
    for (int j = 0; j < count; j += Vec::kWidth) {
        const Vec::F e = Vec::exp2(Vec::load(x + j) * Vec::all(inverse) + (bias(j) + base));
        w = w + e;
        v = v + e * Vec::load(y + j);
    }
    values = v;
    weights = w;
}

// NV vectors of words against all frames: sums over frames are finished (-> by_word), sums over words are added up.
// `over_words` and `over_frames` are what the weights meet: the similarities themselves unless mixed.
template <int NV>
inline void both_ways(const float* sims, const float* over_words, const float* over_frames, int stride, int num_frames,
                      const float* word_bias, float inverse, Vec::F base, bool is_first, Sums& sums, float* by_word) {
    Vec::F bias[NV], values[NV], weights[NV];
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) {
        bias[v] = Vec::load(word_bias + v * Vec::kWidth) + base;
        values[v] = weights[v] = Vec::all(0.0f);
    }
    Vec::F *row_weights = sums.row_weights.data, *row_values = sums.row_values.data;
    const Vec::F k = Vec::all(inverse);
    for (int f = 0; f < num_frames; f++) {
        const int64_t at = static_cast<int64_t>(f) * stride;
        Vec::F row_weight = is_first ? Vec::all(0.0f) : row_weights[f];
        Vec::F row_value = is_first ? Vec::all(0.0f) : row_values[f];
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++) {
            const int64_t here = at + v * Vec::kWidth;
            const Vec::F e = Vec::exp2(Vec::load(sims + here) * k + bias[v]);
            weights[v] = weights[v] + e;
            values[v] = values[v] + e * Vec::load(over_frames + here);
            row_weight = row_weight + e;
            row_value = row_value + e * Vec::load(over_words + here);
        }
        row_weights[f] = row_weight;
        row_values[f] = row_value;
    }
#pragma GCC unroll 4
    for (int v = 0; v < NV; v++) {
        // beyond the words the sum is 0: 1 in its place keeps the padding finite
        const Vec::F beyond = Vec::load(word_bias + v * Vec::kWidth) * Vec::all(1.0f / kNever);
        Vec::store(by_word + v * Vec::kWidth, Vec::divide(values[v], weights[v] + beyond, kLeast));
    }
}

// All words, a few vectors at a time.
inline void fine_grained(const float* sims, const float* over_words, const float* over_frames, int stride,
                         int num_frames, const PackedRow& row, float inverse, Vec::F base, Sums& sums) {
    const int vecs = (row.num_words + Vec::kWidth - 1) / Vec::kWidth;
    for (int v = 0; v < vecs;) {
        const int at = v * Vec::kWidth, left = vecs - v;
        const float* bias = row.word_bias.data + at;
        float* by_word = sums.by_word.data + at;
#define VIDGRAIN_WORDS(NV)                                                                                             \
    both_ways<NV>(sims + at, over_words + at, over_frames + at, stride, num_frames, bias, inverse, base, v == 0, sums, \
                  by_word);                                                                                            \
    v += NV;
        if (left >= 4) {
            VIDGRAIN_WORDS(4)
        } else if (left == 3) {
            VIDGRAIN_WORDS(3)
        } else if (left == 2) {
            VIDGRAIN_WORDS(2)
        } else {
            VIDGRAIN_WORDS(1)
        }
#undef VIDGRAIN_WORDS
    }
}

// Sums over the words of each frame -> by_frame.
inline void finish_frames(int num_frames, Sums& sums) {
    const int padded = round_up(num_frames, Vec::kWidth);
    for (int f = num_frames; f < padded; f++) sums.row_weights.data[f] = sums.row_values.data[f] = Vec::all(0.0f);
    for (int f = 0; f < padded; f += Vec::kWidth) {
        const Vec::F beyond = kTail.at(f, num_frames) * Vec::all(1.0f / kNever);
        const Vec::F weights = Vec::sums(sums.row_weights.data + f) + beyond;
        Vec::store(sums.by_frame.data + f, Vec::divide(Vec::sums(sums.row_values.data + f), weights, kLeast));
    }
}

// The largest of all similarities that are exponentiated.
inline float largest_of(const float* sims, int stride, int num_frames, const float* sentence, const float* pooled,
                        int num_words) {
    Vec::F best = Vec::all(-3e38f);
    const int words = round_up(num_words, Vec::kWidth);
    for (int f = 0; f < num_frames; f++) {
        for (int j = 0; j < words; j += Vec::kWidth)
            best = Vec::max(best, Vec::load(sims + static_cast<int64_t>(f) * stride + j));
    }
    for (int f = 0; f < num_frames; f += Vec::kWidth) best = Vec::max(best, Vec::load(sentence + f));
    for (int j = 0; j < words; j += Vec::kWidth) best = Vec::max(best, Vec::load(pooled + j));
    return Vec::largest(best);
}

// sims (F, stride): words, then the sentence; pooled (stride): likewise. Fills slot `slot` of `shares`.
inline void aosm(const Packed& query, const PackedRow& row, const float* sims, int stride, int num_frames,
                 const float* pooled, Sums& sums, Shares& shares, int slot) {
    const int num_words = row.num_words;
    const float inverse = query.inverse;
    float* sentence = sums.sentence.data;
    for (int f = 0; f < num_frames; f++) sentence[f] = sims[static_cast<int64_t>(f) * stride + num_words];
    for (int f = num_frames; f < round_up(num_frames, kBlock); f++) sentence[f] = 0.0f;
    const float best = largest_of(sims, stride, num_frames, sentence, pooled, num_words);
    const Vec::F base = Vec::all(kHeadroom - best * inverse);

    const float *over_words = sims, *over_frames = sims;
    if (row.words_first) {
        const Mix& mix = row.words_first;
        multiply<FloatDot, 1>(reinterpret_cast<const uint32_t*>(sims), stride, num_frames,
                              reinterpret_cast<const uint32_t*>(mix.columns.data), kBlock,
                              static_cast<int64_t>(num_words) * kBlock, mix.blocks(), num_words, Scaling{},
                              sums.mixed_words.data, stride);
        over_words = sums.mixed_words.data;
    }
    if (query.frames_first.data) {
        multiply<FloatDot, 1>(reinterpret_cast<const uint32_t*>(query.frames_first.data), query.settings.num_slots,
                              num_frames, reinterpret_cast<const uint32_t*>(sims), stride, kBlock,
                              round_up(num_words, kBlock) / kBlock, num_frames, Scaling{}, sums.mixed_frames.data,
                              stride);
        over_frames = sums.mixed_frames.data;
    }
    fine_grained(sims, over_words, over_frames, stride, num_frames, row, inverse, base, sums);
    finish_frames(num_frames, sums);

    const auto of_frame = [&](int f) { return kTail.at(f, num_frames); };
    const auto of_word = [&](int j) { return Vec::load(row.word_bias.data + j); };
    float* mixed = sums.mixed.data;
    const auto through = [&](const Mix& mix, const float* x, int count) {
        return mix ? mix_one(mix, x, count, mixed) : x;
    };
    const auto put = [&](Grain grain, const float* x, const Mix& mix, int count, auto bias) {
        attend(x, through(mix, x, count), count, inverse, base, bias, shares.values[grain][slot],
               shares.weights[grain][slot]);
    };
    put(kSentenceFrame, sentence, query.frames_coarse, num_frames, of_frame);
    put(kVideoWord, pooled, row.words_coarse, num_words, of_word);
    put(kByFrame, sums.by_frame.data, query.frames_second, num_frames, of_frame);
    put(kByWord, sums.by_word.data, row.words_second, num_words, of_word);
}

}  // namespace
