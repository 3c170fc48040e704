// Progress and output of running attempts: coalesced, and dropped when there is nobody to tell.
#include <utility>

#include "pilot/core/core.h"
#include "wire/codec.h"
#include "wire/notes.h"

namespace farcall::pilot {

namespace {
constexpr Duration kNotesEvery = std::chrono::milliseconds(100);
constexpr std::size_t kOutputBytesMax = 64 << 10;  // of one attempt and stream, between two reports
constexpr std::size_t kMessageBytesMax = 512
                                         << 10;  // of one report; what is more waits for the next

// Appends what follows directly; after a gap, or when it gets too much, the older part goes.
void append(std::string& have, std::uint64_t& at, std::string&& more, std::uint64_t from) {
  if (more.empty()) return;
  if (have.empty() || at + have.size() != from) {
    have = std::move(more);
    at = from;
  } else {
    have += more;
  }
  if (have.size() <= kOutputBytesMax) return;
  const std::size_t cut = have.size() - kOutputBytesMax;
  have.erase(0, cut);
  at += cut;
}
}  // namespace

const Assignment* Core::running_work(const wire::AttemptRef& ref) const {
  auto found = attempts_.find(ref);
  if (found == attempts_.end() || found->second.state != AttemptState::kRunning) return nullptr;
  return &found->second.work;
}

void Core::on_note(const wire::AttemptRef& ref, Note note) {
  if (!up_ || running_work(ref) == nullptr) return;
  Note& kept = notes_[ref];
  if (note.has_progress) {
    kept.has_progress = true;
    kept.done = note.done;
    kept.total = note.total;
    kept.text = std::move(note.text);
  }
  append(kept.out, kept.out_offset, std::move(note.out), note.out_offset);
  append(kept.err, kept.err_offset, std::move(note.err), note.err_offset);
}

void Core::report_notes(Now now) {
  if (notes_.empty() || now.mono < next_notes_) return;
  if (!up_) return notes_.clear();
  next_notes_ = now.mono + kNotesEvery;
  wire::Notes message;
  std::string bytes;
  while (!notes_.empty() && bytes.size() < kMessageBytesMax) {
    auto first = notes_.begin();
    const wire::AttemptRef& ref = first->first;
    const Note& note = first->second;
    if (message.items.empty() || message.items.back().submission != ref.submission)
      message.items.push_back({ref.submission, {}});
    wire::TaskNote& out = message.items.back().notes.emplace_back();
    out.index = ref.index;
    out.attempt = ref.attempt;
    out.has_progress = note.has_progress;
    out.done = note.done;
    out.total = note.total;
    out.text = note.text;
    out.out_offset = note.out_offset;
    out.out_size = static_cast<std::uint32_t>(note.out.size());
    out.err_offset = note.err_offset;
    out.err_size = static_cast<std::uint32_t>(note.err.size());
    bytes += note.out;
    bytes += note.err;
    notes_.erase(first);
  }
  send(wire::make_message(message, {Bytes(std::move(bytes))}));
}

}  // namespace farcall::pilot
