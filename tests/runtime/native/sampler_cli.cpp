// Driven by tests/runtime/test_sampler.py. In: TEMPERATURE TOP_K TOP_P PENALTY SEED, then the count of seen tokens and
// the tokens, then the count of logits and the logits, then how often to draw. Out: "TOKEN PROBABILITY" per candidate
// on one line (none when greedy), then the drawn tokens on the next; each draw uses the next counter, nothing is seen.
#include <cstdio>
#include <iostream>
#include <string>
#include <vector>

#include "error.h"
#include "sampler.h"

namespace {

double read_double() {
    std::string text;
    std::cin >> text;
    return std::stod(text);
}

float read_float() {
    std::string text;
    std::cin >> text;
    return std::stof(text);
}

std::vector<int32_t> read_tokens() {
    size_t count = 0;
    std::cin >> count;
    std::vector<int32_t> tokens(count);
    for (int32_t& token : tokens) std::cin >> token;
    return tokens;
}

}  // namespace

int main() {
    using namespace edgeprune;
    try {
        Decoding decoding;
        decoding.temperature = read_double();
        std::cin >> decoding.top_k;
        decoding.top_p = read_double();
        decoding.repetition_penalty = read_double();
        std::cin >> decoding.seed;
        check_decoding(decoding);
        Sampler sampler(decoding);
        for (const int32_t token : read_tokens()) sampler.see(token);
        size_t count = 0;
        std::cin >> count;
        std::vector<float> logits(count);
        for (float& logit : logits) logit = read_float();
        if (decoding.temperature > 0) {
            for (const Candidate& c : sampler.distribution(logits)) std::printf("%d %.17g ", c.token, c.probability);
        }
        std::printf("\n");
        size_t draws = 0;
        std::cin >> draws;
        for (size_t i = 0; i < draws; ++i) std::printf("%d ", sampler.next(logits));
        std::printf("\n");
    } catch (const Error& error) {
        std::fprintf(stderr, "%d %s\n", error.status(), error.what());
        return 1;
    }
}
