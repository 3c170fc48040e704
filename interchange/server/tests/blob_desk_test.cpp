#include "blob_desk.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <condition_variable>
#include <deque>
#include <fstream>
#include <mutex>
#include <nlohmann/json.hpp>

#include "wire/codec.h"

namespace farcall::interchange {
namespace {

using nlohmann::json;
using testing::HasSubstr;
namespace fs = std::filesystem;

class BlobDeskTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "farcall-desk-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    const auto post = [this](std::function<void()> action) {
      std::lock_guard lock(mutex_);
      posted_.push_back(std::move(action));
      changed_.notify_one();
    };
    auto opened = BlobDesk::open(
        {folder_ / "blobs", 0}, results(), std::chrono::hours(24), post,
        [this](const wire::Message& m) { sent_.push_back(m); },
        [](PeerId, const wire::Message&) {});
    ASSERT_TRUE(opened) << opened.error().message;
    desk_ = std::move(*opened);
  }
  void TearDown() override {
    desk_.reset();
    fs::remove_all(folder_);
  }

  fs::path results() const { return folder_ / "results"; }
  static std::string task(std::uint32_t index) { return TaskId{kSubmission, index}.string(); }
  fs::path file(std::uint32_t index) const {
    return results() / (task(index) + "." + std::string(64, 'a') + ".file");
  }
  void leave(std::uint32_t count) {
    for (std::uint32_t i = 0; i < count; ++i) std::ofstream(file(i)) << "12345";
  }
  // {"error", "text"}, or the answer.
  json ask(const std::string& method, const json& p) {
    sent_.clear();
    EXPECT_TRUE(desk_->from_relay(wire::make_message(wire::Call{7, method}, {Bytes(p.dump())})));
    while (sent_.empty()) {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return !posted_.empty(); });
      auto action = std::move(posted_.front());
      posted_.pop_front();
      lock.unlock();
      action();
    }
    const auto reply = *wire::decode<wire::Reply>(sent_[0]);
    EXPECT_EQ(reply.request, 7u);
    if (reply.error != 0) return {{"error", reply.error}, {"text", reply.text}};
    return json::parse(sent_[0].payload.at(0).view());
  }

  static constexpr SubmissionId kSubmission{{1, 2, 3, 4, 5, 6, 0x70, 8, 0x80, 10, 11, 12}};
  fs::path folder_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> posted_;
  std::vector<wire::Message> sent_;
  std::unique_ptr<BlobDesk> desk_;
};

TEST_F(BlobDeskTest, WhatLiesHereIsListedInPages) {
  leave(3);
  std::ofstream(results() / "notes.txt") << "somebody's";
  const json first = ask("stored.list", {{"after", ""}, {"limit", 2}});
  EXPECT_EQ(first["keep_ms"], 86'400'000);
  EXPECT_EQ(first["more"], true);
  ASSERT_EQ(first["files"].size(), 2u);
  json one = first["files"][1];
  EXPECT_GT(one["written_ms"].get<std::int64_t>(), 0);
  one.erase("written_ms");
  EXPECT_EQ(one, json({{"task", task(1)},
                       {"hash", std::string(64, 'a')},
                       {"kind", "file"},
                       {"bytes", 5},
                       {"state", "there"},
                       {"removed_ms", 0}}));
  const json second = ask("stored.list", {{"after", first["last"]}, {"limit", 2}});
  EXPECT_EQ(second["files"].size(), 1u);
  EXPECT_EQ(second["more"], false);
}

TEST_F(BlobDeskTest, ReleasedIsWhatIsMeantAndNoMore) {
  leave(5);
  const json what{{"tasks", {{kSubmission.string(), {0, 2, 4, 9}}}}};
  const json went = ask("stored.release", what);
  EXPECT_EQ(went["files"], 3);
  EXPECT_EQ(went["bytes"], 15);
  EXPECT_EQ(went["hashes"].size(), 3u);
  EXPECT_EQ(went["more"], false);
  EXPECT_TRUE(!fs::exists(file(0)) && fs::exists(file(2)) && fs::exists(file(3)));
  EXPECT_EQ(ask("stored.release", what)["files"], 0);
  const json listed = ask("stored.list", {{"after", ""}, {"limit", 10}});
  EXPECT_EQ(listed["files"].size(), 5u);
  EXPECT_EQ(listed["files"][0]["state"], "released");
  EXPECT_GT(listed["files"][0]["removed_ms"].get<std::int64_t>(), 0);
}

TEST_F(BlobDeskTest, WhatIsForgottenGoesHoweverMuchItIsAndLeavesNoTrace) {
  leave(1203);
  EXPECT_EQ(ask("stored.forget", {{"tasks", {{kSubmission.string(), {0, 1202}}}}}), json::object());
  EXPECT_TRUE(!fs::exists(file(1201)) && fs::exists(file(1202)));
  EXPECT_EQ(ask("stored.list", {{"after", ""}, {"limit", 10}})["files"].size(), 1u);
}

TEST_F(BlobDeskTest, QuestionsThatMakeNoSenseAreSaidTo) {
  leave(1);
  EXPECT_EQ(
      ask("stored.sell", {{"task", task(0)}, {"hash", std::string(64, 'a')}, {"size", 5}})["text"],
      "stored.sell: this interchange knows no such question");
  EXPECT_THAT(ask("stored.list", json::object())["text"], HasSubstr("stored.list: "));
  EXPECT_THAT(ask("stored.release", {{"tasks", {{"x", {0, 1}}}}})["text"],
              HasSubstr("stored.release: "));
  EXPECT_EQ(ask("stored.release", {{"tasks", {{kSubmission.string(), {3, 1}}}}})["text"],
            "stored.release: its ranges of " + kSubmission.string() + " are not sorted");
  EXPECT_EQ(ask("stored.drop", {{"task", task(0)}, {"hash", "x"}, {"size", 5}})["text"],
            "stored.drop: \"hash\" is no hash");
  EXPECT_TRUE(fs::exists(file(0)));
}

}  // namespace
}  // namespace farcall::interchange
