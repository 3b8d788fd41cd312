// A shared library opened at run time.
#pragma once

#include <dlfcn.h>

#include <initializer_list>
#include <stdexcept>
#include <string>

namespace edgeprune {

// Throws std::runtime_error with the loader's own words; the caller says what to install.
class DynamicLibrary {
public:
    // Opens the first of `names` that loads. Each is a soname, which the loader looks up, or a path.
    explicit DynamicLibrary(std::initializer_list<const char*> names) {
        std::string tried;
        for (const char* name : names) {
            handle_ = dlopen(name, RTLD_NOW | RTLD_LOCAL);
            if (handle_ != nullptr) return;
            const char* why = dlerror();
            tried += (tried.empty() ? "" : "; ") + std::string(why != nullptr ? why : name);
        }
        throw std::runtime_error(tried);
    }
    ~DynamicLibrary() {
        if (handle_ != nullptr) dlclose(handle_);
    }
    DynamicLibrary(const DynamicLibrary&) = delete;
    DynamicLibrary& operator=(const DynamicLibrary&) = delete;

    template <typename Function>
    void bind(Function*& function, const char* name) const {
        function = reinterpret_cast<Function*>(dlsym(handle_, name));
        if (function == nullptr) throw std::runtime_error(std::string("symbol ") + name + " is missing");
    }

private:
    void* handle_ = nullptr;
};

}  // namespace edgeprune
