#include "blobs/depot.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <deque>
#include <mutex>

#include "base/files.h"
#include "base/keys.h"
#include "wire/codec.h"

namespace farcall::blobs {
namespace {

// The loop of a process: what is posted is run by until().
class FakeLoop {
 public:
  Depot::Post post() {
    return [this](std::function<void()> action) {
      std::lock_guard lock(mutex_);
      actions_.push_back(std::move(action));
      changed_.notify_one();
    };
  }
  void until(const std::function<bool()>& done) {
    while (!done()) {
      std::unique_lock lock(mutex_);
      ASSERT_TRUE(changed_.wait_for(lock, std::chrono::seconds(30), [this] {
        return !actions_.empty();
      })) << "nothing happens any more";
      auto action = std::move(actions_.front());
      actions_.pop_front();
      lock.unlock();
      action();
    }
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> actions_;
};

class DepotTest : public testing::Test {
 protected:
  FakeLoop loop_;
  std::filesystem::path root_ =
      std::filesystem::path(testing::TempDir()) / ("depot-" + random_token(6));
  std::map<std::string, std::string> content_;  // of the far side, by hash
  std::uint64_t sent_ = 0;
  bool mute_ = false;
  const Depot* alive_ = nullptr;
  std::deque<wire::BlobGet> unanswered_;

  ~DepotTest() override { std::filesystem::remove_all(root_); }

  std::unique_ptr<Depot> open(std::uint64_t bytes_max = 0) {
    auto depot = Depot::open({root_, bytes_max}, loop_.post());
    EXPECT_TRUE(depot);
    alive_ = depot->get();
    return std::move(*depot);
  }
  wire::BlobRef add(const std::string& bytes) {
    const wire::BlobRef blob{content_hash(bytes), bytes.size()};
    content_[blob.hash] = bytes;
    return blob;
  }
  // A source that answers on the next turn.
  void connect(Depot& depot, Depot::Source source, const std::string& scope = "") {
    depot.connect(source, scope, [this, &depot, source](const wire::Message& message) {
      const auto get = wire::decode<wire::BlobGet>(message).value();
      if (mute_) return unanswered_.push_back(get);
      loop_.post()([this, &depot, source, get] {
        if (alive_ == &depot) answer(depot, source, get);
      });
    });
  }
  void answer(Depot& depot, Depot::Source source, const wire::BlobGet& get) {
    if (!content_.contains(get.blob.hash))
      return depot.take(source, {get.blob, get.offset, 4, "never heard of it"}, {});
    sent_ += get.size;
    depot.take(source, {get.blob, get.offset, 0, ""},
               Bytes(content_[get.blob.hash].substr(get.offset, get.size)));
  }
  Result<void> fetch(Depot& depot, Depot::Source source, const wire::BlobRef& blob) {
    std::optional<Result<void>> outcome;
    depot.fetch(source, blob, [&](const Result<void>& o) { outcome = o; });
    loop_.until([&] { return outcome.has_value(); });
    return outcome.value_or(Result<void>(fail(ErrorCode::kTimeout, "no outcome")));
  }
  std::string read(Depot& depot, const std::string& scope, const wire::BlobRef& blob) {
    std::string all;
    while (all.size() < blob.size) {
      std::optional<wire::Message> reply;
      const auto size = static_cast<std::uint32_t>(
          std::min<std::uint64_t>(wire::kBlobChunkBytes, blob.size - all.size()));
      depot.serve(scope, {blob, all.size(), size},
                  [&](const wire::Message& message) { reply = message; });
      loop_.until([&] { return reply.has_value(); });
      const auto chunk = wire::decode<wire::BlobChunk>(*reply).value();
      if (chunk.error != 0) return chunk.text;
      all += reply->payload.at(0).view();
    }
    return all;
  }
};

TEST_F(DepotTest, FetchesOnceForAllWhoAskAndHandsOut) {
  auto depot = open();
  connect(*depot, 1);
  const auto blob = add(std::string(3'500'000, 'q'));
  int done = 0;
  for (int i = 0; i < 50; ++i)
    depot->fetch(1, blob, [&](const Result<void>& outcome) { done += outcome ? 1 : 0; });
  loop_.until([&] { return done == 50; });
  EXPECT_EQ(sent_, blob.size);
  EXPECT_TRUE(fetch(*depot, 1, blob));
  EXPECT_EQ(sent_, blob.size);
  EXPECT_EQ(read(*depot, "", blob), content_[blob.hash]);
}

TEST_F(DepotTest, ACutAndANewLifeGoOnWhereItWas) {
  const auto blob = add(std::string(20'000'000, 'q'));
  auto depot = open();
  mute_ = true;
  connect(*depot, 1);
  int done = 0;
  depot->fetch(1, blob, [&](const Result<void>&) { ++done; });
  loop_.until([&] { return unanswered_.size() >= 5; });
  for (int i = 0; i < 5; ++i) answer(*depot, 1, unanswered_[static_cast<std::size_t>(i)]);
  loop_.until([&] { return unanswered_.size() >= 10; });
  depot->disconnect(1);
  mute_ = false;
  unanswered_.clear();
  connect(*depot, 1);
  loop_.until([&] { return sent_ > 8'000'000; });
  EXPECT_EQ(done, 0);
  alive_ = nullptr;
  depot.reset();
  depot = open();
  connect(*depot, 2);
  EXPECT_TRUE(fetch(*depot, 2, blob));
  EXPECT_LE(sent_, blob.size + 8 * wire::kBlobChunkBytes);
  EXPECT_EQ(read(*depot, "", blob), content_[blob.hash]);
}

TEST_F(DepotTest, WhenOneSourceGoesAnotherOneIsAsked) {
  const auto blob = add(std::string(5'000'000, 'q'));
  auto depot = open();
  mute_ = true;
  connect(*depot, 1, "ann");
  int first = 0, second = 0;
  depot->fetch(1, blob, [&](const Result<void>& outcome) {
    EXPECT_EQ(outcome.error().code, ErrorCode::kUnreachable);
    ++first;
  });
  loop_.until([&] { return unanswered_.size() == 5; });
  mute_ = false;
  connect(*depot, 2, "ann");
  depot->fetch(2, blob, [&](const Result<void>& outcome) { second += outcome ? 1 : 0; });
  depot->forget(1);
  loop_.until([&] { return second == 1; });
  EXPECT_EQ(first, 1);
}

TEST_F(DepotTest, ScopesDoNotSeeEachOther) {
  const auto blob = add("private");
  auto depot = open();
  connect(*depot, 1, "ann");
  ASSERT_TRUE(fetch(*depot, 1, blob));
  EXPECT_TRUE(depot->has("ann", blob.hash));
  EXPECT_FALSE(depot->has("bob", blob.hash));
  EXPECT_EQ(read(*depot, "bob", blob), "blob " + blob.hash + " is not here any more");
}

TEST_F(DepotTest, TheLeastRecentlyUsedGoesUnlessItIsPinned) {
  const auto a = add(std::string(400, 'a')), b = add(std::string(400, 'b')),
             c = add(std::string(400, 'c')), d = add(std::string(400, 'd'));
  auto depot = open(1000);
  connect(*depot, 1);
  depot->pin("", a.hash);
  ASSERT_TRUE(fetch(*depot, 1, a));
  ASSERT_TRUE(fetch(*depot, 1, b));
  ASSERT_TRUE(fetch(*depot, 1, c));
  EXPECT_TRUE(depot->has("", a.hash) && depot->has("", c.hash));
  EXPECT_FALSE(depot->has("", b.hash));
  depot->pin("", c.hash);
  ASSERT_TRUE(fetch(*depot, 1, d));  // what is pinned may exceed the limit
  EXPECT_EQ(depot->bytes(), 1200u);
  depot->unpin("", a.hash);
  EXPECT_FALSE(depot->has("", a.hash));
  EXPECT_EQ(depot->bytes(), 800u);
  EXPECT_EQ(depot->all().size(), 2u);
}

TEST_F(DepotTest, WhatIsDamagedOnDiskIsSaidAndComesAnew) {
  const auto blob = add(std::string(4000, 'a'));
  auto depot = open();
  connect(*depot, 1);
  ASSERT_TRUE(fetch(*depot, 1, blob));
  ASSERT_TRUE(write_file(depot->file("", blob.hash), "short"));
  EXPECT_NE(read(*depot, "", blob).find("ends at 5 bytes"), std::string::npos);
  EXPECT_FALSE(depot->has("", blob.hash));
  ASSERT_TRUE(fetch(*depot, 1, blob));
  EXPECT_EQ(read(*depot, "", blob), content_[blob.hash]);
}

TEST_F(DepotTest, WhatSomebodyRemovedComesAnew) {
  const auto blob = add(std::string(4000, 'a'));
  auto depot = open();
  connect(*depot, 1);
  ASSERT_TRUE(fetch(*depot, 1, blob));
  std::filesystem::remove_all(root_);
  ASSERT_TRUE(fetch(*depot, 1, blob));
  EXPECT_EQ(read(*depot, "", blob), content_[blob.hash]);
  EXPECT_EQ(sent_, 2 * blob.size);
}

TEST_F(DepotTest, ASourceThatHasItNotSaysSo) {
  auto depot = open();
  connect(*depot, 1);
  const auto outcome = fetch(*depot, 1, {std::string(64, '0'), 10});
  ASSERT_FALSE(outcome);
  EXPECT_EQ(outcome.error().message, "never heard of it");
  const auto nobody = fetch(*depot, 7, {std::string(64, '0'), 10});
  ASSERT_FALSE(nobody);
  EXPECT_EQ(nobody.error().code, ErrorCode::kUnreachable);
}

}  // namespace
}  // namespace farcall::blobs
