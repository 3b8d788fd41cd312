// Driven by tests/ground/test_auto_keep.py: lines "LEAST MOST MASS RUNS SCORE..." in, the K of choose_by_scores between
// the two keep ratios out, or -1 where it is refused. RUNS is FIRST:LAST:STEP, several joined by commas, or "-" for
// every count. Numbers in any form that strtod reads, so a hexadecimal float arrives unchanged.
#include <cstdlib>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "error.h"
#include "keep_choice.h"

namespace {

std::vector<edgeprune::CountRun> runs_of(const std::string& text) {
    std::vector<edgeprune::CountRun> runs;
    if (text == "-") return runs;
    std::istringstream items(text);
    for (std::string item; std::getline(items, item, ',');) {
        std::istringstream parts(item);
        edgeprune::CountRun run;
        char colon = 0;
        parts >> run.first >> colon >> run.last >> colon >> run.step;
        runs.push_back(run);
    }
    return runs;
}

int64_t answer(const std::string& line) {
    std::istringstream words(line);
    std::string low, high, mass, runs;
    words >> low >> high >> mass >> runs;
    std::vector<float> scores;
    for (std::string word; words >> word;) scores.push_back(std::strtof(word.c_str(), nullptr));
    edgeprune::Manifest manifest;
    manifest.visual_tokens = static_cast<int64_t>(scores.size());
    edgeprune::MethodSpec method;
    method.keep_counts = runs_of(runs);
    const edgeprune::AutoKeep automatic{std::strtod(mass.c_str(), nullptr), std::strtod(low.c_str(), nullptr),
                                        std::strtod(high.c_str(), nullptr)};
    try {
        return edgeprune::choose_by_scores(manifest, method, automatic, scores).count;
    } catch (const edgeprune::Error&) {
        return -1;
    }
}

}  // namespace

int main() {
    for (std::string line; std::getline(std::cin, line);) std::cout << answer(line) << '\n';
}
