// Tasks go to interchanges: under credit, round robin by user, then by priority and age.
#include "base/log.h"
#include "send.h"

namespace farcall::relay {

namespace {
constexpr std::size_t kChunksPerMessage = 64;
constexpr std::uint64_t kBytesPerMessage = 8 << 20;
constexpr std::size_t kPrefetchChunks = 8;

std::uint64_t payload_bytes(const std::vector<Bytes>& frames) {
  std::uint64_t bytes = 0;
  for (const Bytes& frame : frames) bytes += frame.size();
  return bytes;
}
}  // namespace

void Core::Impl::deliver(Endpoint& e) {
  while (e.ready) {
    wire::Work work;
    std::vector<Bytes> functions, chunks;
    const bool more = fill(e, work, functions, chunks);
    if (work.chunks.empty()) return;
    functions.insert(functions.end(), std::make_move_iterator(chunks.begin()),
                     std::make_move_iterator(chunks.end()));
    send(e.peer, work, std::move(functions));
    if (!more) return;
  }
}

// One slice of each user in turn until the message is full (true) or nothing more can go (false).
bool Core::Impl::fill(Endpoint& e, wire::Work& work, std::vector<Bytes>& functions,
                      std::vector<Bytes>& chunks) {
  std::set<SubmissionId> waiting;   // for a chunk from the store
  std::set<std::string> exhausted;  // users
  std::uint64_t bytes = 0;
  while (work.chunks.size() < kChunksPerMessage && bytes < kBytesPerMessage) {
    if (e.used.tasks >= e.granted.tasks || e.used.bytes >= e.granted.bytes) return false;
    auto turn = e.queue.upper_bound(e.last_user);
    std::size_t tries = 0;
    while (tries <= e.queue.size()) {
      if (turn == e.queue.end()) turn = e.queue.begin();
      if (turn == e.queue.end() || !exhausted.contains(turn->first)) break;
      ++turn;
      ++tries;
    }
    if (turn == e.queue.end() || tries > e.queue.size()) return false;
    const std::string user = turn->first;
    Submission* s = next_of_user(e, turn->second, waiting);
    if (s == nullptr) {
      exhausted.insert(user);
      continue;
    }
    if (!add_slice(e, *s, work, functions, chunks)) {
      waiting.insert(s->id());
      continue;
    }
    e.last_user = user;
    bytes = payload_bytes(functions) + payload_bytes(chunks);
  }
  return true;
}

Submission* Core::Impl::next_of_user(Endpoint& e, const std::set<Endpoint::Place>& places,
                                     const std::set<SubmissionId>& waiting) {
  for (const Endpoint::Place& place : places) {
    const SubmissionId id = std::get<SubmissionId>(place);
    if (waiting.contains(id)) continue;
    Submission* s = find_submission(id);
    FARCALL_CHECK(s != nullptr && s->record.header.endpoint == e.record.id,
                  "the queue of an endpoint names a submission that is not its own");
    return s;
  }
  return nullptr;
}

// As much of the chunk with the first pending task as credit allows. False: it has to be loaded.
bool Core::Impl::add_slice(Endpoint& e, Submission& s, wire::Work& work,
                           std::vector<Bytes>& functions, std::vector<Bytes>& chunks) {
  auto found = s.chunks.upper_bound(s.pending.front());
  FARCALL_CHECK(found != s.chunks.begin(), "a pending task is in no chunk");
  --found;
  const std::uint32_t first = found->first;
  const Chunk& chunk = found->second;
  const Range whole{first, first + static_cast<std::uint32_t>(chunk.sizes.size())};
  const Bytes* data = chunk_data(s, first);
  if (data == nullptr) {
    prefetch(s);
    return false;
  }
  RangeSet available = s.pending.intersection(whole);
  RangeSet run = available.take_front(e.granted.tasks - e.used.tasks);
  const std::uint64_t bytes_left = e.granted.bytes - e.used.bytes;
  std::uint64_t bytes = chunk.bytes;
  if (run.count() < chunk.sizes.size() || bytes > bytes_left) {
    // One set may exceed the credit in bytes: else one that is larger than it would never go.
    bytes = 0;
    std::uint32_t last = run.front();
    for (Range range : run.ranges())
      for (std::uint32_t i = range.first; i < range.last && bytes < bytes_left; ++i) {
        bytes += chunk.sizes[i - first];
        last = i + 1;
      }
    run.erase({last, whole.last});
  }
  introduce(e, s, work, functions);
  wire::ChunkDelivery delivery{s.id(), {first, chunk.sizes}, run, {}};
  for (auto it = s.histories.lower_bound(run.front());
       it != s.histories.end() && it->first < run.back_end(); ++it)
    if (run.contains(it->first)) delivery.histories.push_back(it->second);
  chunks.push_back(*data);
  const std::uint64_t count = run.count();
  e.used.tasks += count;
  e.used.bytes += bytes;
  counters_.tasks_delivered += count;
  s.pending.erase(run);
  s.delivered.insert(run);
  work.chunks.push_back(std::move(delivery));
  if (s.pending.intersection(whole).empty()) chunk_cache_.drop({s.id(), first});
  queue(s);
  deliver_to_.erase(e.record.id);
  return true;
}

const Bytes* Core::Impl::chunk_data(Submission& s, std::uint32_t first) {
  return chunk_cache_.get({s.id(), first});
}

void Core::Impl::prefetch(Submission& s) {
  RangeSet wanted = s.pending;
  for (std::size_t i = 0; i < kPrefetchChunks && !wanted.empty(); ++i) {
    auto found = std::prev(s.chunks.upper_bound(wanted.front()));
    const std::uint32_t first = found->first;
    wanted.erase({0, first + static_cast<std::uint32_t>(found->second.sizes.size())});
    if (chunk_data(s, first) != nullptr || !chunk_loads_.insert({s.id(), first}).second) continue;
    ++counters_.chunk_loads;
    effects_.loads.emplace_back(LoadChunk{s.id(), first});
  }
}

void Core::Impl::introduce(Endpoint& e, const Submission& s, wire::Work& work,
                           std::vector<Bytes>& functions) {
  const SubmissionHeader& header = s.record.header;
  const Function* function = find_function(s.user(), header.function);
  FARCALL_CHECK(function != nullptr, "the function of an unfinished submission is gone");
  if (e.sent_functions.insert(header.function).second) {
    work.functions.push_back(function->entry.record);
    functions.push_back(function->entry.body);
  }
  if (e.sent_headers.insert(s.id()).second) work.submissions.push_back(header);
}

}  // namespace farcall::relay
