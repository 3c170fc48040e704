// What crosses the binary interface comes back as it was.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "providers/provider.h"

namespace farcall::providers {
namespace {

using nlohmann::json;

BlockRequest request() { return {"ep-1", 2, "echo 'a b' \"$X\"\n", "/tmp/x", 90.5}; }

TEST(ProviderJson, RequestComesBack) {
  const auto back = request_from_json(request_to_json(request()));
  ASSERT_TRUE(back);
  EXPECT_EQ(back->job_name, "ep-1");
  EXPECT_EQ(back->nodes, 2);
  EXPECT_EQ(back->command, "echo 'a b' \"$X\"\n");
  EXPECT_EQ(back->directory, "/tmp/x");
  EXPECT_EQ(back->walltime_s, 90.5);
}

TEST(ProviderJson, RequestWithoutAFieldIsAnError) {
  json half = request_to_json(request());
  half.erase("command");
  const auto back = request_from_json(half);
  ASSERT_FALSE(back);
  EXPECT_NE(back.error().message.find("command"), std::string::npos) << back.error().message;
}

TEST(ProviderJson, StatusComesBack) {
  JobStatus status;
  status.job_id = "12;c";
  status.state = JobState::kEnded;
  status.ended_by = EndedBy::kOutOfMemory;
  status.job_name = "ep-1";
  status.word = "OUT_OF_MEMORY";
  status.reason = "ReqNodeNotAvail, UnavailableNodes:n3";
  status.signal = 9;
  status.nodes = {"n1", "n2"};
  status.remaining_s = 12.5;
  status.restarts = 1;
  const auto back = status_from_json(status_to_json(status));
  ASSERT_TRUE(back);
  EXPECT_EQ(*back, status);
}

TEST(ProviderJson, StatusOfANewerModuleKeepsTheStateUnknown) {
  const auto back = status_from_json({{"job_id", "1"}, {"state", "teleporting"}, {"extra", 1}});
  ASSERT_TRUE(back);
  EXPECT_EQ(back->state, JobState::kUnknown);
  EXPECT_TRUE(back->listed);
}

TEST(ProviderJson, KeysComeBack) {
  const auto keys = common_keys();
  const json first = keys_to_json(keys);
  const auto back = keys_from_json(first);
  ASSERT_TRUE(back);
  EXPECT_EQ(keys_to_json(*back), first);
  ASSERT_EQ(back->size(), keys.size());
  EXPECT_EQ(back->front().name, "nodes_per_block");
  EXPECT_EQ(back->front().minimum, 1);
}

TEST(ProviderJson, WhatThereIsToChooseComesBack) {
  Discovery discovery{true, "PBS 1", {}};
  discovery.choices["queue"] = {{"short", "0 jobs", false}, {"long", "", true}};
  const auto back = discovery_from_json(discovery_to_json(discovery));
  ASSERT_TRUE(back);
  EXPECT_EQ(discovery_to_json(*back), discovery_to_json(discovery));
  EXPECT_EQ(back->choices.at("queue").size(), 2u);
}

TEST(ProviderJson, ErrorsComeBackAndGarbageIsInternal) {
  const Error error{ErrorCode::kSchedulerLimit, "wait"};
  EXPECT_EQ(error_from_json(error_to_json(error)), error);
  EXPECT_EQ(error_from_json(json(3)).code, ErrorCode::kInternal);
}

TEST(ProviderRequest, SaysWhichFieldMakesNoSense) {
  EXPECT_TRUE(check_request(request()));
  const auto text = [](auto change) {
    BlockRequest bad = request();
    change(bad);
    const auto checked = check_request(bad);
    return checked ? std::string("accepted") : checked.error().message;
  };
  EXPECT_NE(text([](auto& r) { r.job_name = "a,b"; }).find("job name \"a,b\""), std::string::npos);
  EXPECT_NE(text([](auto& r) { r.job_name = "-x"; }).find("job name"), std::string::npos);
  EXPECT_NE(text([](auto& r) { r.nodes = 0; }).find("0 nodes"), std::string::npos);
  EXPECT_NE(text([](auto& r) { r.directory = "x"; }).find("absolute"), std::string::npos);
  EXPECT_NE(text([](auto& r) { r.walltime_s = 0; }).find("walltime"), std::string::npos);
  EXPECT_NE(text([](auto& r) { r.command = ""; }).find("no command"), std::string::npos);
}

}  // namespace
}  // namespace farcall::providers
