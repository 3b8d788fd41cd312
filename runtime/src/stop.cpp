#include "stop.h"

#include <algorithm>
#include <utility>

namespace edgeprune {
namespace {

// Length of the longest end of `text` that begins `stop` without completing it.
size_t open_suffix(const std::string& text, const std::string& stop) {
    size_t length = std::min(text.size(), stop.size() - 1);
    while (length > 0 && text.compare(text.size() - length, length, stop, 0, length) != 0) --length;
    return length;
}

}  // namespace

StopScanner::StopScanner(std::vector<std::string> stops) : stops_(std::move(stops)) {}

std::string StopScanner::push(const std::string& piece) {
    if (stopped_) return "";
    held_ += piece;
    size_t found = std::string::npos;
    size_t open = 0;
    for (const std::string& stop : stops_) {
        found = std::min(found, held_.find(stop));
        open = std::max(open, open_suffix(held_, stop));
    }
    stopped_ = found != std::string::npos;
    const size_t ready = stopped_ ? found : held_.size() - open;
    std::string text = held_.substr(0, ready);
    held_.erase(0, stopped_ ? held_.size() : ready);
    return text;
}

std::string StopScanner::finish() {
    return std::exchange(held_, "");
}

}  // namespace edgeprune
