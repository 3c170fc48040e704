// The relay's memory: whoever implements this passes tests/contract/store_contract_test.cpp.
#pragma once

#include <cstdint>
#include <vector>

#include "base/error.h"
#include "relay/store/records.h"

namespace farcall::relay {

// Rows with seq in (after_seq, scanned_to] that hold one of the tasks asked for, ascending.
struct LoadedRows {
  std::vector<OutcomeRowPtr> rows;
  std::uint64_t scanned_to = 0;
};

// Used by one thread at a time. An error leaves the store as it was before the call.
class Store {
 public:
  virtual ~Store() = default;

  // The whole state, once, before anything else.
  virtual Result<LoadedState> load() = 0;
  // All of them or none, in order; durable when it returns.
  virtual Result<void> commit(const std::vector<Write>& writes) = 0;
  // kNotFound when there is no chunk that starts at `first`.
  virtual Result<Bytes> load_chunk(SubmissionId submission, std::uint32_t first) = 0;
  // Stops after the row with which the data reaches `bytes_max`. Rows that hold none of `wanted`
  // are passed over without being read.
  virtual Result<LoadedRows> load_rows(SubmissionId submission, const RangeSet& wanted,
                                       std::uint64_t after_seq, std::uint64_t bytes_max) = 0;
  // Of outcomes that were put aside, for people and tests.
  virtual Result<std::uint64_t> count_aside() = 0;
};

}  // namespace farcall::relay
