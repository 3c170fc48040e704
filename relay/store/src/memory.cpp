#include "relay/store/memory.h"

namespace farcall::relay {

Result<LoadedState> MemoryStore::load() {
  LoadedState state;
  state.generation = generation_;
  for (const auto& [key, record] : user_keys_) state.user_keys.push_back(record);
  for (const auto& [hash, record] : invitations_) state.invitations.push_back(record);
  for (const auto& [id, record] : endpoints_) state.endpoints.push_back(record);
  for (const auto& [id, record] : functions_) state.functions.push_back(record);
  for (const auto& [id, record] : tombstones_) state.tombstones.push_back(record);
  for (const auto& [id, stored] : submissions_) {
    LoadedSubmission submission;
    submission.record = stored.record;
    for (const auto& [first, chunk] : stored.chunks) submission.chunks.push_back(chunk.first);
    for (const auto& [seq, row] : stored.rows) {
      for (std::size_t slot = 0; slot < 3; ++slot)
        submission.by_state[slot].insert(row->by_state[slot]);
      submission.last_seq = seq;
    }
    for (const auto& [index, history] : stored.histories) submission.histories.push_back(history);
    submission.blobs.assign(stored.blobs.begin(), stored.blobs.end());
    state.submissions.push_back(std::move(submission));
  }
  return state;
}

Result<void> MemoryStore::commit(const std::vector<Write>& writes) {
  for (const Write& write : writes) std::visit([this](const auto& w) { apply(w); }, write);
  return {};
}

Result<Bytes> MemoryStore::load_chunk(SubmissionId submission, std::uint32_t first) {
  auto found = submissions_.find(submission);
  if (found != submissions_.end()) {
    auto chunk = found->second.chunks.find(first);
    if (chunk != found->second.chunks.end()) return chunk->second.second;
  }
  return fail(ErrorCode::kNotFound, "submission {} has no chunk at {}", submission.string(), first);
}

Result<LoadedRows> MemoryStore::load_rows(SubmissionId submission, const RangeSet& wanted,
                                          std::uint64_t after_seq, std::uint64_t bytes_max) {
  LoadedRows loaded;
  loaded.scanned_to = after_seq;
  auto found = submissions_.find(submission);
  if (found == submissions_.end()) return loaded;
  std::uint64_t bytes = 0;
  const auto& rows = found->second.rows;
  for (auto it = rows.upper_bound(after_seq); it != rows.end() && bytes < bytes_max; ++it) {
    loaded.scanned_to = it->first;
    bool any = false;
    for (const RangeSet& set : it->second->by_state) any |= !wanted.intersection(set).empty();
    if (!any) continue;
    bytes += it->second->data.size() + 1;
    loaded.rows.push_back(it->second);
  }
  return loaded;
}

}  // namespace farcall::relay
