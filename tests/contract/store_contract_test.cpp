// What every store of the relay has to do; a new one is added to INSTANTIATE at the end.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>

#include "base/files.h"
#include "relay/store/memory.h"
#include "relay/store/sqlite/store.h"
#include "sqlite/database.h"

namespace farcall::relay {
namespace {

struct Directory {
  Directory() {
    std::string pattern =
        (std::filesystem::temp_directory_path() / "farcall-store-XXXXXX").string();
    path = ::mkdtemp(pattern.data());
  }
  ~Directory() { std::filesystem::remove_all(path); }
  std::filesystem::path path;
};

// Opens and closes one store again and again.
struct Kept {
  virtual ~Kept() = default;
  virtual Store& store() = 0;
  virtual void reopen() = 0;
};
struct KeptMemory : Kept {
  MemoryStore memory;
  Store& store() override { return memory; }
  void reopen() override {}
};
struct KeptSqlite : Kept {
  Directory directory;
  std::unique_ptr<Store> open_store;
  KeptSqlite() { reopen(); }
  Store& store() override { return *open_store; }
  void reopen() override {
    open_store.reset();
    auto opened = open_sqlite_store(directory.path / "relay.db");
    ASSERT_TRUE(opened) << opened.error().message;
    open_store = std::move(*opened);
  }
};

using MakeKept = std::function<std::unique_ptr<Kept>()>;
struct StoreContract : ::testing::TestWithParam<std::pair<const char*, MakeKept>> {
  std::unique_ptr<Kept> kept = GetParam().second();
  LoadedState reloaded() {
    kept->reopen();
    auto state = kept->store().load();
    EXPECT_TRUE(state) << state.error().message;
    return *state;
  }
  void commit(std::vector<Write> writes) {
    auto done = kept->store().commit(writes);
    ASSERT_TRUE(done) << done.error().message;
  }
};

SubmissionId submission_id(std::uint8_t n) { return SubmissionId{{n, 7}}; }
RangeSet r(std::uint32_t first, std::uint32_t last) { return RangeSet{{first, last}}; }

SubmissionRecord submission(std::uint8_t n) {
  SubmissionRecord record;
  record.header.submission = submission_id(n);
  record.header.owner = "ann";
  record.header.group = "sweep";
  record.header.environment = {{"OMP_NUM_THREADS", "2"}};
  record.received_ms = 123;
  record.cancel_wished = RangeSet{{1, 3}, {7, 8}};
  return record;
}
OutcomeRowPtr row(std::uint8_t n, std::uint64_t seq, std::uint32_t index, const std::string& data) {
  auto made = std::make_shared<OutcomeRow>();
  made->submission = submission_id(n);
  made->seq = seq;
  TaskOutcome o;
  o.index = index;
  o.state = TaskState::kFailed;
  o.signal = 11;
  o.host = "n1";
  o.data_size = data.size();
  made->by_state[1] = r(index, index + 1);
  made->outcomes = {o};
  made->data = Bytes(data);
  return made;
}

TEST_P(StoreContract, KeepsUsersInvitationsEndpointsAndFunctions) {
  const UserKey user{"key", "ann", true, 5};
  const Invitation invitation{"hash", "bob", 99};
  EndpointRecord endpoint{EndpointId{{1}}, "ann", "cluster", "k", "text", 3,
                          InstanceId{{2}}, "h",   8};
  FunctionEntry function{
      "ann", {FunctionId{{4}}, FunctionKind::kShell, "f", "{}"}, Bytes(std::string("b\0dy", 4)), 6};
  commit(
      {PutUserKey{user}, PutInvitation{invitation}, PutEndpoint{endpoint}, PutFunction{function}});
  endpoint.epoch = 4;
  commit({PutEndpoint{endpoint}, PutInvitation{{"other", "eve", 1}}, DropInvitation{"other"}});
  LoadedState state = reloaded();
  EXPECT_EQ(state.user_keys, std::vector{user});
  EXPECT_EQ(state.invitations, std::vector{invitation});
  EXPECT_EQ(state.endpoints, std::vector{endpoint});
  EXPECT_EQ(state.functions, std::vector{function});
  EXPECT_FALSE(state.generation.empty());
  commit({DropEndpoint{endpoint.id}, DropFunction{"ann", FunctionId{{4}}}});
  state = reloaded();
  EXPECT_TRUE(state.endpoints.empty());
  EXPECT_TRUE(state.functions.empty());
}

TEST_P(StoreContract, KeepsSubmissionsWithChunksOutcomesAndHistories) {
  TaskHistory history{5, 3, {}};
  history.failures[2] = 2;
  const ChunkRecord chunk{4, {1, 0, 2}, {9, 9}};
  commit({PutSubmission{submission(1)}, PutChunk{submission_id(1), chunk, Bytes("abc")},
          PutHistories{submission_id(1), {{5, 2, {}}}}, PutHistories{submission_id(1), {history}},
          PutOutcomes{row(1, 1, 4, "one")}, PutOutcomes{row(1, 2, 6, "two")}});
  SubmissionRecord changed = submission(1);
  changed.sealed = true;
  changed.count = 7;
  changed.collected = r(4, 5);
  commit({PutSubmission{changed}});
  const LoadedState state = reloaded();
  ASSERT_EQ(state.submissions.size(), 1u);
  const LoadedSubmission& s = state.submissions[0];
  EXPECT_EQ(s.record, changed);
  EXPECT_EQ(s.chunks, std::vector{chunk});
  EXPECT_EQ(s.by_state[1], (RangeSet{{4, 5}, {6, 7}}));
  EXPECT_TRUE(s.by_state[0].empty());
  EXPECT_EQ(s.last_seq, 2u);
  EXPECT_EQ(s.histories, std::vector{history});
}

TEST_P(StoreContract, LoadsChunksAndOutcomes) {
  commit({PutSubmission{submission(1)},
          PutChunk{submission_id(1), ChunkRecord{0, {3}, {}}, Bytes("abc")}});
  for (std::uint64_t seq = 1; seq <= 4; ++seq)
    commit({PutOutcomes{row(1, seq, static_cast<std::uint32_t>(seq), "data")}});
  kept->reopen();
  Store& store = kept->store();
  EXPECT_EQ(store.load_chunk(submission_id(1), 0)->view(), "abc");
  EXPECT_EQ(store.load_chunk(submission_id(1), 9).error().code, ErrorCode::kNotFound);
  auto rows = store.load_rows(submission_id(1), RangeSet{{2, 3}, {4, 5}}, 0, 1000);
  ASSERT_TRUE(rows);
  ASSERT_EQ(rows->rows.size(), 2u);
  EXPECT_EQ(*rows->rows[0], *row(1, 2, 2, "data"));
  EXPECT_EQ(rows->rows[1]->seq, 4u);
  EXPECT_EQ(rows->scanned_to, 4u);
  rows = store.load_rows(submission_id(1), r(0, 100), 1, 1);
  ASSERT_EQ(rows->rows.size(), 1u) << "the limit of bytes";
  EXPECT_EQ(rows->scanned_to, 2u);
  rows = store.load_rows(submission_id(1), r(50, 60), 0, 1000);
  EXPECT_TRUE(rows->rows.empty());
  EXPECT_EQ(rows->scanned_to, 4u);
}

TEST_P(StoreContract, KeepsARowWithoutOutcomesAsTheRelayCancelledIt) {
  auto cancelled = std::make_shared<OutcomeRow>();
  cancelled->submission = submission_id(1);
  cancelled->seq = 1;
  cancelled->by_state[2] = r(0, 1'000'000);
  cancelled->data = Bytes("E...");
  commit({PutSubmission{submission(1)}, PutOutcomes{cancelled}});
  EXPECT_EQ(reloaded().submissions[0].by_state[2], r(0, 1'000'000));
  const auto rows = kept->store().load_rows(submission_id(1), r(5, 6), 0, 1000);
  ASSERT_EQ(rows->rows.size(), 1u);
  EXPECT_EQ(*rows->rows[0], *cancelled);
}

TEST_P(StoreContract, KeepsTheBlobsThatASubmissionNeedsAndDropsThemWithIt) {
  const BlobUse one{std::string(64, 'a'), 5}, two{std::string(64, 'b'), std::uint64_t{1} << 40};
  commit({PutSubmission{submission(1)}, PutBlobs{submission_id(1), {two}}});
  commit({PutBlobs{submission_id(1), {one, two}}});
  EXPECT_EQ(reloaded().submissions.at(0).blobs, (std::vector{one, two}));
  commit({DropSubmission{Tombstone{submission_id(1), "ann", 77}}, PutSubmission{submission(1)}});
  EXPECT_TRUE(reloaded().submissions.at(0).blobs.empty());
}

TEST_P(StoreContract, DropsASubmissionWithAllItsParts) {
  commit({PutSubmission{submission(1)}, PutSubmission{submission(2)},
          PutChunk{submission_id(1), ChunkRecord{0, {3}, {}}, Bytes("abc")},
          PutOutcomes{row(1, 1, 0, "x")}, PutHistories{submission_id(1), {{0, 2, {}}}}});
  const Tombstone tombstone{submission_id(1), "ann", 77};
  commit({DropSubmission{tombstone}});
  LoadedState state = reloaded();
  ASSERT_EQ(state.submissions.size(), 1u);
  EXPECT_EQ(state.submissions[0].record.header.submission, submission_id(2));
  EXPECT_EQ(state.tombstones, std::vector{tombstone});
  EXPECT_FALSE(kept->store().load_chunk(submission_id(1), 0));
  EXPECT_TRUE(kept->store().load_rows(submission_id(1), r(0, 9), 0, 9)->rows.empty());
  commit({DropTombstone{submission_id(1)}});
  state = reloaded();
  EXPECT_TRUE(state.tombstones.empty());
}

TEST_P(StoreContract, CountsWhatWasPutAside) {
  TaskOutcome o;
  commit({PutAside{EndpointId{{1}}, submission_id(9), {o, o}, Bytes("xy"), 5}});
  kept->reopen();
  EXPECT_EQ(*kept->store().count_aside(), 2u);
}

INSTANTIATE_TEST_SUITE_P(
    Stores, StoreContract,
    ::testing::Values(
        std::pair<const char*, MakeKept>{"memory", [] { return std::make_unique<KeptMemory>(); }},
        std::pair<const char*, MakeKept>{"sqlite", [] { return std::make_unique<KeptSqlite>(); }}),
    [](const auto& which) { return std::string(which.param.first); });

// --- what only a store on a disk can do ----------------------------------------------------------

TEST(SqliteStore, WhatWasCommittedSurvivesAKill) {
  for (int round = 0; round < 3; ++round) {
    Directory directory;
    int pipe_ends[2];
    ASSERT_EQ(::pipe(pipe_ends), 0);
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      auto store = open_sqlite_store(directory.path / "relay.db");
      if (!store) ::_exit(1);
      for (std::uint64_t seq = 1;; ++seq) {
        std::vector<Write> writes{
            PutOutcomes{row(1, seq, static_cast<std::uint32_t>(seq), std::string(500, 'd'))}};
        if (seq == 1) writes.insert(writes.begin(), PutSubmission{submission(1)});
        if (!(*store)->commit(writes)) ::_exit(2);
        if (::write(pipe_ends[1], &seq, sizeof seq) != sizeof seq) ::_exit(3);
      }
    }
    ::close(pipe_ends[1]);
    std::uint64_t acknowledged = 0, number = 0;
    const std::uint64_t enough = 20 + 37 * static_cast<std::uint64_t>(round);
    while (acknowledged < enough && ::read(pipe_ends[0], &number, sizeof number) == sizeof number)
      acknowledged = number;
    ::kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << "it ended by itself with " << WEXITSTATUS(status);
    while (::read(pipe_ends[0], &number, sizeof number) == sizeof number) acknowledged = number;
    ::close(pipe_ends[0]);
    auto store = open_sqlite_store(directory.path / "relay.db");
    ASSERT_TRUE(store) << store.error().message;
    const auto state = (*store)->load();
    ASSERT_TRUE(state) << state.error().message;
    ASSERT_EQ(state->submissions.size(), 1u);
    EXPECT_GE(state->submissions[0].last_seq, acknowledged);
    EXPECT_EQ(state->submissions[0].by_state[1].count(), state->submissions[0].last_seq);
  }
}

TEST(SqliteStore, IsHeldByOneProcess) {
  Directory directory;
  auto first = open_sqlite_store(directory.path / "relay.db");
  ASSERT_TRUE(first) << first.error().message;
  const auto second = open_sqlite_store(directory.path / "relay.db");
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, ErrorCode::kBusy);
  EXPECT_NE(second.error().message.find("another farcall-relay"), std::string::npos);
}

TEST(SqliteStore, RefusesTheFileOfANewerVersion) {
  Directory directory;
  {
    auto store = open_sqlite_store(directory.path / "relay.db");
    ASSERT_TRUE(store);
  }
  {
    auto database = sqlite::Database::open(directory.path / "relay.db");
    ASSERT_TRUE(database);
    ASSERT_TRUE(database->set_schema_version(1000));
  }
  const auto store = open_sqlite_store(directory.path / "relay.db");
  ASSERT_FALSE(store);
  EXPECT_EQ(store.error().code, ErrorCode::kVersion);
  EXPECT_NE(store.error().message.find("schema 1000"), std::string::npos);
}

TEST(SqliteStore, ARestoredCopyHasAnotherGeneration) {
  Directory directory;
  const auto path = directory.path / "relay.db";
  auto generation = [&] {
    auto store = open_sqlite_store(path);
    EXPECT_TRUE(store) << store.error().message;
    return (*store)->load()->generation;
  };
  const std::string first = generation();
  EXPECT_EQ(generation(), first) << "a restart is no restore";
  std::filesystem::copy_file(path, directory.path / "backup");
  EXPECT_EQ(generation(), first);
  std::filesystem::copy_file(directory.path / "backup", path,
                             std::filesystem::copy_options::overwrite_existing);
  const std::string restored = generation();
  EXPECT_NE(restored, first);
  EXPECT_EQ(generation(), restored);
}

}  // namespace
}  // namespace farcall::relay
