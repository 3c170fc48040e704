#include "interchange/journal/journal.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "sqlite/database.h"

namespace farcall::interchange {
namespace {

class JournalTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/farcall-journal-XXXXXX";
    directory = mkdtemp(name);
  }
  void TearDown() override { std::filesystem::remove_all(directory); }
  std::filesystem::path directory;
};

std::vector<JournalWrite> example() {
  BlockRecord block;
  block.id = BlockId{{1}};
  block.job_name = "farcall-ep-1";
  block.job_id = "17";
  block.state = BlockState::kQueued;
  block.nodes = 2;
  block.walltime_s = 90.5;
  block.reason = "Priority";
  block.cores = 4;
  block.ran_ms = 1700000000000;
  block.used_s = 12.5;
  PlacementRecord placed{5, PilotId{{2}}, block.id, SubmissionId{{3}}, 2, RangeSet{{0, 4}, {7, 9}}};
  placed.never = true;
  PlacementRecord dropped = placed;
  dropped.id = 4;
  return {effect::SaveBlock{block, 1},
          effect::SaveEpoch{3},
          effect::SaveDrained{true, {}},
          effect::SaveDurations{{{FunctionId{{4}}, {9}}}},
          effect::SaveDurations{{{FunctionId{{5}}, {}}, {FunctionId{{4}}, {30'000, 31'000}}}},
          effect::SavePlacements{{dropped, placed}, {}},
          effect::SavePlacements{{}, {4}},
          effect::Spool{{8, Bytes(std::string("body")), Bytes(std::string("data"))}},
          effect::Spool{{9, Bytes(std::string("b")), Bytes()}},
          effect::DropSpooled{{8}}};
}

TEST_F(JournalTest, SurvivesAKillAfterApply) {
  const auto path = directory / "interchange.db";
  const pid_t child = fork();
  if (child == 0) {
    auto journal = Journal::open(path);
    if (!journal || !(*journal)->apply(example())) _exit(1);
    kill(getpid(), SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status)) << WEXITSTATUS(status);
  auto journal = Journal::open(path);
  ASSERT_TRUE(journal) << journal.error().message;
  auto restored = (*journal)->load();
  ASSERT_TRUE(restored) << restored.error().message;
  EXPECT_EQ(restored->epoch, 3u);
  ASSERT_EQ(restored->blocks.size(), 1u);
  EXPECT_EQ(restored->blocks[0], std::get<effect::SaveBlock>(example()[0]).block);
  ASSERT_EQ(restored->placements.size(), 1u);
  EXPECT_EQ(restored->placements[0].ranges.string(), "0-3,7-8");
  EXPECT_EQ(restored->placements[0].attempt, 2);
  EXPECT_TRUE(restored->placements[0].never);
  ASSERT_EQ(restored->spool.size(), 1u);
  EXPECT_EQ(restored->spool[0].body.view(), "b");
  EXPECT_TRUE(restored->drained);
  EXPECT_EQ(restored->durations, (std::vector<DurationsRecord>{
                                     {FunctionId{{5}}, {}}, {FunctionId{{4}}, {30'000, 31'000}}}));
}

TEST_F(JournalTest, OneInterchangeHasItAndItKeepsItsInstance) {
  const auto path = directory / "interchange.db";
  auto first = Journal::open(path);
  ASSERT_TRUE(first);
  const InstanceId instance = (*first)->instance();
  auto second = Journal::open(path);
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, ErrorCode::kBusy);
  first->reset();
  auto third = Journal::open(path);
  ASSERT_TRUE(third);
  EXPECT_EQ((*third)->instance(), instance);
}

// Of the first release: blocks did not say what they had used.
TEST_F(JournalTest, ReadsWhatAnOlderFarcallWrote) {
  const auto path = directory / "interchange.db";
  {
    auto old = sqlite::Database::open(path, {.exclusive = true});
    ASSERT_TRUE(old) << old.error().message;
    ASSERT_TRUE(old->execute(R"sql(
      CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
      CREATE TABLE blocks (id BLOB PRIMARY KEY, job_name TEXT NOT NULL, job_id TEXT NOT NULL, state INTEGER NOT NULL,
        ended INTEGER NOT NULL, nodes INTEGER NOT NULL, walltime_ms INTEGER NOT NULL, reason TEXT NOT NULL,
        made_ms INTEGER NOT NULL, since_ms INTEGER NOT NULL) WITHOUT ROWID;
      CREATE TABLE placements (id INTEGER PRIMARY KEY, pilot BLOB NOT NULL, block BLOB NOT NULL, submission BLOB NOT NULL,
        attempt INTEGER NOT NULL, ranges BLOB NOT NULL, cores INTEGER NOT NULL);
      CREATE TABLE spool (batch INTEGER PRIMARY KEY, body BLOB NOT NULL, data BLOB NOT NULL);
      INSERT INTO meta VALUES ('instance', x'00112233445566778899aabbccddeeff');
      INSERT INTO blocks VALUES (x'01000000000000000000000000000000', 'fc-ep-1', '17', 5, 0, 2, 90500, '', 7, 8);
    )sql"));
    ASSERT_TRUE(old->set_schema_version(1));
  }
  for (int round = 0; round < 2; ++round) {
    auto journal = Journal::open(path);
    ASSERT_TRUE(journal) << journal.error().message;
    auto restored = (*journal)->load();
    ASSERT_TRUE(restored) << restored.error().message;
    ASSERT_EQ(restored->blocks.size(), 1u);
    EXPECT_EQ(restored->blocks[0].state, BlockState::kRunning);
    EXPECT_EQ(restored->blocks[0].since_ms, 8);
    EXPECT_EQ(restored->blocks[0].used_s, 0);
    EXPECT_FALSE(restored->drained);
    EXPECT_TRUE(restored->durations.empty());
  }
}

}  // namespace
}  // namespace farcall::interchange
