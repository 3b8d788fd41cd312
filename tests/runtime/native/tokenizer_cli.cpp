// Drives the tokenizer from pytest: tokenizer_cli TOKENIZER_JSON < requests > replies.
//
// Little-endian frames. First reply: u32 status (an ep_status), then a text: the error's sentence, or "".
// Requests, each a letter and its arguments, until the input ends:
//   E  u32 spans, spans x (u32 begin, u32 end), text -> ids          encode
//   D  u32 skip_special, ids                         -> text         decode
//   S  ids                                           -> u32 pieces, pieces x text   StreamDecoder, finish() last
//   T  text                                          -> ids (one)    token_to_id
//   V                                                -> ids (one)    vocab_size
// text: u32 bytes, bytes. ids: u32 count, count x i32.
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
#include <stdexcept>
#include <string>

#include "error.h"
#include "tokenizer.h"

namespace {

using edgeprune::StreamDecoder;
using edgeprune::TextSpan;
using edgeprune::Tokenizer;

class Frames {
public:
    bool read_letter(char& letter) { return static_cast<bool>(std::cin.get(letter)); }

    uint32_t read_u32() {
        uint32_t value = 0;
        read_bytes(reinterpret_cast<char*>(&value), sizeof value);
        return value;
    }

    std::string read_text() {
        std::string text(read_u32(), '\0');
        read_bytes(text.data(), text.size());
        return text;
    }

    std::vector<int32_t> read_ids() {
        std::vector<int32_t> ids(read_u32());
        read_bytes(reinterpret_cast<char*>(ids.data()), ids.size() * sizeof(int32_t));
        return ids;
    }

    void write_u32(uint32_t value) { std::cout.write(reinterpret_cast<const char*>(&value), sizeof value); }

    void write_text(const std::string& text) {
        write_u32(static_cast<uint32_t>(text.size()));
        std::cout.write(text.data(), static_cast<std::streamsize>(text.size()));
    }

    void write_ids(const std::vector<int32_t>& ids) {
        write_u32(static_cast<uint32_t>(ids.size()));
        std::cout.write(reinterpret_cast<const char*>(ids.data()),
                        static_cast<std::streamsize>(ids.size() * sizeof(int32_t)));
    }

private:
    void read_bytes(char* to, size_t count) {
        if (!std::cin.read(to, static_cast<std::streamsize>(count))) throw std::runtime_error("a request ends early");
    }
};

void encode(const Tokenizer& tokenizer, Frames& frames) {
    std::vector<TextSpan> plain(frames.read_u32());
    for (TextSpan& span : plain) {
        span.begin = frames.read_u32();
        span.end = frames.read_u32();
    }
    frames.write_ids(tokenizer.encode(frames.read_text(), plain));
}

void stream(const Tokenizer& tokenizer, Frames& frames) {
    StreamDecoder decoder(tokenizer);
    const std::vector<int32_t> ids = frames.read_ids();
    frames.write_u32(static_cast<uint32_t>(ids.size() + 1));
    for (const int32_t id : ids) frames.write_text(decoder.push(id));
    frames.write_text(decoder.finish());
}

void serve(const Tokenizer& tokenizer, Frames& frames) {
    for (char letter = 0; frames.read_letter(letter);) {
        switch (letter) {
            case 'E':
                encode(tokenizer, frames);
                break;
            case 'D': {
                const bool skip_special = frames.read_u32() != 0;
                frames.write_text(tokenizer.decode(frames.read_ids(), skip_special));
                break;
            }
            case 'S':
                stream(tokenizer, frames);
                break;
            case 'T':
                frames.write_ids({tokenizer.token_to_id(frames.read_text())});
                break;
            case 'V':
                frames.write_ids({static_cast<int32_t>(tokenizer.vocab_size())});
                break;
            default:
                throw std::runtime_error("unknown request");
        }
    }
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) return 2;
    std::ifstream file(argv[1], std::ios::binary);
    const std::string json{std::istreambuf_iterator<char>(file), {}};
    Frames frames;
    try {
        const auto tokenizer = Tokenizer::from_json(json);
        frames.write_u32(EP_OK);
        frames.write_text("");
        serve(*tokenizer, frames);
    } catch (const edgeprune::Error& error) {
        frames.write_u32(error.status());
        frames.write_text(error.what());
    } catch (const std::exception& failure) {
        std::cerr << failure.what() << "\n";
        return 1;
    }
    return 0;
}
