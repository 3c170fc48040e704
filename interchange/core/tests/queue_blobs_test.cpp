// Which blobs the tasks of a queue need, counted.
#include <gtest/gtest.h>

#include "interchange/core/queue.h"

namespace farcall::interchange {
namespace {

using Refs = std::vector<wire::BlobRef>;
const wire::BlobRef kA{std::string(64, 'a'), 10}, kB{std::string(64, 'b'), 20};

class QueueBlobs : public testing::Test {
 protected:
  Queue queue_;
  SubmissionId id_{{1}};

  Submission& deliver(const std::vector<std::string>& sets, const RangeSet& run) {
    SubmissionHeader header;
    header.submission = id_;
    queue_.add_header(header);
    wire::ChunkMeta meta;
    std::string data;
    for (const std::string& set : sets) {
      meta.sizes.push_back(static_cast<std::uint32_t>(set.size()));
      data += set;
    }
    Submission& submission = queue_.submission(id_);
    queue_.deliver(submission, meta, run, {}, Bytes(data));
    EXPECT_EQ(queue_.sanity_check(), "");
    return submission;
  }
  static std::string needs(const Refs& blobs) { return wire::pack_blob_payload(blobs, "[]", ""); }
};

TEST_F(QueueBlobs, TheyAreNeededFromDeliveryToTheLastTaskOfTheChunk) {
  Submission& submission =
      deliver({needs({kA, kB}), "J", needs({kA}), needs({kB})}, RangeSet{{0, 3}});
  EXPECT_EQ(queue_.take_needed(), (Refs{kA, kB, kA}));  // task 3 is not to run here
  queue_.finish(submission, 0);
  queue_.finish(submission, 1);
  EXPECT_TRUE(queue_.take_released().empty());
  queue_.finish(submission, 2);
  EXPECT_EQ(queue_.take_released(), (Refs{kA, kB, kA}));
  EXPECT_TRUE(queue_.take_needed().empty());
}

TEST_F(QueueBlobs, WhatIsForgottenNeedsNone) {
  Submission& submission = deliver({needs({kA}), needs({kB})}, RangeSet{{0, 2}});
  queue_.take_needed();
  queue_.forget(submission, RangeSet{{0, 2}});
  EXPECT_EQ(queue_.take_released(), (Refs{kA, kB}));
}

TEST_F(QueueBlobs, AFunctionNeedsItsOwnWhileTasksMayCallIt) {
  FunctionRecord record;
  record.id = FunctionId{{7}};
  queue_.add_function(record, Bytes(needs({kA})));
  queue_.add_function(record, Bytes(needs({kA})));  // each session brings it
  EXPECT_EQ(queue_.take_needed(), Refs{kA});
  queue_.new_session();
  EXPECT_EQ(queue_.take_released(), Refs{kA});
}

TEST_F(QueueBlobs, ADamagedListIsLeftToThePilot) {
  deliver({"Bad", "J"}, RangeSet{{0, 2}});
  EXPECT_TRUE(queue_.take_needed().empty());
}

}  // namespace
}  // namespace farcall::interchange
