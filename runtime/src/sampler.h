// Choosing the next token.
//
// The logits l of the last position become the distribution p of the next token in this order, each step as
// transformers defines it:
//   1. repetition penalty r: l_i := l_i * r where l_i < 0, else l_i / r, once for every id seen so far;
//   2. temperature T = 0: the largest logit, the first of equals. Otherwise l_i := l_i / T;
//   3. top-k: only logits not below the k-th largest stay (ties with it stay too);
//   4. top-p: of these, by falling probability (equals by rising id), the shortest beginning whose mass reaches p.
// The token is the first id, in rising order, at which the running sum of p passes u * sum(p).
//
// u of the n-th new token (n = 0, 1, ...) is a function of seed and n alone, whatever ran before and on however many
// threads: SplitMix64's mixing function m (Steele, Lea, Flood, 2014) as a counter-based generator,
//   u = floor(m(m(seed + g) + (n + 1) * g) / 2^11) / 2^53   with   g = 0x9E3779B97F4A7C15, sums modulo 2^64.
#pragma once

#include <cstdint>
#include <unordered_set>
#include <vector>

namespace edgeprune {

struct Decoding {
    double temperature = 0;         // 0: greedy
    int64_t top_k = 0;              // 0: all
    double top_p = 1;               // above 0 to 1
    double repetition_penalty = 1;  // above 0; 1: none
    uint64_t seed = 0;
};

// Throws Error(EP_ERROR_INVALID_ARGUMENT) that names the value outside its range.
void check_decoding(const Decoding& decoding);

// ln softmax(logits)[token], in float64. Throws Error: EP_ERROR_BACKEND when a logit is not a number,
// EP_ERROR_BUNDLE when there is no such token.
double log_probability(const std::vector<float>& logits, int32_t token);

struct Candidate {
    int32_t token;
    double probability;
};

// Uniform in [0, 1), a multiple of 2^-53.
double uniform(uint64_t seed, uint64_t counter);

class Sampler {
public:
    explicit Sampler(const Decoding& decoding) : decoding_(decoding) {}

    // Counts a text token of the prompt for the repetition penalty.
    void see(int32_t token);
    // The next token; it counts as seen from then on. Throws Error(EP_ERROR_BACKEND) when a logit is not a number, for
    // then the graph has failed.
    int32_t next(const std::vector<float>& logits);
    // What next() draws from at a temperature above 0: tokens in rising order, probabilities with the sum 1.
    std::vector<Candidate> distribution(const std::vector<float>& logits) const;

private:
    std::vector<float> penalised(const std::vector<float>& logits) const;
    int32_t choose(const std::vector<float>& logits) const;

    Decoding decoding_;
    std::unordered_set<int32_t> seen_;  // kept only when there is a penalty
    uint64_t made_ = 0;
};

}  // namespace edgeprune
