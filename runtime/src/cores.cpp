#include "cores.h"

#include <sched.h>

#include <algorithm>

#include "error.h"

namespace edgeprune {
namespace {

bool usable(int core) {
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    return core < CPU_SETSIZE && sched_getaffinity(0, sizeof allowed, &allowed) == 0 && CPU_ISSET(core, &allowed);
}

int parse_core(const std::string& word, const std::string& text) {
    const bool digits = std::all_of(word.begin(), word.end(), [](char c) { return c >= '0' && c <= '9'; });
    if (!word.empty() && word.size() <= 4 && digits) return std::stoi(word);
    throw Error(EP_ERROR_INVALID_ARGUMENT, "cores is \"" + text + "\", but must be core numbers such as \"2,3\"");
}

}  // namespace

std::vector<int> parse_cores(const std::string& text) {
    std::vector<int> cores;
    if (text.empty()) return cores;
    for (size_t begin = 0, end = 0; begin <= text.size(); begin = end + 1) {
        end = std::min(text.find(',', begin), text.size());
        const std::string word = text.substr(begin, end - begin);
        const int core = parse_core(word, text);
        if (std::count(cores.begin(), cores.end(), core) != 0) {
            throw Error(EP_ERROR_INVALID_ARGUMENT, "cores names core " + word + " twice");
        }
        if (!usable(core)) {
            throw Error(EP_ERROR_INVALID_ARGUMENT, "this process may not run on core " + word + ", which cores names");
        }
        cores.push_back(core);
    }
    return cores;
}

}  // namespace edgeprune
