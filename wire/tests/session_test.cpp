#include "wire/session.h"

#include <gtest/gtest.h>

namespace farcall::wire {
namespace {

TEST(Session, NoticesGapsRepeatsAndOtherLives) {
  Session sender(7), receiver(7);
  Envelope first = sender.next(MessageType::kPing);
  Envelope second = sender.next(MessageType::kPing);
  Envelope third = sender.next(MessageType::kPing);
  EXPECT_EQ(first.sequence, 1u);
  EXPECT_EQ(receiver.receive(first), Session::Verdict::kInOrder);
  EXPECT_EQ(receiver.receive(first), Session::Verdict::kRepeated);
  EXPECT_EQ(receiver.receive(third), Session::Verdict::kGap);
  EXPECT_EQ(receiver.receive(second), Session::Verdict::kInOrder);
  EXPECT_EQ(receiver.receive(Session(8).next(MessageType::kPing)), Session::Verdict::kOtherSession);
}

}  // namespace
}  // namespace farcall::wire
