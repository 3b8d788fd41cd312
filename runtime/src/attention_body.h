// The inner loops of attention_kernel.cpp, which includes this file once per instruction set: EDGEPRUNE_TARGET is the
// function attribute that chooses it. Eight rows of queries lie in the eight lanes of a vector, so that neither the
// softmax nor the products need a sum across lanes; a row that is alone has its own form. No include guard on purpose.

using Lanes = float __attribute__((vector_size(32)));
using Whole = int32_t __attribute__((vector_size(32)));
using HalfLanes = float __attribute__((vector_size(16)));
// The same in memory that is aligned to single numbers.
using LooseLanes = float __attribute__((vector_size(32), aligned(4), may_alias));

// e^x for x <= 0, within 2 units in the last place; below -87 it is 0. x = n ln 2 + r, |r| <= ln 2 / 2, and the
// Taylor polynomial of e^r.
EDGEPRUNE_TARGET static inline void exponential(Lanes& x) {
    const Lanes floor = Lanes{} - 87.0F;
    const Whole kept = x > floor;
    const Lanes bounded = kept ? x : floor;
    const float rounder = 12582912.0F;  // 1.5 * 2^23: adding it leaves whole numbers
    const Lanes n = (bounded * 1.44269504F + rounder) - rounder;
    const Lanes r = (bounded - n * 0.693359375F) + n * 2.12194440e-4F;
    Lanes sum = r * (1.0F / 5040) + 1.0F / 720;
    sum = sum * r + 1.0F / 120;
    sum = sum * r + 1.0F / 24;
    sum = sum * r + 1.0F / 6;
    sum = sum * r + 0.5F;
    sum = sum * r + 1.0F;
    sum = sum * r + 1.0F;
    const Whole exponent = (__builtin_convertvector(n, Whole) + 127) << 23;
    Lanes power;
    __builtin_memcpy(&power, &exponent, sizeof power);
    x = kept ? sum * power : Lanes{};
}

// Logits of `count` keys (count,d) with the queries (d,8), to (count,8).
EDGEPRUNE_TARGET static inline void logits_of(const float* keys, int64_t count, int64_t width, const float* query,
                                              const float* ahead, Lanes* logits) {
    int64_t j = 0;
    for (; j + 8 <= count; j += 8) {
        const float* key = keys + j * width;
        for (int64_t i = 0; i < 8 * width; i += 16) {
            __builtin_prefetch(ahead + j * width + i);
            __builtin_prefetch(key + kTile * width + i);
        }
        Lanes a{}, b{}, c{}, d{}, e{}, f{}, g{}, h{};
        for (int64_t i = 0; i < width; ++i) {
            const Lanes q = *reinterpret_cast<const LooseLanes*>(query + i * kRows);
            a += q * key[i];
            b += q * key[i + width];
            c += q * key[i + 2 * width];
            d += q * key[i + 3 * width];
            e += q * key[i + 4 * width];
            f += q * key[i + 5 * width];
            g += q * key[i + 6 * width];
            h += q * key[i + 7 * width];
        }
        const Lanes all[8] = {a, b, c, d, e, f, g, h};
        for (int64_t k = 0; k < 8; ++k) logits[j + k] = all[k];
    }
    for (; j < count; ++j) {
        Lanes sum{};
        for (int64_t i = 0; i < width; ++i) {
            sum += *reinterpret_cast<const LooseLanes*>(query + i * kRows) * keys[j * width + i];
        }
        logits[j] = sum;
    }
}

// Adds weights (count,8) times values (count,d) to four of the rows: sums (4,d), `weights` begins at the first of them.
EDGEPRUNE_TARGET static inline void add_values(const float* values, int64_t count, int64_t width, const float* weights,
                                               float* sums) {
    int64_t i = 0;
    for (; i + 16 <= width; i += 16) {
        Lanes s[4][2];
        for (int64_t row = 0; row < 4; ++row) {
            s[row][0] = *reinterpret_cast<const LooseLanes*>(sums + row * width + i);
            s[row][1] = *reinterpret_cast<const LooseLanes*>(sums + row * width + i + 8);
        }
        const float* value = values + i;
        for (int64_t j = 0; j < count; ++j, value += width) {
            const Lanes first = *reinterpret_cast<const LooseLanes*>(value);
            const Lanes second = *reinterpret_cast<const LooseLanes*>(value + 8);
            for (int64_t row = 0; row < 4; ++row) {
                s[row][0] += first * weights[j * kRows + row];
                s[row][1] += second * weights[j * kRows + row];
            }
        }
        for (int64_t row = 0; row < 4; ++row) {
            *reinterpret_cast<LooseLanes*>(sums + row * width + i) = s[row][0];
            *reinterpret_cast<LooseLanes*>(sums + row * width + i + 8) = s[row][1];
        }
    }
    for (; i < width; ++i) {
        for (int64_t row = 0; row < 4; ++row) {
            float sum = sums[row * width + i];
            for (int64_t j = 0; j < count; ++j) sum += weights[j * kRows + row] * values[j * width + i];
            sums[row * width + i] = sum;
        }
    }
}

// One block of 8 rows over the places [begin, end) of one key head, a tile of them after the other, with the largest
// logit so far taken off before the exponential.
EDGEPRUNE_TARGET static void run_block(const Block& block, const float* keys, const float* values, int64_t begin,
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
        exponential(shrink);
        Lanes sum{};
        for (int64_t j = 0; j < count; ++j) {
            Lanes weight = weights[j] - peak;
            exponential(weight);
            weights[j] = weight;
            sum += weight;
        }
        total = total * shrink + sum;
        largest = peak;
        for (int64_t row = 0; row < block.rows; ++row) {
            float* sums = block.sums + row * width;
            for (int64_t i = 0; i < width; ++i) sums[i] *= shrink[row];
        }
        for (int64_t row = 0; row < block.rows; row += 4) {
            add_values(values + first * width, count, width, reinterpret_cast<const float*>(weights) + row,
                       block.sums + row * width);
        }
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
EDGEPRUNE_TARGET static inline void logits_of_one(const float* keys, int64_t count, int64_t width, const float* query,
                                                  const float* ahead, float* logits) {
    for (int64_t j = 0; j < count; j += 4) {
        // Behind the last key the last one is read again.
        const float* key[4];
        for (int64_t k = 0; k < 4; ++k) key[k] = keys + (j + k < count ? j + k : count - 1) * width;
        for (int64_t i = 0; i < 4 * width; i += 16) {
            __builtin_prefetch(ahead + j * width + i);
            __builtin_prefetch(key[0] + kTile * width + i);
        }
        Lanes sums[4]{};
        int64_t i = 0;
        for (; i + 8 <= width; i += 8) {
            const Lanes q = *reinterpret_cast<const LooseLanes*>(query + i);
            for (int64_t k = 0; k < 4; ++k) sums[k] += q * *reinterpret_cast<const LooseLanes*>(key[k] + i);
        }
        for (int64_t k = 0; k < 4; ++k) {
            float sum = sum_of(sums[k]);
            for (int64_t rest = i; rest < width; ++rest) sum += query[rest] * key[k][rest];
            logits[j + k] = sum;
        }
    }
}

// Adds weights (count) times values (count,d), `kVectors` times 8 of their columns, to sums.
template <int64_t kVectors>
EDGEPRUNE_TARGET static inline void add_columns(const float* values, int64_t count, int64_t width, const float* weights,
                                                float shrink, float* sums) {
    Lanes s[kVectors];
    for (int64_t k = 0; k < kVectors; ++k) s[k] = *reinterpret_cast<const LooseLanes*>(sums + 8 * k) * shrink;
    for (int64_t j = 0; j < count; ++j, values += width) {
        for (int64_t k = 0; k < kVectors; ++k) {
            s[k] += *reinterpret_cast<const LooseLanes*>(values + 8 * k) * weights[j];
        }
    }
    for (int64_t k = 0; k < kVectors; ++k) *reinterpret_cast<LooseLanes*>(sums + 8 * k) = s[k];
}

// The same as run_block for a single row, the query (d): no lane is left idle.
EDGEPRUNE_TARGET static void run_row(const Block& block, const float* keys, const float* values, int64_t begin,
                                     int64_t end, int64_t width) {
    float largest = kNothingSeen;
    Lanes total{};
    Lanes weights[kTile / 8];
    auto* const weight = reinterpret_cast<float*>(weights);
    for (int64_t first = begin; first < end; first += kTile) {
        const int64_t count = end - first < kTile ? end - first : kTile;
        const int64_t vectors = (count + 7) / 8;
        const float* const tile = values + first * width;
        weights[vectors - 1] = Lanes{};
        logits_of_one(keys + first * width, count, width, block.query, tile, weight);
        for (int64_t j = count; j < 8 * vectors; ++j) weight[j] = kHidden;
        Lanes peaks = Lanes{} + largest;
        for (int64_t k = 0; k < vectors; ++k) peaks = weights[k] > peaks ? weights[k] : peaks;
        float peak = peaks[0];
        for (int64_t k = 1; k < 8; ++k) peak = peaks[k] > peak ? peaks[k] : peak;
        Lanes shrink = Lanes{} + (largest - peak);
        exponential(shrink);
        total *= shrink;
        largest = peak;
        for (int64_t k = 0; k < vectors; ++k) {
            Lanes x = weights[k] - peak;
            exponential(x);
            weights[k] = x;
            total += x;
        }
        int64_t i = 0;
        for (; i + 64 <= width; i += 64) add_columns<8>(tile + i, count, width, weight, shrink[0], block.sums + i);
        for (; i + 8 <= width; i += 8) add_columns<1>(tile + i, count, width, weight, shrink[0], block.sums + i);
        for (; i < width; ++i) {
            float sum = block.sums[i] * shrink[0];
            for (int64_t j = 0; j < count; ++j) sum += weight[j] * tile[j * width + i];
            block.sums[i] = sum;
        }
    }
    block.state[0] = largest;
    block.state[1] = sum_of(total);
}
