// Stop strings, found across the borders of tokens.
#pragma once

#include <string>
#include <vector>

namespace edgeprune {

// Takes text in pieces and gives out what can no longer become part of a stop string.
class StopScanner {
public:
    // Empty stop strings must not occur.
    explicit StopScanner(std::vector<std::string> stops);

    // Text that is final; after a stop string was found, "".
    std::string push(const std::string& piece);
    // What was held back, once no more text will come.
    std::string finish();
    bool stopped() const { return stopped_; }

private:
    std::vector<std::string> stops_;
    std::string held_;  // may be the beginning of a stop string
    bool stopped_ = false;
};

}  // namespace edgeprune
