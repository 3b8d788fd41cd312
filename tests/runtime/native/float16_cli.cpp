// Converts a stream: "float16_cli widen" reads halves and writes floats, "float16_cli narrow" the other way round.
#include <cstdint>
#include <cstdio>
#include <string>

#include "float16.h"

namespace {

template <class From, class To, class Convert>
int convert_all(Convert convert) {
    From from;
    while (std::fread(&from, sizeof from, 1, stdin) == 1) {
        const To to = convert(from);
        std::fwrite(&to, sizeof to, 1, stdout);
    }
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    const std::string direction = argc == 2 ? argv[1] : "";
    if (direction == "widen") return convert_all<uint16_t, float>(edgeprune::half_to_float);
    if (direction == "narrow") return convert_all<float, uint16_t>(edgeprune::float_to_half);
    return 2;
}
