// Files of a bundle: found, kept inside the bundle, and compared with the manifest before anything reads them.
#pragma once

#include <mutex>
#include <set>
#include <string>

#include "manifest.h"

namespace edgeprune {

// The whole file. Throws Error(EP_ERROR_IO).
std::string read_text_file(const std::string& path);

// Thread-safe.
class BundleFiles {
public:
    // Throws Error: EP_ERROR_IO when `directory` is not a readable directory.
    explicit BundleFiles(const std::string& directory);

    const std::string& directory() const { return directory_; }
    // Every file of the manifest exists, lies inside the bundle and has its size. Golden files are left out: they serve
    // checks, not answers. Throws Error(EP_ERROR_BUNDLE).
    void check_sizes(const Manifest& manifest) const;
    // Path of one file for reading; with hashes, its SHA-256 is compared first (once per file).
    // Throws Error(EP_ERROR_BUNDLE).
    std::string verified(const Manifest& manifest, const std::string& file, bool hashes);
    // Path of a file that exists and lies inside the bundle. Throws Error.
    std::string inside(const std::string& file) const;

private:
    void check_size(const std::string& file, const FileSpec& spec) const;

    std::string directory_;  // without links
    std::mutex mutex_;
    std::set<std::string> hashed_;
};

}  // namespace edgeprune
