// Segment after segment, and for each the query rows: a segment's features are read once for all of them.
//
// `Format` is how rows of a store are multiplied on a path: see path_portable.cpp for the smallest.
#pragma once

namespace {

// Kept by a thread from call to call; nothing is allocated per segment.
struct Workspace {
    Buffer<uint32_t> frames, pooled;  // rows in the form that is multiplied, where they aren't read in place
    Buffer<float> frame_scales, pooled_scales, corrections;
    Buffer<float> sims;         // (2, F, stride): one segment and query row is scored while the next is multiplied
    Buffer<float> pooled_sims;  // (Q, kBlock, pooled stride)
    Buffer<Shares> shares;      // (Q,)
    Buffer<double> exact;
    Sums sums;
};

inline Workspace& workspace() {
    static thread_local Workspace kept;
    return kept;
}

template <class Format>
class Search {
 public:
    Search(const Packed& query, const Features& features, const int64_t* rows, int64_t count, Mode mode, int slots,
           float* out)
        : query_(query),
          set_(query.settings),
          features_(features),
          rows_(rows),
          count_(count),
          mode_(mode),
          slots_(slots),
          out_(out),
          work_(workspace()) {}

    Outcome run() {
        if (!make_room(kStagedRows)) return kNoMemory;
        const bool reads_frames = set_.scorer != kMean;
        for (int64_t begin = 0; begin < count_; begin += kBlock) {
            const int here = static_cast<int>(count_ - begin < kBlock ? count_ - begin : kBlock);
            for (int i = 0; i < here; i++) {
                group_[i] = row(begin + i);
                const Outcome outcome = check(group_[i]);
                if (outcome != kDone) return outcome;
            }
            for (int64_t i = begin + kBlock; i < begin + 2 * kBlock && i < count_; i++) ask_for_pooled(row(i));
            score_pooled(here);
            for (int i = 0; reads_frames && i < here;) {
                const int end = stage_batch(i, here);
                if (end == i) return kNoMemory;
                score_batch(begin, i, end);
                i = end;
            }
            if (set_.scorer == kMean) finish_mean(begin, here);
            if (set_.scorer == kAosm && !finish_aosm(begin, here)) return kNoMemory;
        }
        return kDone;
    }

 private:
    // Rows that are staged in one go: rows that are read in place stay in the first cache. Many lines in order stream
    // from memory at full speed; tiles alone would wait for a dozen lines at a time.
    static constexpr int kStagedRows = 48;
    // A few lines of segments that are staged next are asked for meanwhile: the CPU's own prefetcher takes them for the
    // start of a stream and brings more. Asking for every line was slower than asking for none, because the few
    // buffers for lines on their way were taken then.
    static constexpr int kAhead = 4, kLineEvery = 2048;

    int64_t row(int64_t i) const { return rows_ ? rows_[i] : i; }

    Outcome check(int64_t segment) const {
        if (segment < 0 || segment >= features_.num_segments) return kRowOutside;
        const int64_t first = features_.first_frame[segment], frames = features_.frame_count[segment];
        if (first < 0 || frames < 1 || first > features_.num_frames - frames) return kFramesOutside;
        if (set_.num_slots > 0 && frames > set_.num_slots) return kTooManyFrames;
        return kDone;
    }

    const char* frames_of(int64_t segment) const {
        return static_cast<const char*>(features_.frames) +
               features_.first_frame[segment] * set_.width * Format::kBytes;
    }

    void ask_for_frames(int64_t segment) const {
        if (check(segment) != kDone) return;
        const char* at = frames_of(segment);
        const int64_t size = static_cast<int64_t>(features_.frame_count[segment]) * set_.width * Format::kBytes;
        for (int64_t i = 0; i < size; i += kLineEvery) __builtin_prefetch(at + i, 0, 2);
        if (features_.frame_scales) __builtin_prefetch(features_.frame_scales + features_.first_frame[segment], 0, 2);
    }

    // What is read of a segment sixteen segments from now.
    void ask_for_pooled(int64_t segment) const {
        if (segment < 0 || segment >= features_.num_segments) return;
        __builtin_prefetch(features_.first_frame + segment, 0, 3);
        __builtin_prefetch(features_.frame_count + segment, 0, 3);
        const int64_t size = static_cast<int64_t>(set_.pooled_width) * Format::kBytes;
        const char* at = static_cast<const char*>(features_.pooled) + segment * size;
        for (int64_t i = 0; i < size; i += kLineEvery) __builtin_prefetch(at + i, 0, 2);
        if (features_.pooled_scales) __builtin_prefetch(features_.pooled_scales + segment, 0, 3);
    }

    bool make_room(int rows) {
        const int padded = round_up(rows, kBlock), stride = query_.max_stride;
        const int64_t area = static_cast<int64_t>(padded) * stride;
        Workspace& w = work_;
        const PackedRow& first = query_.rows[0];
        bool ok = w.frames.at_least(static_cast<int64_t>(padded) * first.frames.steps) &&
                  w.pooled.at_least(static_cast<int64_t>(kBlock) * first.pooled.steps) && w.sims.at_least(2 * area) &&
                  w.corrections.at_least(padded) && w.frame_scales.at_least(padded) &&
                  w.pooled_scales.at_least(kBlock) && w.shares.at_least(set_.num_rows) &&
                  w.pooled_sims.at_least(static_cast<int64_t>(set_.num_rows) * kBlock * query_.max_pooled_stride);
        Sums& s = w.sums;
        ok = ok && s.row_weights.at_least(padded) && s.row_values.at_least(padded) && s.sentence.at_least(padded) &&
             s.by_frame.at_least(padded) && s.by_word.at_least(stride) && s.mixed.at_least(larger(padded, stride));
        if (query_.frames_first.data || any_words_first())
            ok = ok && s.mixed_words.at_least(area) && s.mixed_frames.at_least(area);
        return ok;
    }

    bool any_words_first() const {
        for (int q = 0; q < set_.num_rows; q++) {
            if (query_.rows[q].words_first) return true;
        }
        return false;
    }

    // Similarities of `count` rows with the columns of one query row, (count, stride), in two steps: between them a
    // unit of its own may still be multiplying.
    void start_similarities(const uint32_t* rows, int count, const Columns& columns, const float* scales, float* out) {
        Format::multiply(rows, count, columns, scaling_of(columns, scales), work_.corrections.data, out);
    }

    void end_similarities(int count, const Columns& columns, const float* scales, float* out) {
        Format::finish(count, columns, scaling_of(columns, scales), out);
    }

    void similarities(const uint32_t* rows, int count, const Columns& columns, const float* scales, float* out) {
        start_similarities(rows, count, columns, scales, out);
        end_similarities(count, columns, scales, out);
    }

    static Scaling scaling_of(const Columns& columns, const float* row_scales) {
        return {nullptr, row_scales, Format::kHasScales ? columns.scales.data : nullptr};
    }

    // Sixteen pooled rows are one tile.
    void score_pooled(int here) {
        const int width = set_.pooled_width;
        if (query_.rows[0].pooled.count == 0) return;
        const int steps = query_.rows[0].pooled.steps;
        uint32_t* staged = work_.pooled.data;
        for (int i = 0; i < here; i++) {
            const int64_t segment = group_[i];
            const char* from = static_cast<const char*>(features_.pooled) + segment * width * Format::kBytes;
            Format::stage(from, width, staged + static_cast<int64_t>(i) * steps, steps);
            const float scale = features_.pooled_scales ? features_.pooled_scales[segment] : 1.0f;
            work_.pooled_scales.data[i] = set_.has_unit_frames ? scale : unit_scale(from, width, scale);
        }
        for (int q = 0; q < set_.num_rows; q++) {
            const float* scales = features_.pooled_scales || !set_.has_unit_frames ? work_.pooled_scales.data : nullptr;
            similarities(staged, here, query_.rows[q].pooled, scales, pooled_sims(q, 0));
        }
    }

    float* pooled_sims(int q, int i) {
        const int stride = query_.rows[q].pooled.stride();
        return work_.pooled_sims.data + static_cast<int64_t>(q) * kBlock * query_.max_pooled_stride +
               static_cast<int64_t>(i) * stride;
    }

    // Reads one number of each line and drops it: the lines come into the cache.
    static void touch(const char* from, int64_t size) {
        for (int64_t i = 0; i < size; i += 64) static_cast<void>(*static_cast<const volatile char*>(from + i));
    }

    // What makes a stored row a unit vector. The scale of int8 rows cancels out, but not where it isn't a number.
    static float unit_scale(const char* row, int width, float scale) {
        const float norm = Format::norm(row, width), poison = scale * 0.0f;
        return (norm > 1e-12f || norm != norm ? 1.0f / norm : 0.0f) + poison;
    }

    // Brings the frames of segments first, first + 1, ... of the group into the form that is multiplied, as many as fit
    // together, and returns the one after them; `first` itself where memory is short.
    int stage_batch(int first, int here) {
        int num_rows = 0, end = first;
        for (; end < here; end++) {
            const int frames = features_.frame_count[group_[end]];
            if (end > first && num_rows + frames > kStagedRows) break;
            num_rows += frames;
        }
        if (num_rows > largest_) {
            largest_ = num_rows;
            if (!make_room(num_rows)) return first;
        }
        num_rows = 0;
        for (int i = first; i < end; i++) num_rows += stage(i, num_rows);
        return end;
    }

    // The frames of one segment of the group, from row `at` of the workspace -> how many there are.
    int stage(int i, int at) {
        const int64_t segment = group_[i];
        const int steps = query_.rows[0].frames.steps, width = set_.width, num_frames = features_.frame_count[segment];
        const char* from = frames_of(segment);
        const uint32_t* rows = work_.frames.data + static_cast<int64_t>(at) * steps;
        if (Format::kReadsInPlace && width == steps * Format::kPerStep) {
            rows = reinterpret_cast<const uint32_t*>(from);
            touch(from, static_cast<int64_t>(num_frames) * width * Format::kBytes);
        } else {
            for (int f = 0; f < num_frames; f++) {
                Format::stage(from + static_cast<int64_t>(f) * width * Format::kBytes, width,
                              work_.frames.data + static_cast<int64_t>(at + f) * steps, steps);
            }
        }
        const float* scales =
            features_.frame_scales ? features_.frame_scales + features_.first_frame[segment] : nullptr;
        if (!set_.has_unit_frames) {
            for (int f = 0; f < num_frames; f++) {
                const char* row = from + static_cast<int64_t>(f) * width * Format::kBytes;
                work_.frame_scales.data[at + f] = unit_scale(row, width, scales ? scales[f] : 1.0f);
            }
            scales = work_.frame_scales.data + at;
        }
        staged_[i] = {rows, scales, num_frames};
        return num_frames;
    }

    // Segments i to end - 1 of the group with all query rows. The products of the next pair are begun before a pair is
    // scored, so that the unit of AMX works on while vectors are exponentiated.
    void score_batch(int64_t begin, int i, int end) {
        const int num_queries = set_.num_rows, pairs = (end - i) * num_queries;
        float* sims[2] = {work_.sims.data, work_.sims.data + work_.sims.capacity / 2 / kBlock * kBlock};
        const auto start = [&](int pair) {
            const Staged& staged = staged_[i + pair / num_queries];
            const Columns& columns = query_.rows[pair % num_queries].frames;
            start_similarities(staged.rows, staged.count, columns, staged.scales, sims[pair & 1]);
        };
        start(0);
        for (int pair = 0; pair < pairs; pair++) {
            if (pair + 1 < pairs) start(pair + 1);
            const int slot = i + pair / num_queries, q = pair % num_queries;
            const int64_t next = begin + slot + kAhead;
            if (q == 0 && next < count_) ask_for_frames(row(next));
            end_similarities(staged_[slot].count, query_.rows[q].frames, staged_[slot].scales, sims[pair & 1]);
            score_pair(begin, slot, q, sims[pair & 1]);
        }
    }

    // One segment of the group with one query row.
    void score_pair(int64_t begin, int i, int q, const float* sims) {
        const PackedRow& row = query_.rows[q];
        const int stride = row.frames.stride(), num_frames = staged_[i].count;
        const int64_t at = q * count_ + begin + i;
        switch (set_.scorer) {
            case kAosm:
                aosm(query_, row, sims, stride, num_frames, pooled_sims(q, i), work_.sums, work_.shares.data[q], i);
                break;
            case kMultiGrained: {
                float grains[4];
                multi_grained(sims, stride, num_frames, pooled_sims(q, i), grains);
                put(at, grains, 4);
                break;
            }
            case kMaxSim:
                out_[at] = max_sim(sims, stride, num_frames, row.num_words, row.word_bias.data);
                break;
            case kMaxFrame:
                out_[at] = max_frame(sims, stride, num_frames);
                break;
            default:
                relevance(sims, stride, num_frames, row.frames.count - 1, slots_, out_ + at * slots_);
        }
    }

    void put(int64_t at, const float* grains, int count) {
        if (mode_ == kGrains) {
            memcpy(out_ + at * count, grains, sizeof(float) * count);
            return;
        }
        float total = 0.0f;
        for (int g = 0; g < count; g++) total += grains[g];
        out_[at] = total / static_cast<float>(count);
    }

    void finish_mean(int64_t begin, int here) {
        for (int q = 0; q < set_.num_rows; q++) {
            for (int i = 0; i < here; i++) out_[q * count_ + begin + i] = pooled_sims(q, i)[0];
        }
    }

    // The sums over lanes of sixteen segments at once; those whose exponentials underflowed are done again.
    bool finish_aosm(int64_t begin, int here) {
        for (int q = 0; q < set_.num_rows; q++) {
            Shares& shares = work_.shares.data[q];
            float found[kNumAttended][kBlock];
            for (int g = 0; g < kNumAttended; g++) {
                for (int i = here; i < kBlock; i++) shares.values[g][i] = shares.weights[g][i] = Vec::all(0.0f);
                for (int i = 0; i < kBlock; i += Vec::kWidth) {
                    Vec::store(found[g] + i,
                               Vec::divide(Vec::sums(shares.values[g] + i), Vec::sums(shares.weights[g] + i), kLeast));
                }
            }
            for (int i = 0; i < here; i++) {
                const float whole = pooled_sims(q, i)[query_.rows[q].num_words];
                float grains[4] = {whole, found[kVideoWord][i], found[kSentenceFrame][i],
                                   0.5f * (found[kByFrame][i] + found[kByWord][i])};
                const float sum = grains[1] + grains[2] + grains[3];
                if (!(sum - sum == 0.0f) && !again(q, begin, i, grains)) return false;
                put(q * count_ + begin + i, grains, 4);
            }
        }
        return true;
    }

    bool again(int q, int64_t begin, int i, float* grains) {
        const PackedRow& packed = query_.rows[q];
        const int num_frames = stage(i, 0);
        similarities(staged_[i].rows, num_frames, packed.frames, staged_[i].scales, work_.sims.data);
        double exact[kNumAttended];
        if (!aosm_exactly(query_, packed, work_.sims.data, packed.frames.stride(), num_frames, pooled_sims(q, i),
                          work_.exact, exact))
            return false;
        grains[1] = static_cast<float>(exact[kVideoWord]);
        grains[2] = static_cast<float>(exact[kSentenceFrame]);
        grains[3] = static_cast<float>(0.5 * (exact[kByFrame] + exact[kByWord]));
        return true;
    }

    const Packed& query_;
    const QuerySettings& set_;
    const Features& features_;
    const int64_t* rows_;
    const int64_t count_;
    const Mode mode_;
    const int slots_;
    float* const out_;
    Workspace& work_;
    int64_t group_[kBlock] = {};  // the segments that are being scored
    struct Staged {
        const uint32_t* rows;
        const float* scales;
        int count;
    } staged_[kBlock] = {};
    int largest_ = kStagedRows;  // rows that there is room for
};

}  // namespace
