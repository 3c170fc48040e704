// Results in a file: what a pilot could not deliver goes to shared storage as one file and is taken
// in by its interchange later. A line of text, then the message's body and its data:
//   farcall-results 1 <bytes of the body> <bytes of the data>
#pragma once

#include "wire/message.h"

namespace farcall::wire {

// `results` is a wire::Results with its data in payload[0].
std::string pack_results_file(const Message& results);
// kCorrupt says what is wrong: cut off, longer than it says, not such a file, a body that cannot be
// decoded, or data that are not those of the outcomes. kVersion: written by a newer farcall.
Result<Message> unpack_results_file(const Bytes& file);

}  // namespace farcall::wire
