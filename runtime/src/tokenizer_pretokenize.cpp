#include "tokenizer_pretokenize.h"

#include <array>
#include <string_view>
#include <utility>

#include "unicode.h"
#include "utf8.h"

namespace edgeprune {
namespace {

using Step = PreTokenizeStep;

// Printable Latin-1 bytes stand for themselves, the others for U+0100 and up in their order (GPT-2's table).
struct ByteAlphabet {
    std::array<std::string, 256> characters;
    std::array<int, 0x144> bytes;

    ByteAlphabet() {
        bytes.fill(-1);
        char32_t next = 0x100;
        for (int byte = 0; byte < 256; ++byte) {
            const bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
            const char32_t point = printable ? static_cast<char32_t>(byte) : next++;
            append_utf8(characters[static_cast<size_t>(byte)], point);
            bytes[point] = byte;
        }
    }
};

const ByteAlphabet& byte_alphabet() {
    static const ByteAlphabet alphabet;
    return alphabet;
}

void push_piece(std::vector<Piece>& out, std::string_view text, bool at_start) {
    if (!text.empty()) out.push_back({std::string(text), at_start});
}

void cut_by_pattern(const Piece& piece, SplitPattern pattern, std::vector<Piece>& out) {
    bool first = true;
    for (const std::string_view part : split_by(pattern, piece.text))
        push_piece(out, part, piece.at_start && std::exchange(first, false));
}

void cut_at_literal(const Piece& piece, const LiteralSplit& split, std::vector<Piece>& out) {
    for (const std::string_view part : split_at_literal(split, piece.text))
        push_piece(out, part, piece.at_start && part.data() == piece.text.data());
}

void apply_byte_level(const Step& step, Piece piece, std::vector<Piece>& out) {
    if (step.add_prefix_space && piece.text.front() != ' ') piece.text.insert(0, 1, ' ');
    const size_t first_new = out.size();
    cut_by_pattern(piece, step.pattern, out);
    for (size_t i = first_new; i < out.size(); ++i) {
        std::string mapped;
        for (const char byte : out[i].text) mapped += byte_level_character(static_cast<unsigned char>(byte));
        out[i].text = std::move(mapped);
    }
}

void apply_digits(const Step& step, const Piece& piece, std::vector<Piece>& out) {
    const std::string_view text = piece.text;
    size_t begin = 0;
    bool digits_before = false;
    for (size_t at = 0; at < text.size();) {
        const size_t here = at;
        const bool digit = is_digit_for_digits(read_utf8(text, at));
        const bool cut = digit != digits_before || (digit && step.individual_digits);
        if (cut && here > begin) {
            push_piece(out, text.substr(begin, here - begin), piece.at_start && begin == 0);
            begin = here;
        }
        digits_before = digit;
    }
    push_piece(out, text.substr(begin), piece.at_start && begin == 0);
}

std::string replace_spaces(std::string_view text, std::string_view replacement) {
    std::string out;
    out.reserve(text.size());
    for (const char byte : text) {
        if (byte == ' ')
            out += replacement;
        else
            out += byte;
    }
    return out;
}

// Each replacement opens a piece.
void cut_before(std::string_view text, const std::string& replacement, bool at_start, std::vector<Piece>& out) {
    for (size_t begin = 0; begin < text.size();) {
        const size_t next = text.find(replacement, begin + 1);
        const size_t end = next == std::string_view::npos ? text.size() : next;
        push_piece(out, text.substr(begin, end - begin), at_start && begin == 0);
        begin = end;
    }
}

void apply_metaspace(const Step& step, const Piece& piece, std::vector<Piece>& out) {
    std::string text = replace_spaces(piece.text, step.replacement);
    const bool wanted =
        step.prepend == Step::Prepend::kAlways || (step.prepend == Step::Prepend::kFirst && piece.at_start);
    if (wanted && text.compare(0, step.replacement.size(), step.replacement) != 0) text.insert(0, step.replacement);
    if (step.split)
        cut_before(text, step.replacement, piece.at_start, out);
    else
        push_piece(out, text, piece.at_start);
}

std::vector<Piece> apply_step(const Step& step, std::vector<Piece> pieces) {
    std::vector<Piece> out;
    out.reserve(pieces.size());
    for (Piece& piece : pieces) {
        switch (step.kind) {
            case Step::Kind::kByteLevel:
                apply_byte_level(step, std::move(piece), out);
                break;
            case Step::Kind::kDigits:
                apply_digits(step, piece, out);
                break;
            case Step::Kind::kMetaspace:
                apply_metaspace(step, piece, out);
                break;
            case Step::Kind::kSplit:
                cut_by_pattern(piece, step.pattern, out);
                break;
            case Step::Kind::kLiteralSplit:
                cut_at_literal(piece, step.literal, out);
                break;
        }
    }
    return out;
}

}  // namespace

std::vector<std::string> PreTokenizer::apply(Piece text) const {
    std::vector<Piece> pieces;
    if (!text.text.empty()) pieces.push_back(std::move(text));
    for (const Step& step : steps_) pieces = apply_step(step, std::move(pieces));
    std::vector<std::string> words;
    words.reserve(pieces.size());
    for (Piece& piece : pieces) words.push_back(std::move(piece.text));
    return words;
}

const std::string& byte_level_character(unsigned char byte) {
    return byte_alphabet().characters[byte];
}

int byte_level_byte(char32_t code_point) {
    const auto& bytes = byte_alphabet().bytes;
    return code_point < bytes.size() ? bytes[code_point] : -1;
}

}  // namespace edgeprune
