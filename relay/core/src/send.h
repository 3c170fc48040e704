// Packing into effects; apart from impl.h so that only those who send see the codec.
#pragma once

#include "impl.h"
#include "wire/codec.h"

namespace farcall::relay {

template <class Body>
void Core::Impl::send(PeerId peer, const Body& body, std::vector<Bytes> payload) {
  send_message(peer, wire::make_message(body, std::move(payload)));
}

}  // namespace farcall::relay
