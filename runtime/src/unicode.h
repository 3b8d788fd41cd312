// Character classes as Hugging Face `tokenizers` knows them, one per place where it asks: its parts hold different
// versions of Unicode (see tools/make_unicode_classes.py).
#pragma once

namespace edgeprune {

// Classes of a code point in Split patterns and in the ByteLevel pattern; no code point has more than one.
enum class SplitClass : unsigned char { kOther, kLetter, kNumber, kSpace };
SplitClass split_class(char32_t code_point);

bool is_digit_for_digits(char32_t code_point);  // the Digits pre-tokenizer
bool is_word_character(char32_t code_point);    // beside a single_word added token
bool is_stripped_space(char32_t code_point);    // beside an lstrip or rstrip added token

}  // namespace edgeprune
