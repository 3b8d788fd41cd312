// Driven by tests/ground/test_keep_count.py: lines "FIRST LAST RATIO" in, keep_count of every N between them out. RATIO
// in any form that strtod reads, so a hexadecimal float arrives unchanged.
#include <cstdlib>
#include <iostream>
#include <string>

#include "keep_count.h"

int main() {
    std::ios::sync_with_stdio(false);
    std::string ratio;
    for (int64_t first = 0, last = 0; std::cin >> first >> last >> ratio;) {
        const double value = std::strtod(ratio.c_str(), nullptr);
        for (int64_t n = first; n <= last; ++n) std::cout << edgeprune::keep_count(n, value) << ' ';
        std::cout << '\n';
    }
}
