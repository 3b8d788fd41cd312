#include "utf8.h"

namespace edgeprune {
namespace {

// What may follow a lead byte: total length, and the range of the second byte (narrower for E0, ED, F0 and F4, which
// rules out overlong forms, surrogates and code points above U+10FFFF).
struct LeadByte {
    size_t length;
    unsigned char second_min, second_max;
};

LeadByte classify_lead(unsigned char lead) {
    if (lead < 0x80) return {1, 0, 0};
    if (lead >= 0xC2 && lead <= 0xDF) return {2, 0x80, 0xBF};
    if (lead == 0xE0) return {3, 0xA0, 0xBF};
    if (lead == 0xED) return {3, 0x80, 0x9F};
    if (lead >= 0xE1 && lead <= 0xEF) return {3, 0x80, 0xBF};
    if (lead == 0xF0) return {4, 0x90, 0xBF};
    if (lead == 0xF4) return {4, 0x80, 0x8F};
    if (lead >= 0xF1 && lead <= 0xF3) return {4, 0x80, 0xBF};
    return {0, 0, 0};
}

char32_t lead_bits(unsigned char lead, size_t length) {
    return length == 1 ? lead : static_cast<char32_t>(lead & (0x7F >> length));
}

}  // namespace

Utf8Unit read_utf8_unit(std::string_view bytes, size_t at) {
    const auto byte = [&](size_t i) { return static_cast<unsigned char>(bytes[i]); };
    const LeadByte lead = classify_lead(byte(at));
    if (lead.length == 0) return {Utf8State::kMalformed, 1, 0};
    char32_t code_point = lead_bits(byte(at), lead.length);
    for (size_t i = 1; i < lead.length; ++i) {
        if (at + i == bytes.size()) return {Utf8State::kTruncated, i, 0};
        const unsigned char least = i == 1 ? lead.second_min : 0x80;
        const unsigned char most = i == 1 ? lead.second_max : 0xBF;
        if (byte(at + i) < least || byte(at + i) > most) return {Utf8State::kMalformed, i, 0};
        code_point = (code_point << 6) | (byte(at + i) & 0x3F);
    }
    return {Utf8State::kComplete, lead.length, code_point};
}

char32_t read_utf8(std::string_view text, size_t& at) {
    const auto lead = static_cast<unsigned char>(text[at]);
    const size_t length = utf8_length(lead);
    char32_t code_point = lead_bits(lead, length);
    for (size_t i = 1; i < length; ++i)
        code_point = (code_point << 6) | (static_cast<unsigned char>(text[at + i]) & 0x3F);
    at += length;
    return code_point;
}

void append_utf8(std::string& out, char32_t code_point) {
    const auto put = [&](char32_t bits) { out.push_back(static_cast<char>(static_cast<unsigned char>(bits))); };
    if (code_point < 0x80) {
        put(code_point);
    } else if (code_point < 0x800) {
        put(0xC0 | (code_point >> 6));
        put(0x80 | (code_point & 0x3F));
    } else if (code_point < 0x10000) {
        put(0xE0 | (code_point >> 12));
        put(0x80 | ((code_point >> 6) & 0x3F));
        put(0x80 | (code_point & 0x3F));
    } else {
        put(0xF0 | (code_point >> 18));
        put(0x80 | ((code_point >> 12) & 0x3F));
        put(0x80 | ((code_point >> 6) & 0x3F));
        put(0x80 | (code_point & 0x3F));
    }
}

bool is_valid_utf8(std::string_view bytes) {
    for (size_t at = 0; at < bytes.size();) {
        const Utf8Unit unit = read_utf8_unit(bytes, at);
        if (unit.state != Utf8State::kComplete) return false;
        at += unit.length;
    }
    return true;
}

}  // namespace edgeprune
