#include "relay/store/store.h"

#include "base/keys.h"
#include "wire/codec.h"

namespace farcall::relay {

OutcomesRow select_outcomes(const OutcomesRow& row, const RangeSet& wanted) {
  OutcomesRow selected{row.submission, {}, {}};
  std::string data;
  std::uint64_t offset = 0;
  for (const TaskOutcome& outcome : row.outcomes) {
    if (wanted.contains(outcome.index)) {
      selected.outcomes.push_back(outcome);
      data.append(row.data.view().substr(offset, outcome.data_size));
    }
    offset += outcome.data_size;
  }
  // All of them: the bytes are shared and not copied.
  selected.data =
      selected.outcomes.size() == row.outcomes.size() ? row.data : Bytes(std::move(data));
  return selected;
}

std::string chunk_hash(const wire::ChunkMeta& chunk, const Bytes& data) {
  return content_hash(content_hash(wire::encode(chunk)) + content_hash(data.view()));
}

}  // namespace farcall::relay
