#include <gtest/gtest.h>
TEST(Placeholder, X) { EXPECT_EQ(1, 1); }
