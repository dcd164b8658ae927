// The epilogues of the scorers that need no attention, and of relevance. What isn't finite stays so: a maximum ignores
// NaN, and therefore a sum goes with it.
#pragma once

namespace {

// sims (F, 2): the sentence, the mean word through the head; pooled (2): the sentence through the head, the mean word.
// The mean of cosines is the cosine with the mean. The order of the grains is model.types.GRAINS.
inline void multi_grained(const float* sims, int stride, int num_frames, const float* pooled, float* grains) {
    float sentence = 0.0f, words = 0.0f;
    for (int f = 0; f < num_frames; f++) {
        sentence += sims[static_cast<int64_t>(f) * stride];
        words += sims[static_cast<int64_t>(f) * stride + 1];
    }
    const float share = 1.0f / static_cast<float>(num_frames);
    grains[0] = pooled[0];
    grains[1] = pooled[1];
    grains[2] = sentence * share;
    grains[3] = words * share;
}

// The best frame of each word, the mean over words; sims (F, stride).
inline float max_sim(const float* sims, int stride, int num_frames, int num_words, const float* word_bias) {
    Vec::F total = Vec::all(0.0f);
    for (int j = 0; j < num_words; j += Vec::kWidth) {
        Vec::F best = Vec::load(sims + j), poison = best * Vec::all(0.0f);
        for (int f = 1; f < num_frames; f++) {
            const Vec::F x = Vec::load(sims + static_cast<int64_t>(f) * stride + j);
            best = Vec::max(best, x);
            poison = poison + x * Vec::all(0.0f);
        }
        const Vec::F real = Vec::all(1.0f) - Vec::load(word_bias + j) * Vec::all(1.0f / kNever);
        total = total + (best + poison) * real;
    }
    float lanes[Vec::kWidth], sum = 0.0f;
    Vec::store(lanes, total);
    for (int i = 0; i < Vec::kWidth; i++) sum += lanes[i];
    return sum / static_cast<float>(num_words);
}

inline float max_frame(const float* sims, int stride, int num_frames) {
    float best = sims[0], poison = 0.0f;
    for (int f = 0; f < num_frames; f++) {
        const float x = sims[static_cast<int64_t>(f) * stride];
        best = x > best ? x : best;
        poison += x * 0.0f;
    }
    return best + poison;
}

// One number a frame: its cosine with the whole query, and for a clip the mean of that and its best part. sims hold the
// parts and then the whole; out (slots), -inf in slots without a frame.
inline void relevance(const float* sims, int stride, int num_frames, int num_parts, int slots, float* out) {
    for (int f = 0; f < slots; f++) {
        if (f >= num_frames) {
            out[f] = -INFINITY;
            continue;
        }
        const float* x = sims + static_cast<int64_t>(f) * stride;
        out[f] = x[num_parts];
        if (num_parts == 0) continue;
        float best = x[0], poison = 0.0f;
        for (int j = 0; j < num_parts; j++) {
            best = x[j] > best ? x[j] : best;
            poison += x[j] * 0.0f;
        }
        out[f] = 0.5f * (out[f] + best + poison);
    }
}

}  // namespace
