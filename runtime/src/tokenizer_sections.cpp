// The normalizer, pre_tokenizer and decoder sections of tokenizer.json. edgeprune/tokenizer_parts.py lists the same
// parts for the export: change both together.
#include "tokenizer_json.h"

namespace edgeprune {

using nlohmann::json;

namespace {

NormalizeStep read_normalize_step(const TokenizerPart& part) {
    if (part.type() == "Prepend") {
        part.only({"prepend"});
        return {NormalizeStep::Kind::kPrepend, "", part.text("prepend")};
    }
    if (part.type() == "Replace") {
        part.only({"pattern", "content"});
        if (part.pattern() == std::pair<std::string, std::string>("Regex", "\\s+"))
            return {NormalizeStep::Kind::kReplaceSpace, "", part.text("content")};
        return {NormalizeStep::Kind::kReplace, part.literal_pattern(), part.text("content")};
    }
    if (part.type() == "NFC" || part.type() == "Lowercase") {
        part.only({});
        return {part.type() == "NFC" ? NormalizeStep::Kind::kNfc : NormalizeStep::Kind::kLowercase, "", ""};
    }
    part.refuse();
}

PreTokenizeStep read_byte_level(const TokenizerPart& part) {
    part.only({"add_prefix_space", "trim_offsets", "use_regex"});
    PreTokenizeStep step;
    step.kind = PreTokenizeStep::Kind::kByteLevel;
    step.add_prefix_space = part.flag("add_prefix_space", true);
    step.pattern = part.flag("use_regex", true) ? SplitPattern::kGpt2 : SplitPattern::kNone;
    return step;
}

PreTokenizeStep read_digits(const TokenizerPart& part) {
    part.only({"individual_digits"});
    PreTokenizeStep step;
    step.kind = PreTokenizeStep::Kind::kDigits;
    step.individual_digits = part.flag("individual_digits", false);
    return step;
}

PreTokenizeStep read_literal_split(const TokenizerPart& part) {
    const std::string behavior = part.text("behavior");
    const std::optional<SplitBehavior> known = split_behavior(behavior);
    if (!known) part.refuse("with behavior \"" + behavior + "\"");
    PreTokenizeStep step;
    step.kind = PreTokenizeStep::Kind::kLiteralSplit;
    step.literal = {part.literal_pattern(), *known, part.flag("invert", false)};
    return step;
}

// Llama-3's and Qwen2's regular expressions cover every text, so keeping the matches (inverted removal) is the same as
// isolating them. CLIP's leave white space out.
PreTokenizeStep read_split(const TokenizerPart& part) {
    part.only({"pattern", "behavior", "invert"});
    const auto [kind, text] = part.pattern();
    if (kind == "String") return read_literal_split(part);
    PreTokenizeStep step;
    step.kind = PreTokenizeStep::Kind::kSplit;
    step.pattern = known_split_pattern(text);
    if (kind != "Regex" || step.pattern == SplitPattern::kNone) part.refuse("with pattern \"" + text + "\"");
    const std::string behavior = part.text("behavior");
    const bool invert = part.flag("invert", false);
    const bool covers = step.pattern == SplitPattern::kLlama3 || step.pattern == SplitPattern::kQwen2;
    if (!((covers && behavior == "Isolated") || (behavior == "Removed" && invert)))
        part.refuse("with behavior \"" + behavior + "\"");
    return step;
}

PreTokenizeStep::Prepend read_prepend_scheme(const TokenizerPart& part, bool is_first) {
    const std::string scheme = part.has("prepend_scheme") ? part.text("prepend_scheme") : "always";
    if (scheme == "never" || (scheme == "always" && !part.flag("add_prefix_space", true)))
        return PreTokenizeStep::Prepend::kNever;
    if (scheme == "always") return PreTokenizeStep::Prepend::kAlways;
    if (scheme == "first" && is_first) return PreTokenizeStep::Prepend::kFirst;
    part.refuse("with prepend_scheme \"" + scheme + "\"" + (scheme == "first" ? " after another pre_tokenizer" : ""));
}

PreTokenizeStep read_metaspace(const TokenizerPart& part, bool is_first) {
    part.only({"replacement", "prepend_scheme", "split", "add_prefix_space", "str_rep"});
    PreTokenizeStep step;
    step.kind = PreTokenizeStep::Kind::kMetaspace;
    step.replacement = part.character("replacement");
    step.prepend = read_prepend_scheme(part, is_first);
    step.split = part.flag("split", true);
    return step;
}

PreTokenizeStep read_pre_tokenize_step(const TokenizerPart& part, bool is_first) {
    if (part.type() == "ByteLevel") return read_byte_level(part);
    if (part.type() == "Digits") return read_digits(part);
    if (part.type() == "Metaspace") return read_metaspace(part, is_first);
    if (part.type() == "Split") return read_split(part);
    part.refuse();
}

TokenDecodeStep read_token_decode_step(const TokenizerPart& part) {
    TokenDecodeStep step{};
    if (part.type() == "Replace") {
        part.only({"pattern", "content"});
        step.kind = TokenDecodeStep::Kind::kReplace;
        step.pattern = part.literal_pattern();
        step.content = part.text("content");
    } else if (part.type() == "ByteFallback") {
        part.only({});
        step.kind = TokenDecodeStep::Kind::kByteFallback;
    } else if (part.type() == "Metaspace") {
        part.only({"replacement", "prepend_scheme", "split", "add_prefix_space", "str_rep"});
        step.kind = TokenDecodeStep::Kind::kMetaspace;
        step.pattern = part.character("replacement");
        step.drop_in_first = read_prepend_scheme(part, true) != PreTokenizeStep::Prepend::kNever;
    } else if (part.type() == "Strip") {
        part.only({"content", "start", "stop"});
        step.kind = TokenDecodeStep::Kind::kStrip;
        step.content = part.character("content");
        step.start = part.count("start");
        step.stop = part.count("stop");
    } else {
        part.refuse();
    }
    return step;
}

// After Fuse or ByteLevel there is one text; only Strip and Fuse work on it.
void read_text_step(const TokenizerPart& part, DecoderSpec& decoder) {
    if (part.type() == "Fuse") return;
    if (part.type() != "Strip") part.refuse("after the tokens are joined");
    const TokenDecodeStep strip = read_token_decode_step(part);
    decoder.strips.push_back({strip.content, strip.start, strip.stop});
}

}  // namespace

Normalizer read_normalizer(const json& section) {
    std::vector<NormalizeStep> steps;
    for (const TokenizerPart& part : flatten_parts(section, "normalizer", "normalizers"))
        steps.push_back(read_normalize_step(part));
    return Normalizer(std::move(steps));
}

PreTokenizer read_pre_tokenizer(const json& section) {
    std::vector<PreTokenizeStep> steps;
    for (const TokenizerPart& part : flatten_parts(section, "pre_tokenizer", "pretokenizers"))
        steps.push_back(read_pre_tokenize_step(part, steps.empty()));
    return PreTokenizer(std::move(steps));
}

DecoderSpec read_decoder(const json& section) {
    DecoderSpec decoder;
    if (section.is_null()) return decoder;
    decoder.join = DecoderSpec::Join::kConcatenate;
    bool joined = false;
    for (const TokenizerPart& part : flatten_parts(section, "decoder", "decoders")) {
        const bool byte_level = part.type() == "ByteLevel";
        if (byte_level) part.only({"add_prefix_space", "trim_offsets", "use_regex"});
        if (part.type() == "Fuse") part.only({});
        if (joined) {
            read_text_step(part, decoder);
        } else if (byte_level || part.type() == "Fuse") {
            joined = true;
            if (byte_level) decoder.join = DecoderSpec::Join::kByteLevel;
        } else {
            decoder.token_steps.push_back(read_token_decode_step(part));
        }
    }
    return decoder;
}

}  // namespace edgeprune
