// A store that forgets when its process ends: for tests and simulations. What has been committed
// stays with the object, so a test can start another relay on it.
#pragma once

#include <map>
#include <set>
#include <string>
#include <tuple>
#include <utility>

#include "relay/store/store.h"

namespace farcall::relay {

class MemoryStore : public Store {
 public:
  explicit MemoryStore(std::string generation = "memory-1") : generation_(std::move(generation)) {}

  Result<LoadedState> load() override;
  Result<void> commit(const std::vector<Write>& writes) override;
  Result<Bytes> load_chunk(SubmissionId submission, std::uint32_t first) override;
  Result<LoadedRows> load_rows(SubmissionId submission, const RangeSet& wanted,
                               std::uint64_t after_seq, std::uint64_t bytes_max) override;
  Result<std::uint64_t> count_aside() override { return aside_; }

 private:
  struct Stored {
    SubmissionRecord record;
    std::map<std::uint32_t, std::pair<ChunkRecord, Bytes>> chunks;
    std::map<std::uint64_t, OutcomeRowPtr> rows;
    std::map<std::uint32_t, TaskHistory> histories;
    std::set<BlobUse> blobs;
  };
  void apply(const PutUserKey& w) { user_keys_[w.record.key] = w.record; }
  void apply(const PutInvitation& w) { invitations_[w.record.hash] = w.record; }
  void apply(const DropInvitation& w) { invitations_.erase(w.hash); }
  void apply(const PutEndpoint& w) { endpoints_[w.record.id] = w.record; }
  void apply(const DropEndpoint& w) { endpoints_.erase(w.id); }
  void apply(const PutFunction& w) { functions_[{w.record.user, w.record.record.id}] = w.record; }
  void apply(const DropFunction& w) { functions_.erase({w.user, w.id}); }
  void apply(const PutSubmission& w) { submissions_[w.record.header.submission].record = w.record; }
  void apply(const PutChunk& w) {
    submissions_[w.submission].chunks[w.chunk.first] = {w.chunk, w.data};
  }
  void apply(const PutOutcomes& w) { submissions_[w.row->submission].rows[w.row->seq] = w.row; }
  void apply(const PutHistories& w) {
    for (const TaskHistory& history : w.histories)
      submissions_[w.submission].histories[history.index] = history;
  }
  void apply(const PutBlobs& w) {
    submissions_[w.submission].blobs.insert(w.blobs.begin(), w.blobs.end());
  }
  void apply(const PutAside& w) { aside_ += w.outcomes.size(); }
  void apply(const DropSubmission& w) {
    submissions_.erase(w.tombstone.submission);
    tombstones_[w.tombstone.submission] = w.tombstone;
  }
  void apply(const DropTombstone& w) { tombstones_.erase(w.submission); }

  std::string generation_;
  std::map<std::string, UserKey> user_keys_;
  std::map<std::string, Invitation> invitations_;
  std::map<EndpointId, EndpointRecord> endpoints_;
  std::map<std::pair<std::string, FunctionId>, FunctionEntry> functions_;
  std::map<SubmissionId, Stored> submissions_;
  std::map<SubmissionId, Tombstone> tombstones_;
  std::uint64_t aside_ = 0;
};

}  // namespace farcall::relay
