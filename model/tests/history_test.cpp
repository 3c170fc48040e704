#include "model/history.h"

#include <gtest/gtest.h>

namespace farcall {
namespace {

constexpr auto kCrash = static_cast<std::size_t>(FailureClass::kCrash);
constexpr auto kLost = static_cast<std::size_t>(FailureClass::kLost);

TaskHistory history(std::uint16_t attempt, std::uint16_t crashes, std::uint16_t losses) {
  TaskHistory h;
  h.index = 4;
  h.attempt = attempt;
  h.failures[kCrash] = crashes;
  h.failures[kLost] = losses;
  return h;
}

TEST(MergedHistory, ACompleteReportReplacesWhatIsKnown) {
  EXPECT_EQ(merged(history(2, 0, 1), history(3, 1, 1)), history(3, 1, 1));
  EXPECT_EQ(merged(history(1, 0, 0), history(2, 0, 1)), history(2, 0, 1));
}

TEST(MergedHistory, ChargesThatTheReporterHasForgottenAreKept) {
  // Restarted on attempt 2 without knowing why it was the second, then lost.
  EXPECT_EQ(merged(history(2, 0, 1), history(3, 0, 1)), history(3, 0, 2));
  EXPECT_EQ(merged(history(3, 1, 1), history(5, 0, 2)), history(5, 1, 3));
}

TEST(MergedHistory, WhatNobodyKnowsIsNotMadeUp) {
  EXPECT_EQ(merged(history(1, 0, 0), history(3, 0, 1)), history(3, 0, 1));
  // Of three charges the report knows the last two, the relay the first two.
  EXPECT_EQ(merged(history(3, 1, 1), history(4, 0, 2)), history(4, 1, 2));
}

}  // namespace
}  // namespace farcall
