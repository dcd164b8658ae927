// AOSM as it is written, one number after another in double precision, each softmax with its own largest entry: what
// the driver falls back to where the shared shift of aosm.h isn't enough. Rare, so it is short and not fast.
#pragma once

namespace {

// sum_i y_i softmax(x / temperature)_i with y = matrix @ x, or x without one. Number i of x lies at x[i * step].
inline double attend_exactly(const double* x, int count, int64_t step, double temperature, const Mix* mix,
                             const float* rows, int side) {
    double best = -INFINITY, weights = 0.0, values = 0.0;
    for (int i = 0; i < count; i++) {
        const double logit = x[i * step] / temperature;
        if (!(logit <= best)) best = logit;  // NaN too
    }
    for (int i = 0; i < count; i++) {
        double y = x[i * step];
        if (mix && *mix) {
            const float* column =
                mix->columns.data + static_cast<int64_t>(i / kBlock) * mix->side * kBlock + i % kBlock;
            y = 0.0;
            for (int j = 0; j < count; j++) y += column[static_cast<int64_t>(j) * kBlock] * x[j * step];
        } else if (rows) {
            y = 0.0;
            for (int j = 0; j < count; j++) y += rows[static_cast<int64_t>(i) * side + j] * x[j * step];
        }
        const double e = exp(x[i * step] / temperature - best);
        weights += e;
        values += e * y;
    }
    return values / weights;
}

// The arguments of `aosm`; grains[kNumAttended]. False when memory is short.
inline bool aosm_exactly(const Packed& query, const PackedRow& row, const float* sims, int stride, int num_frames,
                         const float* pooled, Buffer<double>& room, double* grains) {
    const int num_words = row.num_words;
    const double t = query.settings.temperature;
    double* x = room.at_least(static_cast<int64_t>(num_frames) * (num_words + 2) + 2 * num_words);
    if (!x) return false;
    double *sentence = x + static_cast<int64_t>(num_frames) * num_words, *by_frame = sentence + num_frames,
           *by_word = by_frame + num_frames, *words = by_word + num_words;
    for (int f = 0; f < num_frames; f++) {
        const float* from = sims + static_cast<int64_t>(f) * stride;
        for (int j = 0; j < num_words; j++) x[static_cast<int64_t>(f) * num_words + j] = from[j];
        sentence[f] = from[num_words];
    }
    for (int j = 0; j < num_words; j++) words[j] = pooled[j];
    for (int f = 0; f < num_frames; f++) {
        by_frame[f] =
            attend_exactly(x + static_cast<int64_t>(f) * num_words, num_words, 1, t, &row.words_first, nullptr, 0);
    }
    for (int j = 0; j < num_words; j++) {
        by_word[j] =
            attend_exactly(x + j, num_frames, num_words, t, nullptr, query.frames_first.data, query.settings.num_slots);
    }
    grains[kSentenceFrame] = attend_exactly(sentence, num_frames, 1, t, &query.frames_coarse, nullptr, 0);
    grains[kVideoWord] = attend_exactly(words, num_words, 1, t, &row.words_coarse, nullptr, 0);
    grains[kByFrame] = attend_exactly(by_frame, num_frames, 1, t, &query.frames_second, nullptr, 0);
    grains[kByWord] = attend_exactly(by_word, num_words, 1, t, &row.words_second, nullptr, 0);
    return true;
}

}  // namespace
