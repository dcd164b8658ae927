// Segment after segment, and for each the query rows: a segment's features are read once for all of them.
//
// `Format` is how rows of a store are multiplied on a path: see path_portable.cpp for the smallest.
#pragma once

namespace {

// Rows that are multiplied together.
struct Rows {
    const uint32_t* staged;     // (count, steps) where the format stages
    const char* const* stored;  // (count,) as they lie in the store
    const char* const* ahead;   // (count,) rows of the store that are read later
    int count, width;
};

// Kept by a thread from call to call; nothing is allocated per segment.
struct Workspace {
    Buffer<uint32_t> staged;      // rows of a batch in the form that is multiplied
    Buffer<const char*> rows;     // where they are stored
    Buffer<const char*> ahead;    // and for each a row that is read later
    Buffer<float> frame_scales, pooled_scales, corrections;
    Buffer<float> sims;         // (rows of a batch, stride)
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
        if (!make_room(Format::kStagedRows)) return kNoMemory;
        const bool reads_frames = set_.scorer != kMean;
        for (int i = 0; reads_frames && i < kRowsAhead; i++) next_ahead(nullptr);
        for (int64_t begin = 0; begin < count_; begin += kBlock) {
            const int here = static_cast<int>(count_ - begin < kBlock ? count_ - begin : kBlock);
            for (int i = 0; i < here; i++) {
                group_[i] = row(begin + i);
                const Outcome outcome = check(group_[i]);
                if (outcome != kDone) return outcome;
            }
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
    // Rows between one that is read and the one that is asked for meanwhile, line by line: asking for many lines in a
    // row was slower than asking for none, because the few buffers for lines on their way were taken then.
    static constexpr int kRowsAhead = 48;

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

    // What is read of a segment sixteen segments from now.
    void ask_for_pooled(int64_t segment) const {
        if (segment < 0 || segment >= features_.num_segments) return;
        __builtin_prefetch(features_.first_frame + segment, 0, 3);
        __builtin_prefetch(features_.frame_count + segment, 0, 3);
        const int64_t size = static_cast<int64_t>(set_.pooled_width) * Format::kBytes;
        const char* at = static_cast<const char*>(features_.pooled) + segment * size;
        for (int64_t i = 0; i < size; i += 64) __builtin_prefetch(at + i, 0, 2);
        if (features_.pooled_scales) __builtin_prefetch(features_.pooled_scales + segment, 0, 3);
    }

    bool make_room(int rows) {
        const int padded = round_up(rows, kBlock), stride = query_.max_stride;
        const int64_t area = static_cast<int64_t>(padded) * stride;
        Workspace& w = work_;
        const PackedRow& first = query_.rows[0];
        const int steps = Format::kStages ? larger(first.frames.steps, first.pooled.steps) : 0;
        bool ok = w.staged.at_least(static_cast<int64_t>(padded) * steps) && w.rows.at_least(padded) &&
                  w.ahead.at_least(padded) && w.sims.at_least(area) &&
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

    // The row at `from` becomes row `at` of those that are multiplied next.
    void stage(int at, const char* from, const char* ahead, int width, int steps) {
        work_.rows.data[at] = from;
        work_.ahead.data[at] = ahead;
        if constexpr (Format::kStages)
            Format::stage(from, width, work_.staged.data + static_cast<int64_t>(at) * steps, steps);
    }

    // Similarities of the `count` staged rows with the columns of one query row, (count, stride). Lines of the rows
    // ahead are asked for with the first query row.
    void similarities(int count, int width, int q, const Columns& columns, const float* scales, float* out) {
        const Scaling scaling = {nullptr, scales, Format::kHasScales ? columns.scales.data : nullptr};
        const char* const* ahead = q == 0 ? work_.ahead.data : work_.rows.data;
        const Rows rows = {work_.staged.data, work_.rows.data, ahead, count, width};
        Format::multiply(rows, columns, scaling, work_.corrections.data, out);
    }

    // Sixteen pooled rows are one tile.
    void score_pooled(int here) {
        const int width = set_.pooled_width;
        if (query_.rows[0].pooled.count == 0) return;
        for (int i = 0; i < here; i++) {
            const int64_t segment = group_[i];
            const char* from = static_cast<const char*>(features_.pooled) + segment * width * Format::kBytes;
            stage(i, from, from, width, query_.rows[0].pooled.steps);
            const float scale = features_.pooled_scales ? features_.pooled_scales[segment] : 1.0f;
            work_.pooled_scales.data[i] = set_.has_unit_frames ? scale : unit_scale(from, width, scale);
        }
        for (int q = 0; q < set_.num_rows; q++) {
            const float* scales = features_.pooled_scales || !set_.has_unit_frames ? work_.pooled_scales.data : nullptr;
            similarities(here, width, q, query_.rows[q].pooled, scales, pooled_sims(q, 0));
        }
    }

    float* pooled_sims(int q, int i) {
        const int stride = query_.rows[q].pooled.stride();
        return work_.pooled_sims.data + static_cast<int64_t>(q) * kBlock * query_.max_pooled_stride +
               static_cast<int64_t>(i) * stride;
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
            if (end > first && num_rows + frames > Format::kStagedRows) break;
            num_rows += frames;
        }
        if (num_rows > largest_) {
            largest_ = num_rows;
            if (!make_room(num_rows)) return first;
        }
        num_rows = 0;
        for (int i = first; i < end; i++) num_rows += stage_segment(i, num_rows);
        return end;
    }

    // The frames of one segment of the group, from row `at` of the workspace -> how many there are.
    int stage_segment(int i, int at) {
        const int64_t segment = group_[i];
        const int steps = query_.rows[0].frames.steps, width = set_.width, num_frames = features_.frame_count[segment];
        const float* scales =
            features_.frame_scales ? features_.frame_scales + features_.first_frame[segment] : nullptr;
        for (int f = 0; f < num_frames; f++) {
            const char* row = frames_of(segment) + static_cast<int64_t>(f) * width * Format::kBytes;
            stage(at + f, row, next_ahead(row), width, steps);
            const float scale = scales ? scales[f] : 1.0f;
            work_.frame_scales.data[at + f] = set_.has_unit_frames ? scale : unit_scale(row, width, scale);
        }
        return num_frames;
    }

    // The next of the rows that are asked for, `otherwise` where there is none.
    const char* next_ahead(const char* otherwise) {
        while (ahead_left_ == 0) {
            if (ahead_ >= count_ || check(row(ahead_)) != kDone) return otherwise;
            ahead_row_ = frames_of(row(ahead_));
            ahead_left_ = features_.frame_count[row(ahead_)];
            ahead_++;
        }
        const char* found = ahead_row_;
        ahead_row_ += static_cast<int64_t>(set_.width) * Format::kBytes;
        ahead_left_--;
        return found;
    }

    // Segments i to end - 1 of the group, which are staged, with all query rows.
    void score_batch(int64_t begin, int i, int end) {
        int num_rows = 0;
        for (int slot = i; slot < end; slot++) num_rows += features_.frame_count[group_[slot]];
        for (int q = 0; q < set_.num_rows; q++) {
            const Columns& columns = query_.rows[q].frames;
            const float* sims = work_.sims.data;
            similarities(num_rows, set_.width, q, columns, row_scales(), work_.sims.data);
            for (int slot = i; slot < end; slot++) {
                const int64_t next = begin + slot + kBlock;
                if (q == 0 && next < count_) ask_for_pooled(row(next));
                const int num_frames = features_.frame_count[group_[slot]];
                score_pair(begin, slot, q, sims, num_frames);
                sims += static_cast<int64_t>(num_frames) * columns.stride();
            }
        }
    }

    // Of the staged rows; null where all are 1.
    const float* row_scales() const {
        return features_.frame_scales || !set_.has_unit_frames ? work_.frame_scales.data : nullptr;
    }

    // One segment of the group with one query row.
    void score_pair(int64_t begin, int i, int q, const float* sims, int num_frames) {
        const PackedRow& row = query_.rows[q];
        const int stride = row.frames.stride();
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
        const int num_frames = stage_segment(i, 0);
        similarities(num_frames, set_.width, q, packed.frames, row_scales(), work_.sims.data);
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
    int64_t ahead_ = 0;           // the segment whose rows are asked for next
    const char* ahead_row_ = nullptr;
    int ahead_left_ = 0;  // its rows from there on
    int largest_ = Format::kStagedRows;  // rows that there is room for
};

}  // namespace
