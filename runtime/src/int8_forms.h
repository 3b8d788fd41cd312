// Where int8_kernels.cpp finds the forms of one kind of processor.
#pragma once

#include "int8_kernels.h"

namespace edgeprune::int8 {

constexpr bool is_asked(Instructions instructions, Instructions one) {
    return instructions == one || instructions == Instructions::chosen;
}

// The best form, or the one asked for; null where the processor lacks it, or it is another kind's.
const Form* x86_form(Instructions instructions) noexcept;

}  // namespace edgeprune::int8
