#include "tokenizer.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "error.h"
#include "tokenizer_parts.h"
#include "utf8.h"

namespace edgeprune {
namespace {

// The text that is encoded: well-formed, with the bytes of plain spans marked. `plain` is empty when no byte is.
struct EncodeInput {
    std::string text;
    std::vector<bool> plain;
};

std::vector<bool> mark_plain(size_t size, const std::vector<TextSpan>& spans) {
    std::vector<bool> plain;
    for (const TextSpan& span : spans) {
        if (span.begin > span.end || span.end > size)
            throw Error(EP_ERROR_INTERNAL, "a plain span lies outside the text it belongs to");
        if (span.begin == span.end) continue;
        plain.resize(size);
        std::fill(plain.begin() + static_cast<ptrdiff_t>(span.begin), plain.begin() + static_cast<ptrdiff_t>(span.end),
                  true);
    }
    return plain;
}

EncodeInput repair(std::string_view utf8, std::vector<bool> plain) {
    if (is_valid_utf8(utf8)) return {std::string(utf8), std::move(plain)};
    EncodeInput input;
    for (size_t at = 0; at < utf8.size();) {
        const Utf8Unit unit = read_utf8_unit(utf8, at);
        append_utf8(input.text, unit.state == Utf8State::kComplete ? unit.code_point : kReplacementCodePoint);
        if (!plain.empty()) {
            const auto first = plain.begin() + static_cast<ptrdiff_t>(at);
            const auto last = first + static_cast<ptrdiff_t>(unit.length);
            input.plain.resize(input.text.size(), std::find(first, last, true) != last);
        }
        at += unit.length;
    }
    return input;
}

NormalizedText cut_out(const EncodeInput& input, size_t begin, size_t end) {
    NormalizedText piece;
    piece.text = input.text.substr(begin, end - begin);
    piece.plain.assign(end - begin, false);
    if (!input.plain.empty())
        std::copy(input.plain.begin() + static_cast<ptrdiff_t>(begin),
                  input.plain.begin() + static_cast<ptrdiff_t>(end), piece.plain.begin());
    for (size_t at = 0; at < piece.text.size();) {
        const size_t length = utf8_length(static_cast<unsigned char>(piece.text[at]));
        piece.origin.insert(piece.origin.end(), length, static_cast<uint32_t>(begin + at));
        at += length;
    }
    return piece;
}

void encode_piece(const TokenizerParts& parts, NormalizedText piece, std::vector<int32_t>& ids) {
    parts.normalizer.apply(piece);
    for (const AddedSegment& segment : parts.added.split_normalized(piece.text, piece.plain)) {
        if (segment.id >= 0) {
            ids.push_back(segment.id);
        } else if (segment.begin < segment.end) {
            const bool at_start = piece.origin[segment.begin] == 0;
            const std::string text = piece.text.substr(segment.begin, segment.end - segment.begin);
            for (const std::string& word : parts.pre_tokenizer.apply({text, at_start})) parts.model.encode(word, ids);
        }
    }
}

}  // namespace

// The tokens of a tokenizer on their way to text.
class DecodeStream {
public:
    DecodeStream(const TokenizerParts& parts, bool skip_special)
        : parts_(parts), skip_special_(skip_special), decoder_(parts.decoder) {}

    void push(int32_t id, std::string& out) {
        const std::string* token = parts_.added.id_to_text(id);
        if (token == nullptr) token = parts_.model.id_to_token(id);
        if (token != nullptr && !(skip_special_ && parts_.added.is_special(*token))) decoder_.push(*token, out);
    }
    void finish(std::string& out) { decoder_.finish(out); }

private:
    const TokenizerParts& parts_;
    bool skip_special_;
    TokenDecoder decoder_;
};

Tokenizer::Tokenizer(std::unique_ptr<TokenizerParts> parts) : parts_(std::move(parts)) {}
Tokenizer::~Tokenizer() = default;

std::unique_ptr<Tokenizer> Tokenizer::from_json(std::string_view json_text) {
    return std::unique_ptr<Tokenizer>(new Tokenizer(load_tokenizer(json_text)));
}

std::vector<int32_t> Tokenizer::encode(std::string_view utf8, const std::vector<TextSpan>& plain) const {
    if (utf8.size() > std::numeric_limits<uint32_t>::max() / 3)
        throw Error(EP_ERROR_INVALID_ARGUMENT, "the text is longer than 1 GiB; shorten it");
    const EncodeInput input = repair(utf8, mark_plain(utf8.size(), plain));
    std::vector<int32_t> ids;
    for (const AddedSegment& segment : parts_->added.split_raw(input.text, input.plain)) {
        if (segment.id >= 0)
            ids.push_back(segment.id);
        else
            encode_piece(*parts_, cut_out(input, segment.begin, segment.end), ids);
    }
    return ids;
}

std::string Tokenizer::decode(const std::vector<int32_t>& ids, bool skip_special) const {
    DecodeStream stream(*parts_, skip_special);
    std::string text;
    for (const int32_t id : ids) stream.push(id, text);
    stream.finish(text);
    return text;
}

size_t Tokenizer::vocab_size() const {
    const auto& added = parts_->added.tokens();
    const auto is_new = [&](const AddedToken& token) { return parts_->model.token_to_id(token.content) < 0; };
    return parts_->model.size() + static_cast<size_t>(std::count_if(added.begin(), added.end(), is_new));
}

int32_t Tokenizer::token_to_id(std::string_view token) const {
    const int32_t added = parts_->added.token_to_id(token);
    return added >= 0 ? added : parts_->model.token_to_id(token);
}

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer)
    : stream_(std::make_unique<DecodeStream>(*tokenizer.parts_, true)) {}
StreamDecoder::~StreamDecoder() = default;
StreamDecoder::StreamDecoder(StreamDecoder&&) noexcept = default;
StreamDecoder& StreamDecoder::operator=(StreamDecoder&&) noexcept = default;

std::string StreamDecoder::push(int32_t id) {
    std::string text;
    stream_->push(id, text);
    return text;
}

std::string StreamDecoder::finish() {
    std::string text;
    stream_->finish(text);
    return text;
}

}  // namespace edgeprune
