// What Python itself makes of a value, for readers that have to agree with it.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "base/subprocess.h"

namespace farcall::staging {

// The bytes that a script writes to `out`. numpy is loaded as np, farcall_values and pickle too.
inline std::string python_bytes(const std::string& script) {
  const std::string prelude = "import sys, pickle\nsys.path.insert(0, '" FARCALL_TEST_VALUES
                              "')\nimport numpy as np\nfrom farcall_values import dump_value\nout "
                              "= sys.stdout.buffer.write\n";
  auto run = run_command({.argv = {FARCALL_TEST_PYTHON, "-B", "-c", prelude + script},
                          .standard_input = {},
                          .working_directory = {},
                          .extra_environment = {}});
  EXPECT_TRUE(run) << (run ? "" : run.error().message);
  EXPECT_EQ(run->exit_code, 0) << run->err;
  return run ? run->out : "";
}
inline std::string python_value(const std::string& expression) {
  return python_bytes("out(b''.join(dump_value(" + expression + ")))");
}

}  // namespace farcall::staging
