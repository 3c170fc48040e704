// A line that is logged at ERROR fails the GoogleTest in which it is logged, whatever thread logs
// it; a test that provokes one says so.
#pragma once

#include <string>

namespace farcall::test {

// Lines at ERROR that contain `text` are fine in the current test, and at least one has to come.
void expect_error_log(std::string text);

}  // namespace farcall::test
