#include "fingerprint.h"

#include <algorithm>
#include <cctype>
#include <optional>
#include <vector>

#include "error.h"
#include "json_document.h"
#include "machine_facts.h"

namespace edgeprune {
namespace {

using Json = nlohmann::json;

constexpr size_t kShownDigits = 12;

// One fact that decided the variant and is another here; `target`: what to build for instead, if not the same.
struct Difference {
    std::string text;
    std::string target;
};

class Differences {
public:
    void add(const std::string& what, const std::string& built, const std::string& here, const std::string& target = "",
             const std::string& where = "here") {
        const std::string text = what + " was " + built + " when it was built and is " + here + " " + where;
        for (const Difference& known : found_) {
            if (known.text == text) return;  // what every engine shares is said once
        }
        found_.push_back({text, target});
    }
    const std::vector<Difference>& found() const { return found_; }

private:
    std::vector<Difference> found_;
};

std::string shown(const std::string& sha256) {
    return sha256.substr(0, kShownDigits) + "...";
}

std::string text_or_none(const Json& object, const char* key) {
    return object.at(key).is_null() ? "None" : object.at(key).get<std::string>();
}

void compare_graphs(const Json& built, const Json& files, Differences& out) {
    for (const auto& [name, digest] : built.items()) {
        const auto entry = files.find(name);
        const std::string here = entry == files.end() ? "" : entry->at("sha256").get<std::string>();
        const std::string there = digest.get<std::string>();
        if (here != there) out.add("sha256 of " + name, shown(there), here.empty() ? "missing" : shown(here));
    }
}

// As many parts of `version` as `built` has: packages and libraries differ in how many they name.
std::string as_precise(const std::string& version, const std::string& built) {
    auto parts = std::count(built.begin(), built.end(), '.') + 1;
    for (size_t i = 0; i < version.size(); ++i) {
        if (version[i] == '.' && --parts == 0) return version.substr(0, i);
    }
    return version;
}

void compare_machine(const Json& print, Differences& out) {
    const std::string module = print.at("module").get<std::string>();
    const std::string version = print.at("versions").at(module).get<std::string>();
    const std::optional<std::string> installed = tensorrt_version(module);
    if (installed && as_precise(*installed, version) != version) {
        out.add(module, version, as_precise(*installed, version));
    }
    std::string asked;
    bool served = false;
    const std::optional<std::string> here = compute_capability();
    for (const Json& one : print.at("compute_capabilities")) {
        asked += (asked.empty() ? "" : ", ") + one.get<std::string>();
        served = served || (here && one.get<std::string>() == *here);
    }
    if (!asked.empty()) {
        if (here && !served) {
            std::string digits = *here;
            digits.erase(std::remove(digits.begin(), digits.end(), '.'), digits.end());
            out.add("compute capability", asked, *here, "tensorrt-rtx:sm" + digits);
        }
        return;
    }
    const std::optional<std::string> release = jetpack();
    const std::string built_release = text_or_none(print, "jetpack"),
                      built_for = text_or_none(print, "compute_capability");
    if (release && *release != built_release) out.add("jetpack", built_release, *release);
    if (here && *here != built_for) out.add("compute capability", built_for, *here);
}

std::string joined(const std::vector<std::string>& words) {
    std::string text;
    for (const std::string& word : words) text += (text.empty() ? "" : ", ") + word;
    return text;
}

// "8.6", "8.9" of tensorrt-rtx:sm86,sm89; none of other targets.
std::vector<std::string> capabilities_of(const std::string& target) {
    std::vector<std::string> found;
    if (target.rfind("tensorrt-rtx:", 0) != 0) return found;
    for (size_t at = target.find("sm"); at != std::string::npos; at = target.find("sm", at)) {
        const size_t end = std::min(target.find_first_not_of("0123456789", at + 2), target.size());
        const std::string digits = target.substr(at + 2, end - at - 2);
        if (digits.size() > 1) found.push_back(digits.substr(0, digits.size() - 1) + "." + digits.back());
        at = end;
    }
    return found;
}

// Engines for other compute capabilities than those of the target that the manifest names: no GPU is needed to see it.
void compare_target(const Json& print, const std::string& target, Differences& out) {
    const std::vector<std::string> meant = capabilities_of(target);
    const auto built = print.at("compute_capabilities").get<std::vector<std::string>>();
    if (meant.empty() || built.empty() || std::is_permutation(built.begin(), built.end(), meant.begin(), meant.end())) {
        return;
    }
    out.add("compute capability", joined(built), joined(meant), "", "in the manifest's target " + target);
}

// As a POSIX shell reads it back.
std::string quoted(const std::string& word) {
    const auto plain = [](unsigned char c) {
        return std::isalnum(c) != 0 || std::string("@%+=:,./-_").find(char(c)) != std::string::npos;
    };
    if (!word.empty() && std::all_of(word.begin(), word.end(), plain)) return word;
    std::string text = "'";
    for (const char c : word) text += c == '\'' ? std::string("'\"'\"'") : std::string(1, c);
    return text + "'";
}

// fp16, or vision=int8,decoder=fp16 where they differ.
std::string precision_text(const Json& precision) {
    std::string pairs, word;
    bool same = true;
    for (const char* graph : {"vision", "decoder"}) {
        const std::string found = precision.at(graph).get<std::string>();
        same = same && (word.empty() || word == found);
        word = found;
        pairs += (pairs.empty() ? "" : ",") + std::string(graph) + "=" + found;
    }
    return same ? word : pairs;
}

// Options of the build that neither target nor precision says; none where build.json cannot be read.
std::string asked_options(const BundleFiles& files, const std::string& build_json) {
    try {
        const JsonDocument build(read_text_file(files.inside(build_json)));
        return build.root().at("asked").at("kv_cache") == "fp32" ? " --kv-cache fp32" : "";
    } catch (const Error&) {
    } catch (const JsonError&) {
    } catch (const Json::exception&) {
    }
    return "";
}

std::string rebuild_command(const BundleFiles& files, const Json& variant, const std::string& target) {
    const std::string meant = target.empty() ? variant.at("target").get<std::string>() : target;
    return "edgeprune build " + quoted(files.directory()) + " --target " + quoted(meant) + " --precision " +
           quoted(precision_text(variant.at("precision"))) +
           asked_options(files, variant.at("build").get<std::string>()) + " --rebuild";
}

const Json* find_variant(const Json& manifest, const std::string& slug) {
    for (const Json& item : manifest.at("variants")) {
        if (item.at("slug") == slug) return &item;
    }
    return nullptr;
}

Differences compare(const Json& build, const Json& files, const std::string& target) {
    Differences out;
    const Json none = Json::array();
    const auto list = [&](const char* key) -> const Json& { return build.contains(key) ? build.at(key) : none; };
    if (!build.is_object()) throw JsonError("it is no object");
    for (const Json& graph : list("graphs")) compare_graphs(graph.at("graph_sha256"), files, out);
    for (const Json& engine : list("engines")) compare_graphs(engine.at("fingerprint").at("graph_sha256"), files, out);
    for (const Json& engine : list("engines")) compare_machine(engine.at("fingerprint"), out);
    for (const Json& engine : list("engines")) compare_target(engine.at("fingerprint"), target, out);
    return out;
}

Differences read_and_compare(const BundleFiles& files, const Json& manifest, const Json& variant,
                             const std::string& name) {
    const auto unreadable = [&]() {
        return Error(EP_ERROR_BUNDLE, files.directory() + "/" + name +
                                          " does not say how the variant was built; run `" +
                                          rebuild_command(files, variant, "") + "`.");
    };
    const std::string path = files.inside(name);
    try {
        const JsonDocument build(read_text_file(path));
        return compare(build.root(), manifest.at("files"), variant.at("target").get<std::string>());
    } catch (const JsonError&) {
        throw unreadable();
    } catch (const Json::exception&) {
        throw unreadable();
    }
}

}  // namespace

void require_fitting_variant(const BundleFiles& files, const std::string& manifest_json, const std::string& variant) {
    if (variant.empty()) return;
    try {
        const JsonDocument document(manifest_json);
        const Json& manifest = document.root();
        const Json* entry = find_variant(manifest, variant);
        if (entry == nullptr) return;  // parse_manifest says which there are
        const Differences differences =
            read_and_compare(files, manifest, *entry, entry->at("build").get<std::string>());
        std::string text, target;
        for (const Difference& found : differences.found()) {
            text += (text.empty() ? "" : "; ") + found.text;
            if (target.empty()) target = found.target;
        }
        if (text.empty()) return;
        throw Error(EP_ERROR_BUNDLE, "variant " + variant + " does not fit: " + text + "; run `" +
                                         rebuild_command(files, *entry, target) + "`.");
    } catch (const JsonError& error) {
        throw Error(EP_ERROR_BUNDLE, std::string("manifest.json: ") + error.what());
    } catch (const Json::exception&) {
        throw Error(EP_ERROR_BUNDLE, "manifest.json: the variant \"" + variant + "\" lacks a field; build it again");
    }
}

}  // namespace edgeprune
