// The inner loops of attention_kernel.cpp, which includes this file once per instruction set: EDGEPRUNE_TARGET is the
// function attribute that chooses it, EDGEPRUNE_F16C whether it converts halves. Eight rows of queries lie in the eight
// lanes of a vector, so that neither the softmax nor the products need a sum across lanes; a row that is alone has its
// own form. Element: what the cache holds, float or Half; sums are floats. No include guard on purpose.

using Lanes = float __attribute__((vector_size(32)));
using Whole = int32_t __attribute__((vector_size(32)));
using Bits = uint32_t __attribute__((vector_size(32)));
using Halves = Half __attribute__((vector_size(16)));
using HalfLanes = float __attribute__((vector_size(16)));
// The same in memory that is aligned to single numbers.
using LooseLanes = float __attribute__((vector_size(32), aligned(4), may_alias));

EDGEPRUNE_TARGET static inline void load(const float* from, Lanes& to) {
    to = *reinterpret_cast<const LooseLanes*>(from);
}

// Exact for every finite half: its bits in a float's places are off by a power of two.
EDGEPRUNE_TARGET static inline void load(const Half* from, Lanes& to) {
#if EDGEPRUNE_F16C
    to = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
#else
    Halves halves;
    __builtin_memcpy(&halves, from, sizeof halves);
    const Bits bits = __builtin_convertvector(halves, Bits);
    const Bits magnitude = (bits & 0x7fffU) << 13, sign = (bits & 0x8000U) << 16;
    __builtin_memcpy(&to, &magnitude, sizeof to);
    to *= 0x1p112F;
    Bits signed_bits;
    __builtin_memcpy(&signed_bits, &to, sizeof to);
    signed_bits |= sign;
    __builtin_memcpy(&to, &signed_bits, sizeof to);
#endif
}

EDGEPRUNE_TARGET static inline float number(float stored) {
    return stored;
}

EDGEPRUNE_TARGET static inline float number(Half stored) {
    return half_to_float(stored);
}

// Rows of floats, `stride` apart.
struct Wide {
    const float* data;
    int64_t stride;
};

// `rows` rows of `columns` numbers out of rows of `width`: where they lie, or copied to `room` (rows,columns).
EDGEPRUNE_TARGET static inline Wide widened(const float* from, int64_t, int64_t, int64_t width, float*) {
    return {from, width};
}

EDGEPRUNE_TARGET static inline Wide widened(const Half* from, int64_t rows, int64_t columns, int64_t width,
                                            float* room) {
    for (int64_t row = 0; row < rows; ++row) {
        const Half* const source = from + row * width;
        float* const to = room + row * columns;
        int64_t i = 0;
        for (; i + 8 <= columns; i += 8) {
            Lanes eight;
            load(source + i, eight);
            *reinterpret_cast<LooseLanes*>(to + i) = eight;
        }
        for (; i < columns; ++i) to[i] = number(source[i]);
    }
    return {room, columns};
}

EDGEPRUNE_TARGET static bool narrow(const float* from, int64_t count, Half* to) {
    bool fits = true;
    int64_t i = 0;
#if EDGEPRUNE_F16C
    Whole all = Whole{} - 1;
    for (; i + 8 <= count; i += 8) {
        Lanes eight;
        load(from + i, eight);
        all &= (eight < Lanes{} + kHalfEnd) & (eight > Lanes{} - kHalfEnd);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i), _mm256_cvtps_ph(eight, _MM_FROUND_TO_NEAREST_INT));
    }
    for (int64_t k = 0; k < 8; ++k) fits = fits && all[k] != 0;
#endif
    for (; i < count; ++i) {
        fits = fits && from[i] < kHalfEnd && from[i] > -kHalfEnd;
        to[i] = float_to_half(from[i]);
    }
    return fits;
}

// Of `count` rows from `from` on, one prefetch for each line of the processor's cache.
template <class Element>
EDGEPRUNE_TARGET static inline void prefetch(const Element* from, int64_t count) {
    constexpr int64_t kLine = 64 / sizeof(Element);
    for (int64_t i = 0; i < count; i += kLine) __builtin_prefetch(from + i);
}

// Logits of `count` keys (count,d) with the queries (d,8), to (count,8). Meanwhile as many rows are fetched from
// `ahead`.
template <class Element>
EDGEPRUNE_TARGET static inline void logits_of(const Element* keys, int64_t count, int64_t width, const float* query,
                                              const Element* ahead, Lanes* logits) {
    alignas(32) float room[8 * kColumns];
    int64_t j = 0;
    for (; j + 8 <= count; j += 8) {
        prefetch(ahead + j * width, 8 * width);
        Lanes a{}, b{}, c{}, d{}, e{}, f{}, g{}, h{};
        for (int64_t first = 0; first < width; first += kColumns) {
            const int64_t columns = width - first < kColumns ? width - first : kColumns;
            const Wide key = widened(keys + j * width + first, 8, columns, width, room);
            for (int64_t i = 0; i < columns; ++i) {
                const Lanes q = *reinterpret_cast<const LooseLanes*>(query + (first + i) * kRows);
                const float* const column = key.data + i;
                a += q * column[0];
                b += q * column[key.stride];
                c += q * column[2 * key.stride];
                d += q * column[3 * key.stride];
                e += q * column[4 * key.stride];
                f += q * column[5 * key.stride];
                g += q * column[6 * key.stride];
                h += q * column[7 * key.stride];
            }
        }
        const Lanes all[8] = {a, b, c, d, e, f, g, h};
        for (int64_t k = 0; k < 8; ++k) logits[j + k] = all[k];
    }
    for (; j < count; ++j) {
        Lanes sum{};
        for (int64_t first = 0; first < width; first += kColumns) {
            const int64_t columns = width - first < kColumns ? width - first : kColumns;
            const Wide key = widened(keys + j * width + first, 1, columns, width, room);
            for (int64_t i = 0; i < columns; ++i) {
                sum += *reinterpret_cast<const LooseLanes*>(query + (first + i) * kRows) * key.data[i];
            }
        }
        logits[j] = sum;
    }
}

// Adds weights (count,8) times values (count,d) to the rows, four of them at a time: sums (rows to the next multiple of
// 4,d). Meanwhile as many rows are fetched from `ahead`: the memory is never asked for more at once than it gives.
template <class Element>
EDGEPRUNE_TARGET static inline void add_values(const Element* values, int64_t count, int64_t width,
                                               const float* weights, int64_t rows, float* sums, const Element* ahead) {
    alignas(32) float room[kTile * 16];
    int64_t i = 0;
    for (; i + 16 <= width; i += 16) {
        const Wide columns = widened(values + i, count, 16, width, room);
        for (int64_t first = 0; first < rows; first += 4) {
            float* const to = sums + first * width + i;
            Lanes s[4][2];
            for (int64_t row = 0; row < 4; ++row) {
                load(to + row * width, s[row][0]);
                load(to + row * width + 8, s[row][1]);
            }
            const float* value = columns.data;
            const Element* line = ahead + i * count;
            for (int64_t j = 0; j < count; ++j, value += columns.stride, line += 16) {
                __builtin_prefetch(line);
                const Lanes low = *reinterpret_cast<const LooseLanes*>(value);
                const Lanes high = *reinterpret_cast<const LooseLanes*>(value + 8);
                for (int64_t row = 0; row < 4; ++row) {
                    s[row][0] += low * weights[j * kRows + first + row];
                    s[row][1] += high * weights[j * kRows + first + row];
                }
            }
            for (int64_t row = 0; row < 4; ++row) {
                *reinterpret_cast<LooseLanes*>(to + row * width) = s[row][0];
                *reinterpret_cast<LooseLanes*>(to + row * width + 8) = s[row][1];
            }
        }
    }
    for (; i < width; ++i) {
        for (int64_t row = 0; row < rows; ++row) {
            float sum = sums[row * width + i];
            for (int64_t j = 0; j < count; ++j) sum += weights[j * kRows + row] * number(values[j * width + i]);
            sums[row * width + i] = sum;
        }
    }
}

// One block of 8 rows over the places [begin, end) of one key head, a tile of them after the other, with the largest
// logit so far taken off before the exponential.
template <class Element>
EDGEPRUNE_TARGET static void run_block(const Block& block, const Element* keys, const Element* values, int64_t begin,
                                       int64_t end, int64_t width) {
    Whole limits;
    __builtin_memcpy(&limits, block.limits, sizeof limits);
    Lanes largest = Lanes{} + kNothingSeen, total{};
    Lanes weights[kTile];
    for (int64_t first = begin; first < end; first += kTile) {
        const int64_t count = end - first < kTile ? end - first : kTile;
        logits_of(keys + first * width, count, width, block.query, values + first * width, weights);
        if (first + count > block.seen_by_all) {
            for (int64_t j = 0; j < count; ++j) {
                const Whole seen = limits > static_cast<int32_t>(first + j);
                weights[j] = seen ? weights[j] : Lanes{} + kHidden;
            }
        }
        Lanes peak = largest;
        for (int64_t j = 0; j < count; ++j) peak = weights[j] > peak ? weights[j] : peak;
        Lanes shrink = largest - peak;
        vector_math::exponential<Lanes, Whole>(shrink);
        Lanes sum{};
        for (int64_t j = 0; j < count; ++j) {
            Lanes weight = weights[j] - peak;
            vector_math::exponential<Lanes, Whole>(weight);
            weights[j] = weight;
            sum += weight;
        }
        total = total * shrink + sum;
        largest = peak;
        for (int64_t row = 0; row < block.rows; ++row) {
            float* sums = block.sums + row * width;
            for (int64_t i = 0; i < width; ++i) sums[i] *= shrink[row];
        }
        add_values(values + first * width, count, width, reinterpret_cast<const float*>(weights), block.rows,
                   block.sums, keys + (first + kTile) * width);
    }
    for (int64_t row = 0; row < block.rows; ++row) {
        block.state[2 * row] = largest[row];
        block.state[2 * row + 1] = total[row];
    }
}

EDGEPRUNE_TARGET static inline float sum_of(const Lanes& lanes) {
    HalfLanes low, high;
    __builtin_memcpy(&low, &lanes, sizeof low);
    __builtin_memcpy(&high, reinterpret_cast<const char*>(&lanes) + sizeof low, sizeof high);
    const HalfLanes both = low + high;
    return (both[0] + both[1]) + (both[2] + both[3]);
}

// Logits of `count` keys (count,d) with one query (d).
template <class Element>
EDGEPRUNE_TARGET static inline void logits_of_one(const Element* keys, int64_t count, int64_t width, const float* query,
                                                  const Element* ahead, float* logits) {
    for (int64_t j = 0; j < count; j += 4) {
        // Behind the last key the last one is read again.
        const Element* key[4];
        for (int64_t k = 0; k < 4; ++k) key[k] = keys + (j + k < count ? j + k : count - 1) * width;
        prefetch(ahead + j * width, 4 * width);
        prefetch(key[0] + kTile * width, 4 * width);
        Lanes sums[4]{};
        int64_t i = 0;
        for (; i + 8 <= width; i += 8) {
            const Lanes q = *reinterpret_cast<const LooseLanes*>(query + i);
            for (int64_t k = 0; k < 4; ++k) {
                Lanes eight;
                load(key[k] + i, eight);
                sums[k] += q * eight;
            }
        }
        for (int64_t k = 0; k < 4; ++k) {
            float sum = sum_of(sums[k]);
            for (int64_t rest = i; rest < width; ++rest) sum += query[rest] * number(key[k][rest]);
            logits[j + k] = sum;
        }
    }
}

// Adds weights (count) times values (count,d), `kVectors` times 8 of their columns, to sums.
template <int64_t kVectors, class Element>
EDGEPRUNE_TARGET static inline void add_columns(const Element* values, int64_t count, int64_t width,
                                                const float* weights, float shrink, float* sums) {
    Lanes s[kVectors];
    for (int64_t k = 0; k < kVectors; ++k) s[k] = *reinterpret_cast<const LooseLanes*>(sums + 8 * k) * shrink;
    for (int64_t j = 0; j < count; ++j, values += width) {
        for (int64_t k = 0; k < kVectors; ++k) {
            Lanes eight;
            load(values + 8 * k, eight);
            s[k] += eight * weights[j];
        }
    }
    for (int64_t k = 0; k < kVectors; ++k) *reinterpret_cast<LooseLanes*>(sums + 8 * k) = s[k];
}

// The same as run_block for a single row, the query (d): no lane is left idle.
template <class Element>
EDGEPRUNE_TARGET static void run_row(const Block& block, const Element* keys, const Element* values, int64_t begin,
                                     int64_t end, int64_t width) {
    float largest = kNothingSeen;
    Lanes total{};
    Lanes weights[kTile / 8];
    auto* const weight = reinterpret_cast<float*>(weights);
    for (int64_t first = begin; first < end; first += kTile) {
        const int64_t count = end - first < kTile ? end - first : kTile;
        const int64_t vectors = (count + 7) / 8;
        const Element* const tile = values + first * width;
        weights[vectors - 1] = Lanes{};
        logits_of_one(keys + first * width, count, width, block.query, tile, weight);
        for (int64_t j = count; j < 8 * vectors; ++j) weight[j] = kHidden;
        Lanes peaks = Lanes{} + largest;
        for (int64_t k = 0; k < vectors; ++k) peaks = weights[k] > peaks ? weights[k] : peaks;
        float peak = peaks[0];
        for (int64_t k = 1; k < 8; ++k) peak = peaks[k] > peak ? peaks[k] : peak;
        Lanes shrink = Lanes{} + (largest - peak);
        vector_math::exponential<Lanes, Whole>(shrink);
        total *= shrink;
        largest = peak;
        for (int64_t k = 0; k < vectors; ++k) {
            Lanes x = weights[k] - peak;
            vector_math::exponential<Lanes, Whole>(x);
            weights[k] = x;
            total += x;
        }
        int64_t i = 0;
        for (; i + 64 <= width; i += 64) add_columns<8>(tile + i, count, width, weight, shrink[0], block.sums + i);
        for (; i + 8 <= width; i += 8) add_columns<1>(tile + i, count, width, weight, shrink[0], block.sums + i);
        for (; i < width; ++i) {
            float sum = block.sums[i] * shrink[0];
            for (int64_t j = 0; j < count; ++j) sum += weight[j] * number(tile[j * width + i]);
            block.sums[i] = sum;
        }
    }
    block.state[0] = largest;
    block.state[1] = sum_of(total);
}
