// Packing, for the sources of the core.
#pragma once

#include "relay/core/relay.h"
#include "wire/codec.h"

namespace farcall::relay {

template <class Body>
void Relay::send_body(PeerId peer, const Body& body, std::vector<Bytes> payload) {
  send(peer, wire::make_message(body, std::move(payload)));
}

}  // namespace farcall::relay
