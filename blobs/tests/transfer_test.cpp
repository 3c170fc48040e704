#include "blobs/transfer.h"

#include <gtest/gtest.h>

#include <set>

namespace farcall::blobs {
namespace {

constexpr TransferLimits kLimits{10, 4, 2};  // chunks of 10 bytes, 4 under way, 2 blobs at once

std::string content(char first, std::size_t size) {
  std::string text;
  for (std::size_t i = 0; i < size; ++i)
    text += static_cast<char>(first + static_cast<int>(i % 23));
  return text;
}

// A holder, a disk and the way between them, one step at a time.
struct World {
  std::map<std::string, std::string> holds;  // by hash, which here is a name
  std::map<std::string, std::string> disk, whole;
  std::map<std::string, Result<void>> ended;
  std::optional<Transfer> transfer{Transfer(kLimits)};
  std::deque<wire::BlobGet> asked;
  std::deque<Transfer::Effect> for_disk;
  std::uint64_t bytes_sent = 0;
  std::size_t most_under_way = 0;
  std::set<std::string> damaged_on_disk;

  void want_all() {
    for (const auto& [hash, bytes] : holds) transfer->want({hash, bytes.size()});
  }
  void collect() {
    EXPECT_EQ(transfer->sanity_check(), "");
    for (Transfer::Effect& effect : transfer->take_effects()) {
      if (auto* ask = std::get_if<Transfer::Ask>(&effect))
        asked.push_back(ask->get);
      else if (auto* end = std::get_if<Transfer::Ended>(&effect))
        ended.insert_or_assign(end->blob.hash, end->outcome);
      else
        for_disk.push_back(std::move(effect));
    }
    most_under_way = std::max(most_under_way, asked.size());
  }
  void answer() {
    const wire::BlobGet get = asked.front();
    asked.pop_front();
    wire::BlobChunk chunk{get.blob, get.offset, 0, ""};
    Bytes data;
    if (!holds.contains(get.blob.hash)) {
      chunk.error = static_cast<int>(ErrorCode::kNotFound);
      chunk.text = "not here";
    } else {
      data = Bytes(holds[get.blob.hash].substr(get.offset, get.size));
    }
    bytes_sent += data.size();
    transfer->chunk(chunk, data);
  }
  void write() {
    Transfer::Effect effect = std::move(for_disk.front());
    for_disk.pop_front();
    if (auto* open = std::get_if<Transfer::Open>(&effect)) {
      transfer->opened(open->blob.hash, disk[open->blob.hash].size());
    } else if (auto* put = std::get_if<Transfer::Write>(&effect)) {
      std::string& file = disk[put->blob.hash];
      ASSERT_EQ(file.size(), put->offset);
      file += put->data.view();
      transfer->written(put->blob.hash, put->data.size());
    } else if (auto* close = std::get_if<Transfer::Close>(&effect)) {
      const std::string& hash = close->blob.hash;
      if (damaged_on_disk.erase(hash) > 0) {
        disk.erase(hash);
        return transfer->broken(hash, {ErrorCode::kCorrupt, "damaged"});
      }
      whole[hash] = disk[hash];
      transfer->closed(hash);
    }
  }
  // False: nothing is left to do.
  bool step(std::size_t number) {
    collect();
    if (!asked.empty() && (number % 2 == 0 || for_disk.empty()))
      answer();
    else if (!for_disk.empty())
      write();
    else
      return false;
    return true;
  }
  std::size_t run(std::size_t from = 0) {
    while (step(from)) ++from;
    return from;
  }
  void cut() {
    collect();
    asked.clear();
    transfer->down();
    transfer->up();
  }
  // The process: what the disk was told and has not done is lost.
  void kill() {
    collect();
    asked.clear();
    for_disk.clear();
    transfer.emplace(kLimits);
    transfer->up();
    want_all();
  }
};

World three_blobs() {
  World world;
  world.holds = {{"a", content('a', 95)}, {"b", content('b', 0)}, {"c", content('c', 230)}};
  world.transfer->up();
  world.want_all();
  return world;
}

TEST(Transfer, FetchesAllOfItUnderItsWindow) {
  World world = three_blobs();
  world.run();
  EXPECT_EQ(world.whole, world.holds);
  EXPECT_TRUE(world.transfer->idle());
  EXPECT_EQ(world.bytes_sent, 325u);
  EXPECT_LE(world.most_under_way, kLimits.chunks_under_way);
  for (const auto& [hash, outcome] : world.ended) EXPECT_TRUE(outcome) << hash;
}

TEST(Transfer, ACutAtAnyStepCostsAWindowAtMost) {
  World uncut = three_blobs();
  const std::size_t steps = uncut.run();
  ASSERT_GT(steps, 60u);
  for (std::size_t at = 0; at <= steps; ++at) {
    World world = three_blobs();
    std::size_t done = 0;
    while (done < at && world.step(done)) ++done;
    world.cut();
    world.run(done);
    EXPECT_EQ(world.whole, world.holds) << "cut before step " << at;
    EXPECT_LE(world.bytes_sent, 325u) << "cut before step " << at;
  }
}

TEST(Transfer, AfterAKillAtAnyStepItGoesOnFromWhatIsOnDisk) {
  World uncut = three_blobs();
  const std::size_t steps = uncut.run();
  for (std::size_t at = 0; at <= steps; ++at) {
    World world = three_blobs();
    std::size_t done = 0;
    while (done < at && world.step(done)) ++done;
    world.kill();
    world.run(done);
    EXPECT_EQ(world.whole, world.holds) << "killed before step " << at;
    EXPECT_LE(world.bytes_sent, 325u + kLimits.chunks_under_way * kLimits.chunk_bytes) << at;
  }
}

TEST(Transfer, TenCutsInARow) {
  World world = three_blobs();
  std::size_t done = 0;
  for (int cut = 0; cut < 10; ++cut) {
    for (int i = 0; i < 5; ++i) world.step(done++);
    world.cut();
  }
  world.run(done);
  EXPECT_EQ(world.whole, world.holds);
  EXPECT_LE(world.bytes_sent, 325u);
}

TEST(Transfer, OneThatTheHolderHasNotDoesNotStopTheOthers) {
  World world = three_blobs();
  world.transfer->want({"missing", 40});
  world.run();
  EXPECT_EQ(world.whole, world.holds);
  ASSERT_TRUE(world.ended.contains("missing"));
  EXPECT_EQ(world.ended.at("missing").error(), (Error{ErrorCode::kNotFound, "not here"}));
}

TEST(Transfer, ADamagedBeginningIsFetchedOnceMore) {
  World world = three_blobs();
  world.disk["a"] = "xxxx";
  world.damaged_on_disk = {"a"};
  world.run();
  EXPECT_EQ(world.whole, world.holds);
}

TEST(Transfer, OneThatIsNotWhatItsHashSaysEndsSo) {
  World world = three_blobs();
  std::size_t done = 0;
  do world.damaged_on_disk.insert("a");
  while (world.step(done++));
  ASSERT_TRUE(world.ended.contains("a"));
  EXPECT_EQ(world.ended.at("a").error().code, ErrorCode::kCorrupt);
  EXPECT_EQ(world.whole.count("c"), 1u);
}

TEST(Transfer, AFullDiskEndsOneAndItCanBeWantedAgain) {
  World world = three_blobs();
  std::size_t done = 0;
  while (world.disk["c"].size() < 50) ASSERT_TRUE(world.step(done++));
  world.collect();
  world.transfer->broken("c", {ErrorCode::kIo, "No space left on device"});
  world.run(done);
  EXPECT_EQ(world.ended.at("c").error().message, "No space left on device");
  EXPECT_EQ(world.whole.count("a"), 1u);
  world.ended.clear();
  world.transfer->want({"c", 230});
  world.run();
  EXPECT_EQ(world.whole, world.holds);
}

TEST(Transfer, BytesThatWereNotAskedForAreRefused) {
  World world = three_blobs();
  while (world.asked.empty()) world.step(1);
  const wire::BlobGet get = world.asked.front();
  world.transfer->chunk({get.blob, get.offset, 0, ""}, Bytes(std::string(3, 'x')));
  world.collect();
  ASSERT_TRUE(world.ended.contains(get.blob.hash));
  EXPECT_EQ(world.ended.at(get.blob.hash).error().message,
            fmt::format("blob {}: 3 bytes came from offset 0 on, asked for 10", get.blob.hash));
}

}  // namespace
}  // namespace farcall::blobs
