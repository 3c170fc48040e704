// Fetching blobs from one holder, as a pure state machine: what the holder and the disk say goes
// in, what to ask and to write comes out. Chunks come in order; what is asked for and not on disk
// yet is bounded, whatever the size of the blobs; a cut costs what was on its way and nothing more.
// Not thread-safe.
#pragma once

#include <deque>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "wire/blobs.h"

namespace farcall::blobs {

struct TransferLimits {
  std::uint32_t chunk_bytes = wire::kBlobChunkBytes;
  std::uint32_t chunks_under_way = 8;  // asked for and not written yet, of all blobs together
  std::uint32_t blobs_at_once = 4;
};

class Transfer {
 public:
  // Carried out in order. The disk answers Open with opened(), Write with written(), Close with
  // closed(), and each of them with broken() instead.
  struct Open {
    wire::BlobRef blob;
  };
  struct Ask {
    wire::BlobGet get;
  };
  struct Write {
    wire::BlobRef blob;
    std::uint64_t offset = 0;
    Bytes data;
  };
  struct Close {  // all of it is written: is it what it should be?
    wire::BlobRef blob;
  };
  // Nothing of it is wanted any more.
  struct Ended {
    wire::BlobRef blob;
    Result<void> outcome;
  };
  using Effect = std::variant<Open, Ask, Write, Close, Ended>;

  explicit Transfer(TransferLimits limits = {}) : limits_(limits) {}

  void want(const wire::BlobRef& blob);  // wanting it again changes nothing
  // The connection: asked for again is what was asked for and has not come.
  void up();
  void down();
  void chunk(const wire::BlobChunk& chunk, Bytes data);
  // The disk. `have`: bytes from the start that are there from earlier.
  void opened(const std::string& hash, std::uint64_t have);
  void written(const std::string& hash, std::uint64_t bytes);
  void closed(const std::string& hash);
  void broken(const std::string& hash, Error error);
  // Ends all that is wanted.
  void abandon(const Error& why);

  std::vector<Effect> take_effects();
  bool idle() const { return wanted_.empty(); }
  // "" or the first invariant that does not hold.
  std::string sanity_check() const;

 private:
  enum class Stage { kWaiting, kOpening, kMoving, kClosing };
  struct Blob {
    wire::BlobRef ref;
    Stage stage = Stage::kWaiting;
    std::uint64_t asked = 0, received = 0, written = 0;  // from the start; asked >= received …
    std::uint32_t asks = 0, writes = 0;                  // chunks on their way, to the disk
    bool tried_again = false;
  };
  Blob* find(const std::string& hash, Stage stage);
  void end(const std::string& hash, Result<void> outcome);
  void close_if_whole(Blob& blob);
  void pump();

  const TransferLimits limits_;
  bool up_ = false;
  std::map<std::string, Blob> wanted_;
  std::deque<std::string> waiting_;  // stage kWaiting
  std::deque<std::string> active_;   // the others; the first is asked for next
  std::vector<Effect> effects_;
};

}  // namespace farcall::blobs
