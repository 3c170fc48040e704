#include "interchange/core/queue.h"

#include <algorithm>

#include "model/history.h"

namespace farcall::interchange {

Submission& Queue::submission(const SubmissionId& id) {
  auto& entry = submissions_[id];
  if (!entry) {
    entry = std::make_unique<Submission>();
    entry->id = id;
    entry->arrival = ++arrivals_;
  }
  return *entry;
}

Submission* Queue::find(const SubmissionId& id) {
  const auto found = submissions_.find(id);
  return found == submissions_.end() ? nullptr : found->second.get();
}

const Function* Queue::function(const FunctionId& id) const {
  const auto found = functions_.find(id);
  return found == functions_.end() ? nullptr : &found->second;
}

void Queue::add_function(FunctionRecord record, Bytes body) {
  const FunctionId id = record.id;
  auto [entry, is_new] = functions_.try_emplace(id);
  if (is_new) {
    // One that cannot be read is found by whoever is to run it.
    if (auto blobs = wire::blob_refs(body.view())) entry->second.blobs = std::move(*blobs);
    needed_.insert(needed_.end(), entry->second.blobs.begin(), entry->second.blobs.end());
  }
  entry->second.record = std::move(record);
  entry->second.body = std::move(body);
}

void Queue::add_header(SubmissionHeader header) {
  Submission& entry = submission(header.submission);
  // What is counted and ordered by the header must not change under it.
  if (!entry.header) entry.header = std::move(header);
}

void Queue::set_ready(Submission& entry) {
  const Order order{entry.header ? entry.header->priority : 0, entry.arrival};
  if (entry.pending.empty()) {
    ready_.erase(order);
    if (!wide_ready_.empty()) wide_ready_.erase(order);
  } else {
    ready_[order] = &entry;
    if (!entry.simple()) wide_ready_.insert(order);
  }
}

void Queue::count_pending(Submission& entry, std::int64_t change) {
  pending_tasks_ += static_cast<std::uint64_t>(change);
  pending_cores_ += static_cast<std::uint64_t>(change * static_cast<std::int64_t>(entry.cores()));
}

std::uint64_t Queue::deliver(Submission& entry, const wire::ChunkMeta& meta, const RangeSet& run,
                             const std::vector<TaskHistory>& histories, const Bytes& data) {
  const RangeSet wanted = run.difference(entry.delivered).difference(entry.done);
  if (wanted.empty()) return 0;
  auto [position, is_new] = entry.chunks.try_emplace(meta.first);
  Chunk& chunk = position->second;
  if (is_new) {
    chunk.offsets.reserve(meta.sizes.size() + 1);
    std::uint32_t offset = 0;
    for (std::uint32_t size : meta.sizes) {
      chunk.offsets.push_back(offset);
      offset += size;
    }
    chunk.offsets.push_back(offset);
    chunk.data = data;
    held_bytes_ += data.size();
  }
  chunk.remaining += static_cast<std::uint32_t>(wanted.count());
  need_blobs(chunk, meta.first, wanted);
  entry.delivered.insert(wanted);
  for (const TaskHistory& history : histories) {
    auto& known = entry.histories[history.index];
    known = history.attempt >= known.attempt ? history : merged(history, known);
  }
  // Those that are placed already were known from our disk: only their arguments were missing.
  const RangeSet fresh = wanted.difference(entry.placed);
  const auto count = fresh.count();
  entry.pending.insert(fresh);
  held_tasks_ += count;
  count_pending(entry, static_cast<std::int64_t>(count));
  set_ready(entry);
  return count;
}

void Queue::need_blobs(Chunk& chunk, std::uint32_t first, const RangeSet& wanted) {
  wanted.for_each([&](std::uint32_t index) {
    const std::uint32_t at = chunk.offsets[index - first];
    if (at == chunk.data.size() || chunk.data.data()[at] != 'B') return;
    const auto blobs =
        wire::blob_refs(chunk.data.view().substr(at, chunk.offsets[index - first + 1] - at));
    if (!blobs) return;  // its pilot will say so
    chunk.blobs.insert(chunk.blobs.end(), blobs->begin(), blobs->end());
    needed_.insert(needed_.end(), blobs->begin(), blobs->end());
  });
}

void Queue::new_session() {
  std::set<FunctionId> needed;
  for (auto entry = submissions_.begin(); entry != submissions_.end();) {
    const Submission& each = *entry->second;
    if (each.delivered.empty() && each.placed.empty() && each.done.empty()) {
      entry = submissions_.erase(entry);
      continue;
    }
    if (each.header) needed.insert(each.header->function);
    ++entry;
  }
  std::erase_if(functions_, [&](const auto& item) {
    if (needed.contains(item.first)) return false;
    released_.insert(released_.end(), item.second.blobs.begin(), item.second.blobs.end());
    return true;
  });
}

void Queue::release_argument(Submission& entry, std::uint32_t index) {
  auto position = entry.chunks.upper_bound(index);
  if (position == entry.chunks.begin()) return;
  --position;
  Chunk& chunk = position->second;
  if (index - position->first + 1 >= chunk.offsets.size()) return;
  if (--chunk.remaining == 0) {
    held_bytes_ -= chunk.data.size();
    released_.insert(released_.end(), chunk.blobs.begin(), chunk.blobs.end());
    entry.chunks.erase(position);
  }
}

void Queue::forget(Submission& entry, const RangeSet& indices) {
  const RangeSet pending = entry.pending.intersection(indices);
  entry.pending.erase(pending);
  count_pending(entry, -static_cast<std::int64_t>(pending.count()));
  set_ready(entry);
  const RangeSet placed = entry.placed.intersection(indices);
  entry.placed.erase(placed);
  held_tasks_ -= pending.count() + placed.count();
  entry.delivered.difference(entry.done).intersection(indices).for_each([&](std::uint32_t index) {
    release_argument(entry, index);
  });
  entry.delivered.erase(indices);
  entry.done.erase(indices);
  entry.cancelled.erase(indices);
  indices.for_each([&](std::uint32_t index) { entry.histories.erase(index); });
}

RangeSet Queue::take_pending(Submission& entry, std::uint64_t count) {
  RangeSet taken = entry.pending.take_front(count);
  count_pending(entry, -static_cast<std::int64_t>(taken.count()));
  entry.placed.insert(taken);
  if (entry.pending.empty()) set_ready(entry);
  return taken;
}

void Queue::pend(Submission& entry, const RangeSet& indices) {
  const RangeSet with_arguments = indices.intersection(entry.delivered);
  entry.placed.erase(indices);
  entry.pending.insert(with_arguments);
  count_pending(entry, static_cast<std::int64_t>(with_arguments.count()));
  held_tasks_ -= indices.count() - with_arguments.count();
  set_ready(entry);
}

void Queue::place(Submission& entry, const RangeSet& indices) {
  held_tasks_ += indices.difference(entry.placed).count();
  entry.placed.insert(indices);
}

void Queue::finish(Submission& entry, std::uint32_t index) {
  if (entry.pending.contains(index)) {
    entry.pending.erase(index);
    count_pending(entry, -1);
    if (entry.pending.empty()) set_ready(entry);
  } else {
    entry.placed.erase(index);
  }
  --held_tasks_;
  if (entry.delivered.contains(index)) release_argument(entry, index);
  entry.done.insert(index);
  if (!entry.histories.empty()) entry.histories.erase(index);
  if (!entry.cancelled.empty()) entry.cancelled.erase(index);
}

void Queue::finish(Submission& entry, const RangeSet& pending) {
  pending.for_each([&](std::uint32_t index) { finish(entry, index); });
  set_ready(entry);
}

void Queue::mark_done(Submission& entry, std::uint32_t index) { entry.done.insert(index); }

void Queue::acknowledge(const wire::SubmissionRanges& tasks) {
  Submission* entry = find(tasks.submission);
  if (entry == nullptr) return;
  const RangeSet gone = tasks.ranges.intersection(entry->done);
  entry->done.erase(gone);
  entry->delivered.erase(gone);
}

Bytes Queue::arguments(const Submission& entry, const RangeSet& indices,
                       std::vector<std::uint32_t>& sizes) {
  std::vector<Bytes> pieces;
  std::size_t total = 0;
  for (Range range : indices.ranges()) {
    while (range.size() > 0) {
      const auto position = std::prev(entry.chunks.upper_bound(range.first));
      const Chunk& chunk = position->second;
      const std::uint32_t from = range.first - position->first;
      const std::uint32_t end = std::min<std::uint32_t>(
          range.last - position->first, static_cast<std::uint32_t>(chunk.offsets.size() - 1));
      FARCALL_CHECK(from < end, "no arguments for a task of " + entry.id.string());
      for (std::uint32_t i = from; i != end; ++i)
        sizes.push_back(chunk.offsets[i + 1] - chunk.offsets[i]);
      pieces.push_back(
          chunk.data.slice(chunk.offsets[from], chunk.offsets[end] - chunk.offsets[from]));
      total += pieces.back().size();
      range.first = position->first + end;
    }
  }
  if (pieces.size() == 1) return pieces.front();
  std::string joined;
  joined.reserve(total);
  for (const Bytes& piece : pieces) joined += piece.view();
  return Bytes(std::move(joined));
}

std::vector<wire::SubmissionRanges> Queue::holds() const {
  std::vector<wire::SubmissionRanges> result;
  for (const auto& [id, entry] : submissions_) {
    RangeSet held = entry->delivered;
    held.insert(entry->done);
    if (!held.empty()) result.push_back({id, std::move(held)});
  }
  return result;
}

std::string Queue::sanity_check() const {
  std::uint64_t tasks = 0, bytes = 0, pending = 0, cores = 0;
  for (const auto& [id, entry] : submissions_) {
    const Submission& s = *entry;
    if (!s.pending.intersection(s.placed).empty() || !s.pending.intersection(s.done).empty() ||
        !s.placed.intersection(s.done).empty())
      return "a task of " + id.string() + " is in two sets at once";
    if (!s.pending.difference(s.delivered).empty())
      return "a task of " + id.string() + " is pending without its arguments";
    RangeSet known = s.pending;
    known.insert(s.placed);
    known.insert(s.done);
    if (!s.delivered.difference(known).empty())
      return "a delivered task of " + id.string() + " is in no set";
    if (!s.cancelled.intersection(s.done).empty())
      return "a task is done and still to be cancelled";
    std::uint64_t wanted = 0;
    for (const auto& [first, chunk] : s.chunks) {
      if (chunk.remaining == 0) return "a chunk is kept that nothing needs";
      wanted += chunk.remaining;
      bytes += chunk.data.size();
    }
    if (wanted != s.delivered.difference(s.done).count())
      return "the chunks of " + id.string() + " do not add up to its tasks";
    if (!s.pending.empty() != ready_.contains({s.header ? s.header->priority : 0, s.arrival}))
      return "the list of ready submissions is wrong about " + id.string();
    tasks += s.pending.count() + s.placed.count();
    pending += s.pending.count();
    cores += s.pending.count() * s.cores();
  }
  if (tasks != held_tasks_) return "the count of held tasks is wrong";
  if (bytes != held_bytes_) return "the count of held bytes is wrong";
  if (pending != pending_tasks_ || cores != pending_cores_) return "pending tasks do not add up";
  return "";
}

}  // namespace farcall::interchange
