// Memory that grows and is kept, and the constants that vectors share. Included by each path within its own namespace
// and instruction set, and therefore without the templates of the standard library: the linker would merge those of
// two paths, and a CPU could meet instructions that it lacks.
#pragma once

namespace {

// 2^r for r in -0.5..0.5, least relative error.
constexpr float kExp0 = 0.999999261f, kExp1 = 0.693121815f, kExp2 = 0.240247449f, kExp3 = 0.055917860f,
                kExp4 = 0.009570099f;

inline int smaller(int a, int b) {
    return a < b ? a : b;
}
inline int larger(int a, int b) {
    return a > b ? a : b;
}
inline int round_up(int x, int step) {
    return (x + step - 1) / step * step;
}

// An array on a cache line's boundary that only grows. `at_least` keeps nothing of what was there.
template <class T>
struct Buffer {
    T* data = nullptr;
    int64_t capacity = 0;

    Buffer() = default;
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    ~Buffer() { free(data); }

    // Null when memory is short; never when it was large enough before.
    T* at_least(int64_t count) {
        if (count > capacity || !data) {
            free(data);
            const size_t bytes = (static_cast<size_t>(count) * sizeof(T) + 4095) / 4096 * 4096;
            void* fresh = nullptr;
            data = posix_memalign(&fresh, 64, bytes) == 0 ? static_cast<T*>(fresh) : nullptr;
            capacity = data ? static_cast<int64_t>(bytes / sizeof(T)) : 0;
            if (data) memset(static_cast<void*>(data), 0, bytes);
        }
        return data;
    }
};

}  // namespace
