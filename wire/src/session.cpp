#include "wire/session.h"

namespace farcall::wire {

Session::Verdict Session::receive(const Envelope& envelope) {
  if (envelope.session != id_) return Verdict::kOtherSession;
  if (envelope.sequence <= received_) return Verdict::kRepeated;
  if (envelope.sequence != received_ + 1) return Verdict::kGap;
  received_ = envelope.sequence;
  return Verdict::kInOrder;
}

}  // namespace farcall::wire
