// Whether a built variant still fits the graphs it was made from, and this machine: what its build.json says is
// compared before anything of it is opened. Python's edgeprune.fingerprint compares the same in the same words.
#pragma once

#include <string>

#include "bundle_files.h"

namespace edgeprune {

// What this machine does not know (no GPU, no such library where the loader looks) is not compared.
// manifest_json: text of the bundle's manifest. variant: a slug; "" or one that the manifest does not have: nothing to
// do. Throws Error(EP_ERROR_BUNDLE), one sentence with both sides and the command that rebuilds the variant.
void require_fitting_variant(const BundleFiles& files, const std::string& manifest_json, const std::string& variant);

}  // namespace edgeprune
