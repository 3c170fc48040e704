#include "test_support/logs.h"

#include <gtest/gtest.h>

#include "base/log.h"

namespace farcall::test {
namespace {

// Run by hand through the filter of CTest's WILL_FAIL test: these have to fail.
TEST(ErrorLines, DISABLED_FailTheTest) { log_error("something went wrong"); }
TEST(ErrorLines, DISABLED_FailWhenTheyDoNotCome) { expect_error_log("something went wrong"); }

TEST(ErrorLines, AreFineWhenTheyAreExpected) {
  expect_error_log("went wrong");
  log_error("something went wrong");
  log_error("it went wrong again");
  log_warn("a warning is no error");
}

}  // namespace
}  // namespace farcall::test
