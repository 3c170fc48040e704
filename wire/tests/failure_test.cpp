#include "wire/failure.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace farcall::wire {
namespace {

nlohmann::json json_of(std::string_view data) {
  const auto size = static_cast<unsigned char>(data[1]) + 256 * static_cast<unsigned char>(data[2]);
  return nlohmann::json::parse(data.substr(5, static_cast<std::size_t>(size)));
}

TEST(Failure, TheJobIsAddedWhereNoneStandsAndThePickleStays) {
  const Bytes plain = failure_data({.type = "WorkerCrashed",
                                    .message = "the worker died",
                                    .failure = FailureClass::kCrash,
                                    .host = "n1",
                                    .attempt = 2});
  const std::string pickle("\x80\x05\0E", 4);
  const std::string told = with_job_id(std::string(plain.view()) + pickle, "17");
  auto expected = json_of(plain.view());
  EXPECT_FALSE(expected.contains("job_id"));
  expected["job_id"] = "17";
  EXPECT_EQ(json_of(told), expected);
  EXPECT_TRUE(told.ends_with(pickle));
  EXPECT_EQ(with_job_id(told, "18"), told);  // who knew it first was there
}

TEST(Failure, WhatIsNoFailureOrHasNoJobStaysAsItIs) {
  const Bytes failure = failure_data({.type = "TaskLost", .message = "m", .job_id = "3"});
  EXPECT_EQ(json_of(failure.view())["job_id"], "3");
  const std::string cut(failure.view().substr(0, failure.size() - 1));
  for (const std::string& data :
       {std::string(), std::string("E"), std::string("J17"), cut,
        std::string("E\xff\xff\xff\xff{}"), std::string("E\2\0\0\0[]", 7)})
    EXPECT_EQ(with_job_id(data, "17"), data);
  EXPECT_EQ(with_job_id(failure_data({.type = "X"}).view(), ""),
            failure_data({.type = "X"}).view());
}

}  // namespace
}  // namespace farcall::wire
