#include "sampler.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <string>

#include "error.h"

namespace edgeprune {
namespace {

constexpr uint64_t kGamma = 0x9E3779B97F4A7C15ull;

uint64_t mix(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
    return x ^ (x >> 31);
}

void require_number(double value, bool allowed, const char* name, const char* range) {
    if (allowed && std::isfinite(value)) return;
    char number[32];
    std::snprintf(number, sizeof number, "%g", value);
    throw Error(EP_ERROR_INVALID_ARGUMENT, std::string(name) + " is " + number + ", but must be " + range);
}

void check_logits(const std::vector<float>& logits) {
    if (logits.empty() || std::any_of(logits.begin(), logits.end(), [](float value) { return std::isnan(value); })) {
        throw Error(EP_ERROR_BACKEND, "the decoder's logits are not numbers: the weights or the graph are damaged");
    }
}

int32_t largest(const std::vector<float>& logits) {
    return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

// The k-th largest logit, or -infinity when every logit may stay.
float top_k_floor(std::vector<float> logits, int64_t k) {
    if (k <= 0 || k >= static_cast<int64_t>(logits.size())) return -INFINITY;
    std::nth_element(logits.begin(), logits.begin() + (k - 1), logits.end(), std::greater<float>());
    return logits[static_cast<size_t>(k - 1)];
}

double mass_of(const std::vector<Candidate>& candidates) {
    double mass = 0;
    for (const Candidate& candidate : candidates) mass += candidate.probability;
    return mass;
}

// The likeliest candidates, as few as reach the share `top_p` of the mass. A heap, for few are wanted of very many.
std::vector<Candidate> nucleus(std::vector<Candidate> candidates, double top_p) {
    if (top_p >= 1) return candidates;
    const double wanted = top_p * mass_of(candidates);
    const auto after = [](const Candidate& a, const Candidate& b) {
        return a.probability != b.probability ? a.probability < b.probability : a.token > b.token;
    };
    std::make_heap(candidates.begin(), candidates.end(), after);
    auto heap_end = candidates.end();
    double mass = 0;
    while (mass < wanted && heap_end != candidates.begin()) {
        std::pop_heap(candidates.begin(), heap_end, after);
        mass += (--heap_end)->probability;
    }
    candidates.erase(candidates.begin(), heap_end);
    std::sort(candidates.begin(), candidates.end(),
              [](const Candidate& a, const Candidate& b) { return a.token < b.token; });
    return candidates;
}

}  // namespace

void check_decoding(const Decoding& decoding) {
    require_number(decoding.temperature, decoding.temperature >= 0, "temperature", "0 (greedy) or above");
    require_number(static_cast<double>(decoding.top_k), decoding.top_k >= 0, "top_k", "0 (every token) or above");
    require_number(decoding.top_p, decoding.top_p > 0 && decoding.top_p <= 1, "top_p", "above 0 and at most 1");
    require_number(decoding.repetition_penalty, decoding.repetition_penalty > 0, "repetition_penalty", "above 0");
    if (decoding.temperature == 0 && (decoding.top_k > 0 || decoding.top_p < 1)) {
        throw Error(EP_ERROR_INVALID_ARGUMENT,
                    "top_k and top_p choose among sampled tokens, but temperature 0 samples none: "
                    "set a temperature above 0, for example 1");
    }
}

double uniform(uint64_t seed, uint64_t counter) {
    const uint64_t bits = mix(mix(seed + kGamma) + (counter + 1) * kGamma);
    return static_cast<double>(bits >> 11) * 0x1p-53;
}

double log_probability(const std::vector<float>& logits, int32_t token) {
    check_logits(logits);
    if (token < 0 || static_cast<size_t>(token) >= logits.size()) {
        throw Error(EP_ERROR_BUNDLE, "the tokenizer gives the id " + std::to_string(token) + ", but the decoder has " +
                                         std::to_string(logits.size()) + " logits");
    }
    const double top = logits[static_cast<size_t>(largest(logits))];
    double sum = 0;
    for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - top);
    return static_cast<double>(logits[static_cast<size_t>(token)]) - top - std::log(sum);
}

void Sampler::see(int32_t token) {
    if (decoding_.repetition_penalty != 1) seen_.insert(token);
}

std::vector<float> Sampler::penalised(const std::vector<float>& logits) const {
    std::vector<float> result = logits;
    const auto penalty = static_cast<float>(decoding_.repetition_penalty);
    for (const int32_t token : seen_) {
        if (token < 0 || static_cast<size_t>(token) >= result.size()) continue;
        float& logit = result[static_cast<size_t>(token)];
        logit = logit < 0 ? logit * penalty : logit / penalty;
    }
    return result;
}

std::vector<Candidate> Sampler::distribution(const std::vector<float>& logits) const {
    const std::vector<float> scores = penalised(logits);
    const float top = scores[static_cast<size_t>(largest(scores))];
    if (!std::isfinite(top)) {
        throw Error(EP_ERROR_BACKEND, "the decoder's logits are not finite: no token can be drawn from them");
    }
    const float least = top_k_floor(scores, decoding_.top_k);
    std::vector<Candidate> candidates;
    for (size_t id = 0; id < scores.size(); ++id) {
        if (scores[id] < least) continue;
        // The largest is subtracted first, so that no temperature overflows.
        const double weight = std::exp((static_cast<double>(scores[id]) - top) / decoding_.temperature);
        if (weight > 0) candidates.push_back({static_cast<int32_t>(id), weight});
    }
    candidates = nucleus(std::move(candidates), decoding_.top_p);
    const double mass = mass_of(candidates);
    for (Candidate& candidate : candidates) candidate.probability /= mass;
    return candidates;
}

int32_t Sampler::choose(const std::vector<float>& logits) const {
    if (decoding_.temperature == 0) return largest(seen_.empty() ? logits : penalised(logits));
    const std::vector<Candidate> candidates = distribution(logits);
    const double target = uniform(decoding_.seed, made_) * mass_of(candidates);
    double sum = 0;
    for (const Candidate& candidate : candidates) {
        sum += candidate.probability;
        if (sum > target) return candidate.token;
    }
    return candidates.back().token;
}

int32_t Sampler::next(const std::vector<float>& logits) {
    check_logits(logits);
    const int32_t token = choose(logits);
    ++made_;
    see(token);
    return token;
}

}  // namespace edgeprune
