// Input: a manifest.json. What parses is also rendered as a prompt.
#include "error.h"
#include "fuzz_target.h"
#include "manifest.h"
#include "prompt.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    try {
        const edgeprune::Manifest manifest =
            edgeprune::parse_manifest(std::string(reinterpret_cast<const char*>(data), size));
        for (const auto& [path, file] : manifest.files) {
            require(!path.empty() && path[0] != '/', "a path of a manifest is relative");
            require(("/" + path + "/").find("/../") == std::string::npos, "a path of a manifest stays in the bundle");
        }
        edgeprune::render_prompt(manifest, "What is this?", 2, false);
    } catch (const edgeprune::Error&) {
    }
    return 0;
}
