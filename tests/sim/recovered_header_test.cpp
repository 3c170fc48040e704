// Found by the simulation: see each test.
#include <gtest/gtest.h>

#include "interchange/core/core.h"

namespace farcall::interchange {
namespace {

// A placement that is known from disk counts one core a task until the relay sends the header; the
// loads of the pilots then have to follow what the header says.
TEST(RecoveredHeader, TheLoadOfItsPilotFollowsTheHeader) {
  Rng rng(1);
  const Now now{{std::chrono::seconds(1)}, {std::chrono::hours(24)}};
  Recovered state;
  state.epoch = 1;
  PlacementRecord record;
  record.id = 1;
  record.pilot = make_id<PilotId>(now.wall, rng);
  record.block = make_id<BlockId>(now.wall, rng);
  record.submission = make_id<SubmissionId>(now.wall, rng);
  record.ranges = RangeSet{{0, 3}};
  state.placements.push_back(record);
  Core core(Settings{}, Rng(2));
  core.recover(state, now);
  EXPECT_EQ(core.pilots().all().at(record.pilot).load, 3u);
  wire::EndpointWelcome welcome;
  welcome.epoch = 1;
  core.relay_message(wire::make_message(welcome), now);
  wire::Work work;
  work.functions.emplace_back();
  work.functions[0].kind = FunctionKind::kShell;
  SubmissionHeader header;
  header.submission = record.submission;
  header.resources.cores = 2;
  work.submissions.push_back(header);
  work.chunks.push_back({record.submission, {0, {1, 1, 1}}, RangeSet{{0, 3}}, {}});
  core.relay_message(
      wire::make_message(work, {Bytes(std::string("body")), Bytes(std::string("abc"))}), now);
  EXPECT_EQ(core.pilots().all().at(record.pilot).load, 6u);
  EXPECT_EQ(core.sanity_check(), "");
}

}  // namespace
}  // namespace farcall::interchange
