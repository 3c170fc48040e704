// The directories of blocks, and how long their keys open the door.
#include "block_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/files.h"

namespace farcall::interchange {
namespace {

using std::chrono::hours;

class BlockFilesTest : public testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/farcall-blocks-XXXXXX";
    options.directory = mkdtemp(name);
    options.name = "cluster";
    options.key.keys = make_key_pair();
  }
  void TearDown() override { std::filesystem::remove_all(options.directory); }
  BlockFiles open(std::vector<BlockRecord> blocks = {}) {
    return BlockFiles(options, {"tcp://127.0.0.1:1"}, blocks, now);
  }
  static BlockRecord record(BlockId id, BlockState state, WallTime since) {
    BlockRecord record;
    record.id = id;
    record.state = state;
    record.since_ms = since.milliseconds_since_epoch();
    return record;
  }
  std::string key_of(const BlockFiles& files, BlockId block) {
    return nlohmann::json::parse(*read_secret_file(files.directory(block) / "credentials"))
        .at("public_key");
  }

  ServerOptions options;
  WallTime now = read_clock().wall;
  BlockId runs{{1}}, ended{{2}}, left{{3}};
};

TEST_F(BlockFilesTest, TheKeyOfABlockEndsADayAfterTheBlock) {
  BlockFiles files = open();
  for (const BlockId& block : {runs, ended, left}) ASSERT_TRUE(files.make(block));
  const auto running_key = key_of(files, runs), ended_key = key_of(files, ended),
             left_key = key_of(files, left);
  ASSERT_TRUE(write_file(files.directory(left) / ("results-" + PilotId{{7}}.string() + "-1"), "x"));
  const std::vector<BlockRecord> blocks = {record(runs, BlockState::kRunning, now),
                                           record(ended, BlockState::kEnded, now),
                                           record(left, BlockState::kEnded, now)};
  files.expire(blocks, now + hours(23));
  EXPECT_EQ(files.block_of(ended_key), ended);
  files.expire(blocks, now + hours(24));
  EXPECT_TRUE(files.block_of(ended_key).is_nil());
  EXPECT_TRUE(files.block_of(left_key).is_nil());
  EXPECT_EQ(files.block_of(running_key), runs);
  EXPECT_FALSE(std::filesystem::exists(files.directory(ended)));
  // Results that were left there are still to be taken in.
  EXPECT_THAT(files.all(), testing::UnorderedElementsAre(runs, left));
  EXPECT_FALSE(std::filesystem::exists(files.directory(left) / "credentials"));
}

TEST_F(BlockFilesTest, ARestartKeepsTheKeysThatHaveNotEnded) {
  std::string running_key, ended_key, unknown_key;
  {
    BlockFiles files = open();
    for (const BlockId& block : {runs, ended, left}) ASSERT_TRUE(files.make(block));
    running_key = key_of(files, runs), ended_key = key_of(files, ended);
    unknown_key = key_of(files, left);
  }
  const std::vector<BlockRecord> blocks = {record(runs, BlockState::kRunning, now),
                                           record(ended, BlockState::kEnded, now)};
  BlockFiles soon = open(blocks);
  EXPECT_EQ(soon.block_of(ended_key), ended);
  EXPECT_EQ(soon.block_of(unknown_key), left);  // in no record: as old as its directory
  now = now + hours(25);
  BlockFiles later = open(blocks);
  EXPECT_EQ(later.block_of(running_key), runs);
  EXPECT_TRUE(later.block_of(ended_key).is_nil());
  EXPECT_TRUE(later.block_of(unknown_key).is_nil());
  EXPECT_EQ(later.all(), std::vector<BlockId>{runs});
}

}  // namespace
}  // namespace farcall::interchange
