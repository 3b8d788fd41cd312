#include "bundle_files.h"

#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>

#include "error.h"
#include "sha256.h"

namespace edgeprune {

namespace fs = std::filesystem;

std::string read_text_file(const std::string& path) {
    // Not by streams: they swallow a failed allocation and give a part of the file.
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"), std::fclose);
    std::string text;
    char block[16384];
    size_t count = 0;
    while (file != nullptr && (count = std::fread(block, 1, sizeof block, file.get())) > 0) text.append(block, count);
    if (file == nullptr || std::ferror(file.get()) != 0) throw Error(EP_ERROR_IO, "cannot read " + path);
    return text;
}

BundleFiles::BundleFiles(const std::string& directory) {
    std::error_code error;
    const fs::path real = fs::canonical(directory, error);
    if (error || !fs::is_directory(real, error)) {
        throw Error(EP_ERROR_IO, "no bundle at " + directory + ": it is not a directory that can be read");
    }
    if (!fs::exists(real / "manifest.json", error)) {
        throw Error(EP_ERROR_IO, "no bundle at " + directory + ": it has no manifest.json");
    }
    directory_ = real.string();
}

std::string BundleFiles::inside(const std::string& file) const {
    std::error_code error;
    const fs::path real = fs::canonical(fs::path(directory_) / file, error);
    if (error == std::errc::no_such_file_or_directory) {
        throw Error(EP_ERROR_BUNDLE, file + " of the bundle is missing; export the bundle again");
    }
    if (error) throw Error(EP_ERROR_IO, "cannot read " + file + " of the bundle: " + error.message());
    const std::string text = real.string();
    if (text.compare(0, directory_.size() + 1, directory_ + "/") != 0) {
        throw Error(EP_ERROR_BUNDLE, file + " of the bundle is a link to a place outside of it");
    }
    return text;
}

void BundleFiles::check_size(const std::string& file, const FileSpec& spec) const {
    std::error_code error;
    const uintmax_t bytes = fs::file_size(inside(file), error);
    if (error) throw Error(EP_ERROR_BUNDLE, file + " of the bundle is not a file");
    if (bytes != spec.bytes) {
        throw Error(EP_ERROR_BUNDLE, file + " has " + std::to_string(bytes) + " bytes, but the manifest says " +
                                         std::to_string(spec.bytes) + "; export the bundle again");
    }
}

void BundleFiles::check_sizes(const Manifest& manifest) const {
    for (const auto& [file, spec] : manifest.files) {
        if (file.rfind("golden/", 0) != 0) check_size(file, spec);
    }
}

std::string BundleFiles::verified(const Manifest& manifest, const std::string& file, bool hashes) {
    const auto found = manifest.files.find(file);
    if (found == manifest.files.end()) {
        throw Error(EP_ERROR_BUNDLE, "manifest.json: files does not list " + file);
    }
    check_size(file, found->second);
    std::string path = inside(file);
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!hashes || hashed_.count(file) > 0) return path;
    const std::string sha256 = sha256_file(path);
    if (sha256 != found->second.sha256) {
        throw Error(EP_ERROR_BUNDLE, file + " has SHA-256 " + sha256 + ", but the manifest says " +
                                         found->second.sha256 + "; export the bundle again");
    }
    hashed_.insert(file);
    return path;
}

}  // namespace edgeprune
